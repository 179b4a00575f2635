//! A local environment of a test's own, driven through the command line that users have.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "what cannot be set up fails the test"
)]

pub mod browser;
pub mod proxy;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_sdk_ec2::types::{Filter, Tag};
use serde_json::Value;
use snapwarden_deployer::aws::{Aws, LocalEndpoints};
use snapwarden_deployer::environment::Region;
use tempfile::TempDir;

/// The checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout").to_owned()
}

/// Emulators, environment files and state that no other test and no user shares; all gone when it is dropped.
#[derive(Debug)]
pub struct Local {
    folder: TempDir,
    program: PathBuf,
}

impl Local {
    /// A local environment that is not running yet, with the checkout's `local.yaml`.
    pub fn new() -> Self {
        let program = std::env::var_os("SNAPWARDEN_XTASK").map(PathBuf::from);
        let program =
            program.expect("run these tests with `cargo xtask test`, which prepares what they need");
        let folder = tempfile::tempdir().expect("a folder for the test");
        fs::create_dir(folder.path().join("environments")).expect("a folder for environment files");
        let local = Self { folder, program };
        let file =
            fs::read_to_string(checkout().join("environments/local.yaml")).expect("environments/local.yaml");
        local.write_environment("local", &file);
        local
    }

    /// The same, with a change of the environment file.
    pub fn with(from: &str, to: &str) -> Self {
        let local = Self::new();
        local.edit(from, to);
        local
    }

    /// Changes the environment file.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.folder.path().join("environments/local.yaml");
        let text = fs::read_to_string(path).expect("the environment file");
        assert!(text.contains(from), "the environment file has no `{from}`");
        self.write_environment("local", &text.replace(from, to));
    }

    /// Writes an environment file.
    pub fn write_environment(&self, name: &str, text: &str) {
        let path = self.folder.path().join("environments").join(format!("{name}.yaml"));
        fs::write(path, text).expect("an environment file");
    }

    /// A file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `cargo xtask …` as a user types it, in this environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("SNAPWARDEN_LOCAL_DIR", self.path("local"))
            .env("SNAPWARDEN_ENVIRONMENTS", self.path("environments"))
            .env("NO_COLOR", "1")
            .env_remove("SNAPWARDEN_ENV");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(arguments, &self.command(arguments).output().expect("the command starts"))
    }

    /// Runs a command that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    /// Runs a command that must succeed, and reads its result as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    /// Deploys the bundle that `cargo xtask test` has built.
    pub fn deploy(&self) -> Value {
        self.json(&["deploy", "--bundle", &bundle()])
    }

    /// Clients for this environment, which must be running.
    pub fn aws(&self) -> Aws {
        let status = self.json(&["local", "status"]);
        let text =
            |key: &str| status[key].as_str().unwrap_or_else(|| panic!("no {key}: {status}")).to_owned();
        let region = Region::try_from(text("region")).expect("a Region");
        Aws::local(&region, &LocalEndpoints { general: text("endpoint"), ec2: text("endpoint_ec2") })
    }

    /// Every snapshot in the account, whoever made it, by id.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let aws = self.aws();
        let found =
            block_on(aws.ec2.describe_snapshots().owner_ids("self").send()).expect("snapshots are listed");
        let mut snapshots: Vec<Snapshot> = found
            .snapshots
            .unwrap_or_default()
            .into_iter()
            .map(|snapshot| Snapshot {
                id: snapshot.snapshot_id.unwrap_or_default(),
                volume: snapshot.volume_id.unwrap_or_default(),
                tags: snapshot
                    .tags
                    .unwrap_or_default()
                    .into_iter()
                    .map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()))
                    .collect(),
            })
            .collect();
        snapshots.sort_by(|a, b| a.id.cmp(&b.id));
        snapshots
    }

    /// Sets one tag of a snapshot, as a user would by hand.
    pub fn tag(&self, snapshot: &str, key: &str, value: &str) {
        let tag = Tag::builder().key(key).value(value).build();
        block_on(self.aws().ec2.create_tags().resources(snapshot).tags(tag).send()).expect("the tag is set");
    }

    /// Makes a snapshot that is not Snapwarden's, of any volume; returns its id.
    pub fn foreign_snapshot(&self) -> String {
        let ec2 = self.aws().ec2;
        let filter = Filter::builder().name("status").values("in-use").build();
        let volumes = block_on(ec2.describe_volumes().filters(filter).send()).expect("volumes are listed");
        let volume =
            volumes.volumes().first().and_then(|volume| volume.volume_id()).expect("a volume").to_owned();
        let made = block_on(ec2.create_snapshot().volume_id(volume).send()).expect("a snapshot is made");
        made.snapshot_id.expect("it has an id")
    }
}

impl Default for Local {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Best effort: the test's own outcome matters more.
        let _ = self.command(&["local", "down"]).output();
    }
}

/// A snapshot as EC2 lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its volume.
    pub volume: String,
    /// Its tags.
    pub tags: std::collections::BTreeMap<String, String>,
}

impl Snapshot {
    /// A tag's value; empty where there is none.
    pub fn tag(&self, key: &str) -> &str {
        self.tags.get(key).map_or("", String::as_str)
    }
}

/// A command that has ended.
pub struct Ran {
    arguments: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its results.
    pub stdout: String,
    /// Its progress and errors.
    pub stderr: String,
}

impl Ran {
    fn of(arguments: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            arguments: arguments.join(" "),
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { arguments, code, stdout, stderr } = self;
        write!(f, "`cargo xtask {arguments}` ended with {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// The folder of the bundle that `cargo xtask test` has built.
pub fn bundle() -> String {
    std::env::var("SNAPWARDEN_BUNDLE")
        .expect("run these tests with `cargo xtask test`, which builds the bundle")
}

/// Copies the bundle to a folder, where it can be damaged.
pub fn copy_bundle(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    for file in std::fs::read_dir(bundle()).expect("the bundle can be listed") {
        let file = file.expect("the bundle can be listed");
        std::fs::copy(file.path(), folder.join(file.file_name())).expect("the bundle can be copied");
    }
}

/// A folder with a bundle whose backup function is another program.
pub fn broken_bundle(local: &Local) -> String {
    let folder = local.path("broken");
    copy_bundle(&folder);
    std::fs::copy(folder.join("cleanup.zip"), folder.join("backup.zip")).expect("a zip can be copied");
    let path = folder.join("bundle.json");
    let text = std::fs::read_to_string(&path).expect("the manifest can be read");
    let mut manifest: serde_json::Value = serde_json::from_str(&text).expect("the manifest is JSON");
    manifest["functions"]["backup"] = manifest["functions"]["cleanup"].clone();
    manifest["functions"]["backup"]["zip"] = "backup.zip".into();
    std::fs::write(&path, manifest.to_string()).expect("the manifest can be written");
    folder.display().to_string()
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}
