//! `cargo xtask promote`: deploys to one environment exactly what another one has proven.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use snapwarden_deployer::bundle::{Bundle, Documents};
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::environment::Engine;
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Options, Plan, Step, plan};
use snapwarden_deployer::release::history::History;
use snapwarden_deployer::release::promotion::{Candidate, Refusal};
use snapwarden_deployer::release::{Content, How, Origin, location};
use snapwarden_deployer::scope::Function;

use super::deploy::{DeployArgs, Planned, release};
use super::release::history;
use super::releases::commit;
use super::stack;
use super::status::difference;
use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::{Session, code_of};
use crate::{bundle, output, render};

/// Flags of `promote`.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct PromoteArgs {
    /// The environment whose live release goes on
    #[arg(long, value_name = "ENV")]
    from: String,
    /// The environment that it goes to
    #[arg(long, value_name = "ENV")]
    to: String,
    /// The bundle, a folder or a file, if it is the very one that the release runs [default: what its functions hold]
    #[arg(long, value_name = "PATH")]
    bundle: Option<PathBuf>,
    /// The profile in AWS's configuration that may read the environment that the release comes from
    #[arg(long, value_name = "PROFILE")]
    from_profile: Option<String>,
    /// Judge the release and show the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
    /// Let an older release replace a newer one
    #[arg(long)]
    allow_downgrade: bool,
    /// Take the lock of the environment that it goes to from whoever holds it
    #[arg(long)]
    break_lock: bool,
    /// Let a changed cleanup policy delete snapshots that the deployed one would not
    #[arg(long)]
    accept_deletions: bool,
}

impl PromoteArgs {
    fn again(&self) -> String {
        let mut command = format!("promote --from {} --to {}", self.from, self.to);
        if let Some(bundle) = &self.bundle {
            command = format!("{command} --bundle {}", bundle.display());
        }
        if let Some(profile) = &self.from_profile {
            command = format!("{command} --from-profile {profile}");
        }
        for (flag, given) in [
            ("--allow-downgrade", self.allow_downgrade),
            ("--accept-deletions", self.accept_deletions),
            ("--yes", self.yes),
        ] {
            if given {
                command = format!("{command} {flag}");
            }
        }
        command
    }
}

/// Judges the release, shows the plan, applies it, and records where the release came from.
pub(crate) fn cmd_promote(context: &Context, args: &PromoteArgs) -> CommandResult {
    if args.from == args.to {
        return Err(Failure::new(Exit::Usage, "a release is promoted to another environment than its own"));
    }
    let from = context.of_environment(&args.from, args.from_profile.as_deref());
    let to = context.of_environment(&args.to, None);
    block_on(async {
        let source = Source::look(&from).await?;
        let bundle = Arc::new(source.bundle(&from, args).await?);
        let session = Session::open(&to).await?;
        session.refuse_errors()?;
        session.warn(&to);
        let target = history(&session).await?;
        let code = code_of(&bundle);
        let documents = bundle.manifest.documents.as_ref();
        let documents = documents.map(|theirs| theirs.differences(&Documents::of_this_program()));
        let documents = documents.unwrap_or_default();
        let soak = i64::from(session.environment.releases.soak_minutes.get());
        let candidate = Candidate {
            source: &source.history,
            live: source.live.as_ref(),
            drift: &source.drift,
            code: &code,
            documents: &documents,
            target: &target,
            soak: SignedDuration::from_mins(soak),
            now: Timestamp::now(),
            allow_downgrade: args.allow_downgrade,
        };
        let chosen = candidate.judge().map_err(|refusals| refused(args, &refusals))?;
        let name = &args.from;
        to.progress().note(&format!(
            "release {} of {name}, commit {}, may go to {}",
            chosen.number,
            commit(chosen),
            args.to
        ));
        let deploying = DeployArgs::of_promotion(args.yes, args.break_lock, args.accept_deletions);
        let how = How::Promoted(Origin { environment: name.clone(), release: chosen.number });
        let show = |plan: &Plan| {
            let text = render::plan::text(plan, to.verbose());
            let value = json!({ "from": args.from, "release": chosen.number, "to": args.to, "plan": plan });
            output::result(&to, &value, text)
        };
        if session.environment.engine == Engine::Cloudformation {
            let stage = stack::Stage::of(&to, deploying.scope(), session, bundle, args.again()).await?;
            if args.dry_run {
                return show(&stage.preview(&to).await?);
            }
            return stack::release(&to, stage, None, &deploying, &how).await?.show(&to);
        }
        let observed = session.observe().await?;
        session.refuse_orphans(&to, &observed).await?;
        let plan = deploying.scope().plan(&to, &session, &bundle, &observed)?;
        if args.dry_run {
            return show(&plan);
        }
        let planned = Planned { session, bundle, observed, plan };
        release(&to, planned, &deploying, &how, &args.again()).await?.show(&to)
    })
}

fn refused(args: &PromoteArgs, refusals: &[Refusal]) -> Failure {
    let lines: Vec<String> = refusals.iter().map(|refusal| format!("\n  {refusal}")).collect();
    let message = format!("{} is not promoted to {}:{}", args.from, args.to, lines.concat());
    let failure = Failure::new(Exit::Refused, message);
    let downgrade = |refusal: &Refusal| matches!(refusal, Refusal::Downgrade { .. });
    if refusals.iter().all(downgrade) {
        return failure.hint("if you mean it, add --allow-downgrade");
    }
    failure.hint(format!(
        "`cargo xtask status --env {0}` and `cargo xtask releases --env {0}` show more",
        args.from
    ))
}

/// The environment that a release comes from, as it is now.
struct Source {
    session: Session,
    history: History,
    live: Option<Content>,
    drift: Vec<String>,
}

impl Source {
    async fn look(context: &Context) -> Result<Self, Failure> {
        let Some(session) = Session::open_running(context).await? else {
            return Err(Failure::new(Exit::Refused, "the local environment is not running")
                .hint("start it with `cargo xtask local up`"));
        };
        let observed = session.observe().await?;
        let history = history(&session).await?;
        let live = Content::of(&observed, &session.scope);
        let code = live.as_ref().map(Content::code).unwrap_or_default();
        let draining = Draining::of(&observed, &session.scope);
        let desired = session.desired(&code, draining)?;
        let drift = match plan(&registry(), &session.scope, &desired, &observed, &Options::default()) {
            // Without anything live there is nothing that could differ.
            _ if live.is_none() => Vec::new(),
            Ok(plan) => plan.pending().map(|step: &Step| difference(step)).collect(),
            Err(taken) => vec![taken.to_string()],
        };
        Ok(Self { session, history, live, drift })
    }

    /// The bytes: of a bundle that is at hand, or of the functions themselves.
    async fn bundle(&self, context: &Context, args: &PromoteArgs) -> Result<Bundle, Failure> {
        if let Some(path) = &args.bundle {
            return bundle::load(path);
        }
        let Some(release) = self.history.newest() else {
            return Err(refused(args, &[Refusal::NothingReleased]));
        };
        let task = context.progress().start(format!("fetching the functions of {}", args.from));
        let mut zips = BTreeMap::new();
        for (function, served) in &release.content.functions {
            let name = self.session.scope.function(*function);
            let url = location(&self.session.aws, &name, &served.version).await?;
            let zip = download(&url).map_err(|error| failed(&name, &error.to_string()))?;
            if bundle::code_sha256(&zip) != served.code_sha256 {
                let why = format!("what Lambda holds is not {}, which was released", served.code_sha256);
                return Err(Failure::new(Exit::Refused, format!("{name}: {why}"))
                    .hint("name the bundle with --bundle"));
            }
            zips.insert(*function, zip);
        }
        task.done("");
        let mut zip = |function| zips.remove(&function).unwrap_or_default();
        Ok(Bundle::received(zip(Function::Backup), zip(Function::Cleanup), release.git.clone())?)
    }
}

fn failed(function: &str, why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("cannot fetch the code of {function}: {why}"))
        .hint("name the bundle with --bundle")
}

/// The zip behind an address that Lambda gave out, which is good for ten minutes and needs no credentials.
fn download(url: &str) -> Result<Vec<u8>, ureq::Error> {
    /// Lambda's limit for a zip that is uploaded directly, and more.
    const MOST: u64 = 64 * 1024 * 1024;
    // A proxy of this machine's knows the way to AWS, and none to the emulators.
    let proxy = url.starts_with("https://").then(ureq::Proxy::try_from_env).flatten();
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(proxy).build().into();
    let mut answer = agent.get(url).call()?;
    answer.body_mut().with_config().limit(MOST).read_to_vec()
}
