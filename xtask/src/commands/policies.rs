//! `cargo xtask policies`: what the roles may do, what is wrong with the documents, and what a deployer needs.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use snapwarden_deployer::environment::{CopyTarget, Engine, Environment, RoleArn};
use snapwarden_deployer::kinds::key::for_services;
use snapwarden_deployer::policy::copies::{
    for_key_of_sources, lint_copies, other_accounts, restorer_in_other_account, role_in_other_account,
};
use snapwarden_deployer::policy::deployer::{
    Access, KeyRights, deployer_policy, lint_deployer, with_copies, with_simulation,
};
use snapwarden_deployer::policy::lint::Finding;
use snapwarden_deployer::policy::stack::{lint_stack, stack_deployer_policy, stack_policy, stack_trust};
use snapwarden_deployer::policy::trust::Pipeline;
use snapwarden_deployer::policy::{
    PolicyError, lint_restorer, lint_roles, purposes, restorer_policy, role_policies,
};
use snapwarden_deployer::scope::Scope;

use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::session::refuse_errors;

/// Flags of `policies`.
#[derive(Args, Debug)]
pub(crate) struct PoliciesArgs {
    #[command(subcommand)]
    command: PoliciesCommand,
}

#[derive(Debug, Subcommand)]
enum PoliciesCommand {
    /// Show what one of the environment's roles may do and who may assume it, as JSON
    Show(ShowArgs),
    /// Look for wildcards, unknown actions and conditions, missing reasons and documents that are too long
    Lint,
    /// Write the policy of whoever plans, deploys and destroys the environment, as JSON
    Deployer(DeployerArgs),
    /// Where CloudFormation is the engine: write the trust policy and the permissions of the role that it acts as, as JSON
    Stack(StackArgs),
    /// Write the policy of whoever restores the environment's snapshots, as JSON
    Restorer(RestorerArgs),
    /// Where `copy_to` names a role in another account: write the role's trust policy and permissions, as JSON
    Copies(CopiesArgs),
    /// Write what the policy of a key of your own has to say, so that it can encrypt the topic and the log groups, and
    /// other accounts can copy what it encrypts, as JSON
    Key,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// `backup`, `cleanup` or `scheduler`
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(purposes()))]
    role: String,
}

#[derive(Args, Debug)]
struct DeployerArgs {
    /// Only what `plan`, `status` and the other commands that look need
    #[arg(long)]
    read_only: bool,
    /// Also what `destroy --snapshots purge` needs: to delete the environment's snapshots; with --read-only, as a policy
    /// beside the deployer's
    #[arg(long)]
    purge: bool,
    /// Also what `invoke` and `dead-letters` need; with --read-only, for whoever operates and does not deploy
    #[arg(long)]
    operate: bool,
    /// Where the file asks for a key: whether its rights are in the policy, which with them may be longer than IAM takes
    #[arg(long, value_enum, default_value_t)]
    key: KeyPart,
    /// Write the trust policy of the role as well, for a pipeline: github:OWNER/REPO:ENVIRONMENT, where ENVIRONMENT is
    /// GitHub's. The account needs GitHub's OIDC provider.
    #[arg(long, value_name = "PIPELINE")]
    trust: Option<Pipeline>,
    /// The ARN of the user or role that the policy is for: lets it ask IAM before the first change of a deploy or a
    /// destroy whether a right is missing
    #[arg(long, value_name = "ARN", value_parser = principal)]
    principal: Option<String>,
}

#[derive(Args, Debug)]
struct RestorerArgs {
    /// For whoever restores in this account, from the copies that `copy_to` keeps there
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
}

#[derive(Args, Debug)]
struct CopiesArgs {
    /// The account, where `copy_to` names several
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// The ARN of a user or role of the environment's account that may act as the role as well, to look at the copies by
    /// `status` and to purge them; once for each
    #[arg(long, value_name = "ARN", value_parser = principal)]
    principal: Vec<String>,
}

#[derive(Args, Debug)]
struct StackArgs {
    /// Where the file asks for a key: whether its rights are in the policy, which with them may be longer than IAM takes
    #[arg(long, value_enum, default_value_t)]
    key: KeyPart,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum KeyPart {
    /// They are
    #[default]
    With,
    /// They are not
    Without,
    /// They are, and nothing else is
    Only,
}

impl From<KeyPart> for KeyRights {
    fn from(part: KeyPart) -> Self {
        match part {
            KeyPart::With => Self::With,
            KeyPart::Without => Self::Without,
            KeyPart::Only => Self::Only,
        }
    }
}

/// The ARN of a user or a role, without wildcards.
fn principal(text: &str) -> Result<String, String> {
    let resource = text.splitn(6, ':').nth(5).unwrap_or_default();
    let is_one = text.starts_with("arn:aws") && text.contains(":iam::") && !text.contains(['*', '?']);
    if is_one && (resource.starts_with("role/") || resource.starts_with("user/")) {
        return Ok(text.to_owned());
    }
    Err("write the ARN of a user or a role, such as arn:aws:iam::123456789012:role/ci".to_owned())
}

/// Shows, examines or writes policies. Asks AWS nothing.
pub(crate) fn cmd_policies(context: &Context, args: &PoliciesArgs) -> CommandResult {
    let (environment, findings) = context.environment_with_findings()?;
    refuse_errors(&findings)?;
    let scope = Scope::of(&environment);
    match &args.command {
        PoliciesCommand::Show(ShowArgs { role }) => {
            let policies = role_policies(&environment, &scope)?;
            json_result(context, &json!(policies.get(role.as_str())))
        }
        PoliciesCommand::Lint => {
            let mut findings = lint_roles(&environment, &scope)?;
            findings.extend(lint_restorer(&environment, &scope)?);
            findings.extend(lint_copies(&environment, &scope)?);
            // What the options add may also be a policy of its own: IAM limits the length of each.
            if environment.engine == Engine::Cloudformation {
                findings.extend(lint_stack(&environment, &scope));
            }
            let options = Access { deploy: false, ..Access::ALL };
            let accesses = [Access::READ_ONLY, Access::DEPLOY, options];
            // So may be what is about the key.
            let parts: &[KeyRights] = match scope.encryption.key(&scope.environment) {
                Some(_) => &[KeyRights::Without, KeyRights::Only],
                None => &[KeyRights::With],
            };
            for (access, key) in
                accesses.into_iter().flat_map(|access| parts.iter().map(move |key| (access, *key)))
            {
                findings.extend(lint_deployer(&scope, Access { key, ..access }));
            }
            let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
            let text = if lines.is_empty() { "nothing to object to".to_owned() } else { lines.join("\n") };
            output::result(context, &json!({ "findings": findings }), text)?;
            if findings.is_empty() { Ok(()) } else { Err(Failure::said(Exit::Attention)) }
        }
        PoliciesCommand::Stack(StackArgs { key }) => {
            let (trust, permissions) = (stack_trust(), stack_policy(&environment, &scope, (*key).into()));
            json_result(context, &json!({ "trust": trust, "permissions": permissions }))
        }
        PoliciesCommand::Restorer(RestorerArgs { account: None }) => {
            json_result(context, &restorer_policy(&environment, &scope)?.into())
        }
        PoliciesCommand::Restorer(RestorerArgs { account: Some(account) }) => {
            let role = role_of_copies(&environment, Some(account))?;
            let policy = restorer_in_other_account(&environment, &scope, role.account())?;
            json_result(context, &policy.into())
        }
        PoliciesCommand::Copies(CopiesArgs { account, principal }) => {
            let role = role_of_copies(&environment, account.as_deref())?;
            let is_foreign = |arn: &&String| arn.split(':').nth(4) != Some(scope.account.as_str());
            if let Some(foreign) = principal.iter().find(is_foreign) {
                let message = format!("{foreign} is not of account {}, which the role trusts", scope.account);
                return Err(Failure::new(Exit::Usage, message)
                    .hint("name a user or role of the environment's account"));
            }
            let policies = role_in_other_account(&environment, &scope, role, principal)?;
            let value = json!({ "role": role, "trust": policies.trust, "permissions": policies.permissions });
            json_result(context, &value)
        }
        PoliciesCommand::Key => {
            let mut statements = for_services(&scope);
            statements.extend(for_key_of_sources(&environment, &scope));
            json_result(context, &json!({ "Version": "2012-10-17", "Statement": statements }))
        }
        PoliciesCommand::Deployer(DeployerArgs { read_only, purge, operate, key, trust, principal }) => {
            let access = Access {
                deploy: !read_only,
                purge: *purge,
                operate: *operate,
                key: (*key).into(),
                ..Access::READ_ONLY
            };
            let permissions = match environment.engine {
                Engine::Direct => deployer_policy(&scope, access),
                Engine::Cloudformation => stack_deployer_policy(&environment, &scope, access),
            };
            let places: Vec<_> = environment.copy_to.iter().map(CopyTarget::place).collect();
            let mut permissions = with_copies(permissions, &scope, &places, access);
            if let Some(principal) = principal {
                permissions = with_simulation(permissions, principal);
            }
            match trust {
                None => json_result(context, &permissions),
                Some(pipeline) => {
                    let trust = pipeline.trust_policy(&scope);
                    json_result(context, &json!({ "trust": trust, "permissions": permissions }))
                }
            }
        }
    }
}

/// The role in another account that is meant: that of the account which a flag names, or the only one.
fn role_of_copies<'a>(environment: &'a Environment, account: Option<&str>) -> Result<&'a RoleArn, Failure> {
    let roles = other_accounts(environment);
    let name = &environment.environment;
    let refused = |message: String| {
        let hint = format!("see copy_to in the file of environment {name}, and docs/copies.md");
        Failure::new(Exit::Usage, message).hint(hint)
    };
    match (account, roles.as_slice()) {
        (Some(account), roles) => roles
            .iter()
            .find(|role| role.account() == account)
            .copied()
            .ok_or_else(|| refused(format!("copy_to names no role of account {account}"))),
        (None, [role]) => Ok(role),
        (None, []) => Err(refused("copy_to names no role in another account".to_owned())),
        (None, _) => Err(refused("copy_to names several accounts: say one with --account".to_owned())),
    }
}

/// Results for IAM are JSON with and without `--json`.
fn json_result(context: &Context, value: &Value) -> CommandResult {
    output::result(context, value, format!("{value:#}"))
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        Self::caused_by(Exit::Failed, &error)
    }
}
