//! `cargo xtask policies`: what the roles may do, what is wrong with the documents, and what a deployer needs.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use snapwarden_deployer::policy::deployer::{Access, deployer_policy, lint_deployer};
use snapwarden_deployer::policy::lint::Finding;
use snapwarden_deployer::policy::trust::Pipeline;
use snapwarden_deployer::policy::{
    PolicyError, lint_restorer, lint_roles, purposes, restorer_policy, role_policies,
};
use snapwarden_deployer::scope::Scope;

use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;

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
    /// Write the policy of whoever restores the environment's snapshots, as JSON
    Restorer,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// `backup`, `cleanup` or `scheduler`
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(purposes()))]
    role: String,
}

#[derive(Args, Debug)]
struct DeployerArgs {
    /// Only what `plan` and `status` need
    #[arg(long)]
    read_only: bool,
    /// Write the trust policy of the role as well, for a pipeline: github:OWNER/REPO:ENVIRONMENT, where ENVIRONMENT is
    /// GitHub's. The account needs GitHub's OIDC provider.
    #[arg(long, value_name = "PIPELINE")]
    trust: Option<Pipeline>,
}

/// Shows, examines or writes policies. Asks AWS nothing.
pub(crate) fn cmd_policies(context: &Context, args: &PoliciesArgs) -> CommandResult {
    let environment = context.environment()?;
    let scope = Scope::of(&environment);
    match &args.command {
        PoliciesCommand::Show(ShowArgs { role }) => {
            let policies = role_policies(&environment, &scope)?;
            json_result(context, &json!(policies.get(role.as_str())))
        }
        PoliciesCommand::Lint => {
            let mut findings = lint_roles(&environment, &scope)?;
            findings.extend(lint_restorer(&environment, &scope)?);
            for access in [Access::ReadOnly, Access::Full] {
                findings.extend(lint_deployer(&scope, access));
            }
            let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
            let text = if lines.is_empty() { "nothing to object to".to_owned() } else { lines.join("\n") };
            output::result(context, &json!({ "findings": findings }), text)?;
            if findings.is_empty() { Ok(()) } else { Err(Failure::said(Exit::Attention)) }
        }
        PoliciesCommand::Restorer => json_result(context, &restorer_policy(&environment, &scope)?.into()),
        PoliciesCommand::Deployer(DeployerArgs { read_only, trust }) => {
            let access = if *read_only { Access::ReadOnly } else { Access::Full };
            let permissions = deployer_policy(&scope, access);
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

/// Results for IAM are JSON with and without `--json`.
fn json_result(context: &Context, value: &Value) -> CommandResult {
    output::result(context, value, format!("{value:#}"))
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        Self::caused_by(Exit::Failed, &error)
    }
}
