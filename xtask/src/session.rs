//! A connection to an environment: its file read, its cloud reached, and the account proven to be the right one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snapwarden_deployer::aws::{Aws, Caller, LocalEndpoints};
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::environment::{
    AccountId, Cloud, CopyPlace, CopyTarget, Engine, Environment, Finding, Identity, Region, Severity,
};
use snapwarden_deployer::error::AwsError;
use snapwarden_deployer::event::Listener;
use snapwarden_deployer::kinds::key::is_named;
use snapwarden_deployer::kinds::{Blueprint, Context as Cloudside, Schedule, endpoints, registry};
use snapwarden_deployer::plan::Plan;
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::role_prefix;
use snapwarden_deployer::scope::{Function, Scope};
use snapwarden_deployer::world::{Desired, Observed};

use crate::context::Context;
use crate::elsewhere::{place_of_copies, refuse_forgotten};
use crate::failure::{CommandResult, Exit, Failure};
use crate::local::{LocalCloud, Ports, endpoint};
use crate::{bundle, output, render};

/// A connection to an environment, with its file or, for a destroy, with as much of it as can be read.
pub(crate) struct Session<E = Environment> {
    /// The environment's file.
    pub(crate) environment: E,
    /// Names and ARNs.
    pub(crate) scope: Scope,
    /// The clients.
    pub(crate) aws: Aws,
    /// Who is calling, such as `user/ann`.
    pub(crate) caller: String,
    /// The same as an ARN.
    pub(crate) caller_arn: String,
    /// What in the file is valid and yet hardly meant.
    pub(crate) warnings: Vec<Finding>,
    /// Whether new versions do a dry run before they go live.
    pub(crate) with_canary: bool,
    cloud: Cloud,
    /// The endpoints that alarms and failing runs are sent to, which may be secrets, by the names of subscriptions.
    endpoints: BTreeMap<String, String>,
}

/// Whether somebody has to say yes before anything happens.
fn needs_a_person(cloud: Cloud, nothing_happens: bool, yes: bool) -> bool {
    cloud == Cloud::Aws && !nothing_happens && !yes
}

/// What may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approval {
    /// The plan that a person has read, and no other.
    JustThis,
    /// Whatever the environment needs by the time it is applied.
    Whatever,
}

/// Where the functions' code comes from.
#[derive(Clone, Copy)]
pub(crate) enum CodeSource<'a> {
    /// Built from this checkout, unless it is up to date.
    Build,
    /// A bundle that was built before: its folder, or one file.
    At(&'a Path),
}

impl Session {
    /// Connects to the environment that the flags name; a local one is started when it is not running.
    pub(crate) async fn open(context: &Context) -> Result<Self, Failure> {
        let (environment, warnings) = context.environment_with_findings()?;
        start_local(context, &Identity::from(&environment))?;
        Ok(Self { warnings, ..Self::connect(context, environment).await? })
    }

    /// The same, with the bundle. What both need is set up side by side: a fresh checkout is ready sooner.
    pub(crate) async fn open_with_code(
        context: &Context,
        source: CodeSource<'_>,
    ) -> Result<(Self, Arc<Bundle>), Failure> {
        let (environment, warnings) = context.environment_with_findings()?;
        refuse_errors(&warnings)?;
        if environment.cloud == Cloud::Aws {
            // Wrong credentials show before the minutes that compiling takes.
            let session = Self { warnings, ..Self::connect(context, environment).await? };
            let code = bundle_of(context, source)?;
            session.warn(context);
            return Ok((session, Arc::new(code)));
        }
        let (started, code) = std::thread::scope(|threads| {
            let starting = threads.spawn(|| start_local(context, &Identity::from(&environment)));
            (starting.join(), bundle_of(context, source))
        });
        let code = code?;
        // A panic there has been printed already.
        started.unwrap_or_else(|_| Err(Failure::new(Exit::Failed, "cannot start the local environment")))?;
        let session = Self { warnings, ..Self::connect(context, environment).await? };
        session.warn(context);
        Ok((session, Arc::new(code)))
    }

    /// The same, for a look: `None` where a local environment is not running, which a look does not change.
    pub(crate) async fn open_running(context: &Context) -> Result<Option<Self>, Failure> {
        let (environment, warnings) = context.environment_with_findings()?;
        let identity = Identity::from(&environment);
        if identity.cloud == Cloud::Local && !local_cloud(context, &identity).status()?.running {
            return Ok(None);
        }
        Ok(Some(Self { warnings, ..Self::connect(context, environment).await? }))
    }

    async fn connect(context: &Context, environment: Environment) -> Result<Self, Failure> {
        let (scope, identity) = (Scope::of(&environment), Identity::from(&environment));
        let endpoints = endpoints(&environment.notify);
        Ok(Self { endpoints, ..Self::reach(context, environment, scope, &identity, None).await? })
    }

    /// The same as [`Session::open_running`] with clients of another Region or account, and the place that they are of:
    /// nothing of the environment's own is called, which may be lost.
    pub(crate) async fn open_running_in(
        context: &Context,
        region: &Region,
        account: Option<&AccountId>,
    ) -> Result<Option<(Self, CopyPlace)>, Failure> {
        let (environment, warnings) = context.environment_with_findings()?;
        let (scope, identity) = (Scope::of(&environment), Identity::from(&environment));
        let place = place_of_copies(&environment, region, account)?;
        if identity.cloud == Cloud::Local && !local_cloud(context, &identity).status()?.running {
            return Ok(None);
        }
        let session = Self::reach(context, environment, scope, &identity, Some(&place)).await?;
        Ok(Some((Self { warnings, ..session }, place)))
    }

    /// What effects in another Region need, with the environment's names there.
    pub(crate) async fn in_region(&self, context: &Context, region: &Region) -> Result<Cloudside, Failure> {
        let aws = match self.environment.cloud {
            Cloud::Aws => Aws::connect(region, context.profile()).await,
            Cloud::Local => {
                Aws::local(region, &local_endpoints(context, &Identity::from(&self.environment))?)
            }
        };
        let scope = Scope { region: region.clone(), ..self.scope.clone() };
        Ok(Cloudside::new(aws, scope, None, Arc::new(|_| ())))
    }

    /// Refuses a change after which nobody would find or look after what is there: a stack, roles of another name,
    /// copies, a key.
    pub(crate) async fn refuse_orphans(&self, context: &Context, observed: &Observed) -> CommandResult {
        self.check_engine(observed)?;
        self.check_role_names(context, observed).await?;
        let kept = self.environment.copy_to.iter().map(CopyTarget::place).collect();
        refuse_forgotten(context, self, observed, &kept, "copy_to").await?;
        self.check_key(observed)
    }

    /// Refuses to change piece by piece what a stack has made.
    fn check_engine(&self, observed: &Observed) -> CommandResult {
        if self.environment.engine == Engine::Cloudformation || !Schedule::of_a_stack(observed) {
            return Ok(());
        }
        let message = format!(
            "environment {} is a CloudFormation stack, which its file does not say any more",
            self.scope.environment
        );
        Err(Failure::new(Exit::Refused, message).hint(
            "put `engine: cloudformation` back; docs/cloudformation.md says how an environment moves to the other engine",
        ))
    }

    /// Refuses to forget the key that an earlier deploy made.
    fn check_key(&self, observed: &Observed) -> CommandResult {
        if self.scope.encryption.key(&self.scope.environment).is_some() || !is_named(observed, &self.scope) {
            return Ok(());
        }
        let alias = self.scope.key_alias();
        let message = format!(
            "environment {} has a key of its own, {alias}, which its file does not name any more: nobody would look after \
             it, and no backup that it encrypted can be read without it",
            self.scope.environment
        );
        Err(Failure::new(Exit::Refused, message).hint(format!(
            "put `kms_key: {{ create: true }}` back, or name it, `kms_key: {alias}`, to look after it yourself"
        )))
    }

    /// Everything the environment should hold, with the given code in its functions.
    pub(crate) fn desired(
        &self,
        code: &BTreeMap<Function, String>,
        draining: Option<Draining>,
    ) -> Result<Desired, Failure> {
        let policies = role_policies(&self.environment, &self.scope)
            .map_err(|error| Failure::caused_by(Exit::Failed, &error))?;
        Ok(registry().declare(&Blueprint {
            environment: &self.environment,
            scope: &self.scope,
            policies: &policies,
            code,
            draining,
        }))
    }
}

impl Session<Identity> {
    /// Connects to an environment of whose file only the name, the account and the Region can be read, or need to.
    pub(crate) async fn open_identity(context: &Context) -> Result<Self, Failure> {
        let identity = context.identity()?;
        start_local(context, &identity)?;
        let scope = Scope::identified_by(&identity);
        Self::reach(context, identity.clone(), scope, &identity, None).await
    }
}

impl<E> Session<E> {
    async fn reach(
        context: &Context,
        environment: E,
        scope: Scope,
        identity: &Identity,
        place: Option<&CopyPlace>,
    ) -> Result<Self, Failure> {
        let region = place.map_or(&scope.region, |place| &place.region);
        if scope.account.as_str() == PLACEHOLDER {
            let name = &scope.environment;
            let message = format!("environment `{name}` has no account yet: {PLACEHOLDER} is a placeholder");
            return Err(
                Failure::new(Exit::Usage, message).hint("put your account into the environment's file")
            );
        }
        let mut aws = match identity.cloud {
            Cloud::Aws => Aws::connect(region, context.profile()).await,
            Cloud::Local => Aws::local(region, &local_endpoints(context, identity)?),
        };
        let caller = aws.caller().await?;
        match place.filter(|place| place.role.is_some()) {
            // Who restores there has credentials of that account; the emulators know only one user, of the own account.
            Some(place) if identity.cloud == Cloud::Local => aws.ec2 = aws.ec2_at(place).await?,
            Some(place) => {
                check_account(&scope, place.account().unwrap_or_default(), &identity.copy_places, &caller)?;
            }
            None => check_account(&scope, scope.account.as_str(), &identity.copy_places, &caller)?,
        }
        // `arn:aws:sts::123456789012:assumed-role/ci/run-7`: what comes before is known.
        let name = caller.arn.splitn(6, ':').nth(5).unwrap_or(&caller.arn).to_owned();
        Ok(Self {
            environment,
            scope,
            aws,
            caller: name,
            caller_arn: caller.arn,
            warnings: Vec::new(),
            // The functions are Linux programs: elsewhere the emulators cannot run them.
            with_canary: identity.cloud == Cloud::Aws || cfg!(target_os = "linux"),
            cloud: identity.cloud,
            endpoints: BTreeMap::new(),
        })
    }

    /// Whether it is AWS that is talked to, and not the emulators.
    pub(crate) fn is_on_aws(&self) -> bool {
        self.cloud == Cloud::Aws
    }

    /// Says what in the file is hardly meant.
    pub(crate) fn warn(&self, context: &Context) {
        for warning in &self.warnings {
            context.progress().warn(&warning.to_string());
        }
    }

    /// Refuses a file that is valid and cannot be meant.
    pub(crate) fn refuse_errors(&self) -> Result<(), Failure> {
        refuse_errors(&self.warnings)
    }

    /// What the deployer's effects need.
    pub(crate) fn cloudside(&self, code: Option<Arc<Bundle>>, listener: Listener) -> Cloudside {
        let cloudside = Cloudside::new(self.aws.clone(), self.scope.clone(), code, listener);
        let cloudside = cloudside.on_behalf_of(&self.caller).with_endpoints(self.endpoints.clone());
        if self.with_canary { cloudside } else { cloudside.without_canary() }
    }

    /// Shows a plan, and asks a person before it is applied to an account, unless the flag has said yes. The
    /// emulators hold nothing that is worth a question.
    pub(crate) fn approve(
        &self,
        context: &Context,
        plan: &Plan,
        question: &str,
        yes: bool,
    ) -> Result<Approval, Failure> {
        self.approve_with(context, plan, plan.is_empty(), question, yes)
    }

    /// The same of a plan that is not all that is going to happen.
    pub(crate) fn approve_with(
        &self,
        context: &Context,
        plan: &Plan,
        nothing_happens: bool,
        question: &str,
        yes: bool,
    ) -> Result<Approval, Failure> {
        let plan_text = render::plan::text(plan, context.verbose());
        if !needs_a_person(self.cloud, nothing_happens, yes) {
            context.progress().note(&plan_text);
            return Ok(Approval::Whatever);
        }
        let Scope { environment, account, region, .. } = &self.scope;
        let question = format!("{question} environment {environment} in account {account}, {region}?");
        output::confirm(context, &plan_text, &question)?;
        Ok(Approval::JustThis)
    }

    /// The scope under whose names the environment has its roles, where the file says others by now.
    pub(crate) async fn former_scope(&self, observed: &Observed) -> Result<Option<Scope>, Failure> {
        let cloudside = self.cloudside(None, Arc::new(|_| ()));
        Ok(role_prefix::former(&cloudside, observed).await?)
    }

    /// Refuses to leave roles behind that have other names than the file says by now.
    pub(crate) async fn check_role_names(&self, context: &Context, observed: &Observed) -> CommandResult {
        let Some(former) = self.former_scope(observed).await? else { return Ok(()) };
        let (was, is) = (former.iam.role_name_prefix, &self.scope.iam.role_name_prefix);
        let message = format!(
            "the names of the roles of environment {} begin with `{was}`, and iam.role_name_prefix says `{is}`: those \
             roles would be left behind",
            self.scope.environment
        );
        Err(Failure::new(Exit::Refused, message).hint(format!(
            "put `{was}` back; to change it, end the environment with `{}`, which keeps the snapshots, and deploy it \
             again",
            context.command_line("destroy")
        )))
    }

    /// Everything the environment holds.
    pub(crate) async fn observe(&self) -> Result<Observed, Failure> {
        let cloudside = self.cloudside(None, Arc::new(|_| ()));
        Ok(registry().observe(&cloudside).await?)
    }

    /// The same right after a plan was carried out on what was observed before.
    pub(crate) async fn observe_after(&self, before: &Observed, plan: &Plan) -> Result<Observed, Failure> {
        let cloudside = self.cloudside(None, Arc::new(|_| ()));
        Ok(registry().observe_after(&cloudside, before, plan).await?)
    }

    /// Everything the environment holds that can be read, and which kinds cannot.
    pub(crate) async fn observe_readable(&self) -> (Observed, BTreeMap<&'static str, AwsError>) {
        registry().observe_readable(&self.cloudside(None, Arc::new(|_| ()))).await
    }
}

/// Stops where a file says what can only be a mistake.
pub(crate) fn refuse_errors(findings: &[Finding]) -> Result<(), Failure> {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    if errors.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Usage, errors.join("\n"))) }
}

/// The bundle from where the flags say that it comes.
pub(crate) fn bundle_of(context: &Context, source: CodeSource<'_>) -> Result<Bundle, Failure> {
    match source {
        CodeSource::Build => bundle::ensure_bundle(context.workspace(), context.progress()),
        CodeSource::At(path) => bundle::load(path),
    }
}

/// The code of each function, as Lambda's `CodeSha256`.
pub(crate) fn code_of(bundle: &Bundle) -> BTreeMap<Function, String> {
    let functions = &bundle.manifest.functions;
    BTreeMap::from([
        (Function::Backup, functions.backup.code_sha256.clone()),
        (Function::Cleanup, functions.cleanup.code_sha256.clone()),
    ])
}

/// The local environment of these flags.
pub(crate) fn local_cloud(context: &Context, identity: &Identity) -> LocalCloud {
    LocalCloud::at(context.local_dir(), identity.account.as_str(), identity.region.as_str())
}

fn start_local(context: &Context, identity: &Identity) -> Result<(), Failure> {
    if identity.cloud == Cloud::Local {
        local_cloud(context, identity).ensure_up(
            context.workspace(),
            context.progress(),
            Ports::default(),
            None,
        )?;
    }
    Ok(())
}

fn local_endpoints(context: &Context, identity: &Identity) -> Result<LocalEndpoints, Failure> {
    let status = local_cloud(context, identity).status()?;
    match (status.endpoint, status.endpoint_ec2) {
        (Some(general), Some(ec2)) => Ok(LocalEndpoints {
            general: endpoint::general(endpoint::LOCAL, general)?,
            ec2: endpoint::ec2(endpoint::LOCAL, ec2)?,
        }),
        _ => {
            Err(Failure::new(Exit::Failed, "the local environment has stopped").hint("run the command again"))
        }
    }
}

/// The account in the example files.
const PLACEHOLDER: &str = "000000000000";

/// `account` is where the command works: the environment's own, or one that holds its copies.
fn check_account(scope: &Scope, account: &str, places: &[CopyPlace], caller: &Caller) -> Result<(), Failure> {
    if caller.account == account {
        return Ok(());
    }
    let whose = if account == scope.account.as_str() { "belongs to" } else { "has these copies in" };
    let message = format!(
        "environment `{}` {whose} account {account}, but the credentials ({}) are of account {}",
        scope.environment, caller.arn, caller.account
    );
    let holds_copies = places.iter().find(|place| place.account() == Some(caller.account.as_str()));
    let hint = match holds_copies {
        Some(CopyPlace { region, .. }) if account == scope.account.as_str() => format!(
            "that account holds copies: to restore from them, add `--region {region} --account {}`; else choose another \
             profile with AWS_PROFILE",
            caller.account
        ),
        _ if account != scope.account.as_str() => {
            format!("choose a profile of account {account} with AWS_PROFILE")
        }
        _ => "choose the right profile with AWS_PROFILE, or correct `account` in the environment's file"
            .to_owned(),
    };
    Err(Failure::new(Exit::Refused, message).hint(hint))
}

impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        let failure = Self::caused_by(Exit::Failed, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use snapwarden_deployer::environment::parse;

    use super::*;

    /// On AWS nothing happens that nobody has agreed to.
    #[test]
    fn whatever_happens_on_aws_needs_a_yes() {
        assert!(needs_a_person(Cloud::Aws, false, false));
        assert!(!needs_a_person(Cloud::Aws, false, true));
        assert!(!needs_a_person(Cloud::Aws, true, false));
        assert!(!needs_a_person(Cloud::Local, false, false));
    }

    /// Another account's resources with the same names are not ours to touch.
    #[test]
    fn credentials_of_another_account_are_refused_with_4() {
        let text = include_str!("../../environments/local.yaml");
        let scope = Scope::of(&parse(Path::new("local.yaml"), text).unwrap());
        let caller = |account: &str| Caller {
            account: account.to_owned(),
            arn: format!("arn:aws:iam::{account}:user/somebody"),
        };
        assert!(check_account(&scope, "123456789012", &[], &caller("123456789012")).is_ok());
        let refused = check_account(&scope, "123456789012", &[], &caller("210987654321")).unwrap_err();
        assert_eq!(refused.exit(), Exit::Refused);
        assert!(refused.to_string().contains("210987654321"), "{refused}");

        // On the day, with credentials of the account that is left.
        let role = Some("arn:aws:iam::210987654321:role/copies".to_owned().try_into().unwrap());
        let places = [CopyPlace { region: "eu-west-1".to_owned().try_into().unwrap(), role }];
        let hint = |account, places: &[CopyPlace], whose| {
            let refused = check_account(&scope, account, places, &caller(whose)).unwrap_err();
            refused.hint_text().unwrap_or_default().to_owned()
        };
        let at_home = hint("123456789012", &places, "210987654321");
        assert!(at_home.contains("--region eu-west-1 --account 210987654321"), "{at_home}");
        let there = hint("210987654321", &places, "123456789012");
        assert!(there.contains("choose a profile of account 210987654321"), "{there}");
        assert!(check_account(&scope, "210987654321", &places, &caller("210987654321")).is_ok());
    }
}
