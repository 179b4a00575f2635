//! A change set in a file: what `plan --out` writes and `deploy --plan` executes exactly, or refuses.
//!
//! CloudFormation itself refuses to execute a change set once the stack has changed in another way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::change_set::ChangeSet;
use crate::saved_plan::{SavedPlanError, write_json};
use crate::scope::{Function, Scope};

/// Versions of the file's form. Another form is refused, not guessed at.
const FORMAT: &str = "change set 3";

/// A change set with everything that must still be true when it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedChangeSet {
    format: String,
    environment: String,
    account: String,
    region: String,
    /// The code to deploy, as Lambda's `CodeSha256`.
    code: BTreeMap<Function, String>,
    /// The digest of the template that the stack has in the end.
    template: String,
    /// What to execute; nothing where nothing changes.
    pub change_set: Option<ChangeSet>,
    /// The digest of all the above, so that a file that was edited or cut is noticed.
    digest: String,
}

impl SavedChangeSet {
    /// A change set with the moment it was made for.
    pub fn new(
        scope: &Scope,
        code: BTreeMap<Function, String>,
        template: &Value,
        change_set: Option<ChangeSet>,
    ) -> Self {
        let mut saved = Self {
            format: FORMAT.to_owned(),
            environment: scope.environment.to_string(),
            account: scope.account.to_string(),
            region: scope.region.to_string(),
            code,
            template: digest(template),
            change_set,
            digest: String::new(),
        };
        saved.digest = saved.own_digest();
        saved
    }

    /// Writes it as JSON; a file that was there is replaced in one step.
    pub fn write(&self, path: &Path) -> Result<(), SavedPlanError> {
        write_json(path, self)
    }

    /// Reads one and refuses what is not as it was written.
    pub fn read(path: &Path) -> Result<Self, SavedPlanError> {
        let file = |source| SavedPlanError::File { action: "read", path: path.to_owned(), source };
        let text = fs::read(path).map_err(file)?;
        let damaged = |reason: String| SavedPlanError::Damaged { path: path.to_owned(), reason };
        let saved: Self = serde_json::from_slice(&text).map_err(|error| {
            damaged(format!("it holds no change set of this version of Snapwarden: {error}"))
        })?;
        if saved.format != FORMAT {
            return Err(damaged(format!(
                "it is of the form `{}`, and this version reads `{FORMAT}`",
                saved.format
            )));
        }
        if saved.digest == saved.own_digest() {
            Ok(saved)
        } else {
            Err(damaged("it was changed after it was made".to_owned()))
        }
    }

    /// Whether it is about this environment, this code and this template: CloudFormation keeps the first template of
    /// two, and the last one is made anew.
    pub fn check(
        &self,
        scope: &Scope,
        code: &BTreeMap<Function, String>,
        template: &Value,
    ) -> Result<(), SavedPlanError> {
        let stale = |what: String| Err(SavedPlanError::Stale { what });
        for (what, planned, now) in [
            ("environment", &self.environment, scope.environment.as_str()),
            ("account", &self.account, scope.account.as_str()),
            ("Region", &self.region, scope.region.as_str()),
        ] {
            if planned != now {
                return stale(format!("it is for {what} {planned}, not {now}"));
            }
        }
        if self.code != *code {
            return stale("it deploys other code than the bundle holds".to_owned());
        }
        if self.template != digest(template) {
            return stale("the environment's file, or this checkout, says something else by now".to_owned());
        }
        Ok(())
    }

    fn own_digest(&self) -> String {
        let bare = Self { digest: String::new(), ..self.clone() };
        digest(&json!(bare))
    }
}

fn digest(value: &Value) -> String {
    hex::encode(Sha256::digest(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn saved() -> SavedChangeSet {
        let change_set = ChangeSet {
            id: "arn:change-set".to_owned(),
            stack: "arn:stack".to_owned(),
            creates: false,
            is_last: true,
            plan: Plan::default(),
        };
        let code = BTreeMap::from([(Function::Backup, "a".to_owned())]);
        SavedChangeSet::new(
            &crate::cloudformation::tests::scope(),
            code,
            &json!({ "a": 1 }),
            Some(change_set),
        )
    }

    /// Somebody approved the file, and not what an editor or a full disk made of it.
    #[test]
    fn a_file_is_read_as_it_was_written_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        saved().write(&path).unwrap();
        assert_eq!(SavedChangeSet::read(&path).unwrap(), saved());
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in
            [("arn:stack", "arn:other"), ("change set 3", "change set 4"), ("\"digest\"", "\"sum\"")]
        {
            assert!(text.contains(from), "{from}");
            fs::write(&path, text.replace(from, to)).unwrap();
            assert!(matches!(SavedChangeSet::read(&path), Err(SavedPlanError::Damaged { .. })), "{to}");
        }
    }

    #[test]
    fn another_environment_other_code_or_another_template_is_refused() {
        let scope = crate::cloudformation::tests::scope();
        let (code, template) = (saved().code, json!({ "a": 1 }));
        assert!(saved().check(&scope, &code, &template).is_ok());
        let elsewhere = Scope { region: "eu-west-1".to_owned().try_into().unwrap(), ..scope.clone() };
        for (scope, code, template) in [
            (&scope, &BTreeMap::new(), &template),
            (&elsewhere, &code, &template),
            (&scope, &code, &json!({ "a": 2 })),
        ] {
            assert!(matches!(saved().check(scope, code, template), Err(SavedPlanError::Stale { .. })));
        }
    }
}
