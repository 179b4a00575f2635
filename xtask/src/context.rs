//! What every command is given: where things are, how to speak, and which environment is meant.

use std::future::Future;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use snapwarden_deployer::environment::{self, Engine, Environment, Finding, Identity};

use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Flags that every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct GlobalArgs {
    /// The environment: a file of that name in the environments folder
    #[arg(long, global = true, value_name = "NAME", default_value = "local", env = "SNAPWARDEN_ENV")]
    env: String,
    /// Print results as JSON, and progress as lines of JSON
    #[arg(long, global = true)]
    json: bool,
    /// Show more: every property of new resources, and the log of invoked functions
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Folder of the environment files [default: environments in the checkout]
    #[arg(long, global = true, value_name = "DIR", env = "SNAPWARDEN_ENVIRONMENTS")]
    environments: Option<PathBuf>,
    /// Folder of the local environment's state [default: local in Cargo's target folder]
    #[arg(long, global = true, value_name = "DIR", env = "SNAPWARDEN_LOCAL_DIR")]
    local_dir: Option<PathBuf>,
}

/// Where things are, how to speak, and which environment is meant.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    workspace: Workspace,
    progress: Progress,
    json: bool,
    verbose: bool,
    env: String,
    environments: PathBuf,
    local_dir: PathBuf,
    profile: Option<String>,
}

impl Context {
    /// The context that the flags ask for.
    pub(crate) fn new(args: &GlobalArgs) -> Self {
        let workspace = Workspace::find();
        Self {
            progress: Progress::new(args.json),
            json: args.json,
            verbose: args.verbose,
            // Set to nothing means not set, as for most variables.
            env: if args.env.is_empty() { "local".to_owned() } else { args.env.clone() },
            environments: args.environments.clone().unwrap_or_else(|| workspace.root().join("environments")),
            local_dir: args.local_dir.clone().unwrap_or_else(|| workspace.target().join("local")),
            profile: None,
            workspace,
        }
    }

    /// The same for another environment, on AWS with the credentials of a profile of its own where one is given.
    pub(crate) fn of_environment(&self, name: &str, profile: Option<&str>) -> Self {
        Self { env: name.to_owned(), profile: profile.map(str::to_owned), ..self.clone() }
    }

    /// The profile in AWS's configuration to take credentials from; none for the SDK's usual way to find them.
    pub(crate) fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Reads the environment's file.
    pub(crate) fn environment(&self) -> Result<Environment, Failure> {
        environment::load(&self.environments, &self.env)
            .map_err(|error| Failure::caused_by(Exit::Usage, &error))
    }

    /// Reads the environment's file, with what in it is hardly meant as it says.
    pub(crate) fn environment_with_findings(&self) -> Result<(Environment, Vec<Finding>), Failure> {
        environment::load_and_lint(&self.environments, &self.env, Timestamp::now())
            .map_err(|error| Failure::caused_by(Exit::Usage, &error))
    }

    /// Reads as much of the environment's file as says which environment it is.
    pub(crate) fn identity(&self) -> Result<Identity, Failure> {
        environment::load_identity(&self.environments, &self.env)
            .map_err(|error| Failure::caused_by(Exit::Usage, &error))
    }

    /// What makes the environment, as its file says.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        Ok(self.environment()?.engine)
    }

    /// A command for this environment, as people type it.
    pub(crate) fn command_line(&self, command: &str) -> String {
        if self.env == "local" {
            return format!("cargo xtask {command}");
        }
        format!("cargo xtask {command} --env {}", self.env)
    }

    /// The checkout and its target folder.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// Where progress goes.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether results are JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether to show more.
    pub(crate) fn verbose(&self) -> bool {
        self.verbose
    }

    /// The folder of the local environment's state.
    pub(crate) fn local_dir(&self) -> &Path {
        &self.local_dir
    }
}

/// Runs a future to its end. Commands wait for AWS most of the time: one thread is plenty.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot start"))?
        .block_on(future)
}
