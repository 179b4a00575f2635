//! A plan in a file: what `plan --out` writes and `deploy --plan` executes exactly, or refuses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapwarden_domain::excerpt::excerpt;

use crate::environment::Iam;
use crate::plan::Plan;
use crate::scope::{Function, Scope};
use crate::world::{Observed, differences, fingerprint};

/// Versions of the file's form. Another form is refused, not guessed at.
const FORMAT: u32 = 1;

/// The version, and the state of the source: between two releases, too, the same plan may come to mean something else.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("SNAPWARDEN_SOURCE"));

/// A plan with everything that must still be true when it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    format: u32,
    /// The version of Snapwarden that planned, with the state of its source.
    snapwarden: String,
    /// The environment's name.
    pub environment: String,
    account: String,
    region: String,
    /// Where the roles are in IAM, and what they are called.
    iam: Iam,
    /// The code to deploy, as Lambda's `CodeSha256`.
    pub code: BTreeMap<Function, String>,
    /// The digest of everything that was observed.
    fingerprint: String,
    /// The steps.
    pub plan: Plan,
    /// The digest of all the above, so that a file that was edited or cut is noticed.
    digest: String,
}

/// Why a saved plan is not executed.
#[derive(Debug, thiserror::Error)]
pub enum SavedPlanError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no saved plan of this version.
    #[error("{} is not a plan that can be executed: {}", path.display(), excerpt(reason))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the plan was made for has changed.
    #[error("the plan is stale: {what}")]
    Stale {
        /// What changed.
        what: String,
    },
}

impl SavedPlan {
    /// A plan with the moment it was made for.
    pub fn new(scope: &Scope, code: BTreeMap<Function, String>, observed: &Observed, plan: Plan) -> Self {
        let mut saved = Self {
            format: FORMAT,
            snapwarden: VERSION.to_owned(),
            environment: scope.environment.to_string(),
            account: scope.account.to_string(),
            region: scope.region.to_string(),
            iam: scope.iam.clone(),
            code,
            fingerprint: fingerprint(observed),
            plan,
            digest: String::new(),
        };
        saved.digest = saved.own_digest();
        saved
    }

    /// Writes the plan as JSON; a file that was there is replaced in one step.
    pub fn write(&self, path: &Path) -> Result<(), SavedPlanError> {
        write_json(path, self)
    }

    /// Reads a plan and refuses one that is not as it was written.
    pub fn read(path: &Path) -> Result<Self, SavedPlanError> {
        let text = fs::read(path).map_err(|source| SavedPlanError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let damaged = |reason: String| SavedPlanError::Damaged { path: path.to_owned(), reason };
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        // The form first: a plan of another version lacks or has fields that this one would complain about.
        let format = json.get("format").and_then(serde_json::Value::as_u64);
        if json.get("change_set").is_some() {
            return Err(damaged(
                "it is a change set, and the environment's file does not say `engine: cloudformation`"
                    .to_owned(),
            ));
        }
        let made_by = json.get("snapwarden").and_then(serde_json::Value::as_str).unwrap_or("unknown");
        if format != Some(u64::from(FORMAT)) || made_by != VERSION {
            return Err(damaged(format!("it was made by Snapwarden {made_by}, and this is {VERSION}")));
        }
        let saved = Self::deserialize(json).map_err(|error| damaged(error.to_string()))?;
        if saved.digest == saved.own_digest() {
            Ok(saved)
        } else {
            Err(damaged("it was changed after it was made".to_owned()))
        }
    }

    /// Refuses when anything is not as it was when the plan was made.
    pub fn check(
        &self,
        scope: &Scope,
        code: &BTreeMap<Function, String>,
        observed: &Observed,
    ) -> Result<(), SavedPlanError> {
        let stale = |what: String| Err(SavedPlanError::Stale { what });
        let target = |environment: &str, account: &str, region: &str| {
            format!("{environment} in account {account}, {region}")
        };
        let planned = target(&self.environment, &self.account, &self.region);
        let now = target(scope.environment.as_str(), scope.account.as_str(), scope.region.as_str());
        if planned != now {
            return stale(format!("it was made for {planned}, not for {now}"));
        }
        if self.iam != scope.iam {
            return stale("`iam` in the environment's file is not what it was".to_owned());
        }
        for (function, digest) in &self.code {
            if code.get(function) != Some(digest) {
                return stale(format!(
                    "the bundle's {} function is not the one that was planned",
                    function.as_str()
                ));
            }
        }
        if self.fingerprint != fingerprint(observed) {
            return stale(self.what_changed(observed));
        }
        Ok(())
    }

    /// Names the resources that are not as the plan saw them.
    fn what_changed(&self, observed: &Observed) -> String {
        let seen: Observed = self
            .plan
            .steps
            .iter()
            .filter_map(|step| Some((step.resource.clone(), step.found.clone()?)))
            .collect();
        // What the plan leaves alone it does not describe either.
        let mut now = observed.clone();
        now.retain(|id, _| !self.plan.left_alone.contains(id));
        let mut all = differences(&seen, &now);
        if all.is_empty() {
            let strangers: Vec<_> = self.plan.left_alone.iter().map(ToString::to_string).collect();
            all.push(format!("something changed that is not ours: {}", strangers.join(", ")));
        }
        format!("since it was made,\n  {}\n", all.join("\n  "))
    }

    fn own_digest(&self) -> String {
        let undigested = Self { digest: String::new(), ..self.clone() };
        let json = serde_json::json!(undigested).to_string();
        hex::encode(Sha256::digest(json))
    }
}

/// Writes `value` as JSON; a file that was there is replaced in one step.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), SavedPlanError> {
    let file = |source| SavedPlanError::File { action: "write", path: path.to_owned(), source };
    let json = serde_json::to_vec_pretty(value).map_err(|error| file(error.into()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder).map_err(file)?;
    draft.write_all(&json).and_then(|()| draft.write_all(b"\n")).map_err(file)?;
    draft.persist(path).map_err(|error| file(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::tests::scope;

    fn saved() -> SavedPlan {
        SavedPlan::new(&scope("prod"), BTreeMap::new(), &Observed::new(), Plan::default())
    }

    /// Roles under other names than those that were approved are other roles.
    #[test]
    fn a_plan_for_other_roles_is_stale() {
        let mut now = scope("prod");
        assert!(saved().check(&now, &BTreeMap::new(), &Observed::new()).is_ok());
        now.iam.role_name_prefix = "acme-".to_owned().try_into().unwrap();
        let error = saved().check(&now, &BTreeMap::new(), &Observed::new()).unwrap_err().to_string();
        assert!(error.contains("`iam` in the environment's file"), "{error}");
    }

    /// What a plan says depends on the program that reads it, whatever its version is called.
    #[test]
    fn a_plan_of_another_state_of_the_source_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        saved().write(&path).unwrap();
        SavedPlan::read(&path).unwrap();
        let mut other = SavedPlan { snapwarden: "0.1.0+0000000000000000".to_owned(), ..saved() };
        other.digest = other.own_digest();
        other.write(&path).unwrap();
        let error = SavedPlan::read(&path).unwrap_err().to_string();
        assert!(error.contains("it was made by Snapwarden 0.1.0+0000000000000000"), "{error}");
    }
}
