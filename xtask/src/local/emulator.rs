//! The two emulators: how each is started, asked whether it is well, and emptied.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::folder::Folder;

/// A program that answers as AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emulator {
    /// Answers for every service but EC2.
    Ministack,
    /// Answers for EC2.
    Moto,
}

/// One of something for each emulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Both<T> {
    /// Ministack's.
    pub(crate) ministack: T,
    /// Moto's.
    pub(crate) moto: T,
}

/// What an emulator needs to know when it starts.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) python: &'a Path,
    pub(super) folder: &'a Folder,
    pub(super) ports: Both<u16>,
    /// Where the functions reach them.
    pub(super) functions: Both<String>,
    /// The proxy's ports and its scenario, where faults are wanted.
    pub(super) faults: Option<(Both<u16>, &'a str)>,
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    /// What runs arm64 programs, where the kernel does not do it by itself.
    pub(super) qemu: Option<&'a Path>,
}

impl Emulator {
    pub(super) const ALL: [Self; 2] = [Self::Ministack, Self::Moto];

    /// The flag of `local up` that fixes its port.
    pub(super) fn port_flag(self) -> &'static str {
        match self {
            Self::Ministack => "--port",
            Self::Moto => "--port-ec2",
        }
    }

    /// Starts it, detached from us. It does nothing before [`release`] lets it.
    pub(super) fn spawn(self, launch: &Launch<'_>) -> io::Result<Child> {
        let launcher = launch.folder.launcher(self);
        fs::write(&launcher, self.launcher())?;
        let log = launch.folder.log(self);
        if log.exists() {
            fs::rename(&log, launch.folder.old_log(self))?;
        }
        let log = File::create(log)?;
        let mut command = Command::new(launch.python);
        // A process group of its own: Ctrl-C at the command that happens to start it is not meant for it.
        command.process_group(0).current_dir(launch.folder.dir());
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // Isolated from the user's Python packages and settings; unbuffered, so that the log is up to date.
        command.args(["-I", "-u"]).arg(launcher);
        self.configure(&mut command, launch);
        command.spawn()
    }

    fn launcher(self) -> &'static str {
        match self {
            Self::Ministack => include_str!("emulators/launch_ministack.py"),
            Self::Moto => include_str!("emulators/launch_moto.py"),
        }
    }

    fn configure(self, command: &mut Command, launch: &Launch<'_>) {
        clean_environment(command, launch);
        match self {
            Self::Ministack => {
                command.args(launch.qemu);
                command.envs([
                    ("GATEWAY_PORT", launch.ports.ministack.to_string().as_str()),
                    ("BIND_HOST", HOST),
                    ("MINISTACK_HOST", HOST),
                    ("MINISTACK_ACCOUNT_ID", launch.account),
                    ("MINISTACK_REGION", launch.region),
                    ("PERSIST_STATE", "1"),
                    // Listeners on fixed ports that we have no use for; two environments would fight over them.
                    ("IOT_MTLS_ENABLED", "0"),
                    ("SFTP_ENABLED", "0"),
                    // It would look for its containers and remove those it finds, other environments' included.
                    ("DOCKER_HOST", "unix:///nonexistent"),
                    // Functions inherit these three. Of another account only moto knows anything.
                    ("AWS_ENDPOINT_URL", &launch.functions.ministack),
                    ("AWS_ENDPOINT_URL_EC2", &launch.functions.moto),
                    ("AWS_ENDPOINT_URL_STS", &launch.functions.moto),
                ]);
                command.env("STATE_DIR", launch.folder.ministack_state());
            }
            Self::Moto => {
                command.arg(launch.folder.moto_state()).args([HOST, &launch.ports.moto.to_string()]);
                command.env("MOTO_ACCOUNT_ID", launch.account);
                // 500 public images in every region slow its start down, and nobody asks for them.
                command.env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false");
            }
        }
    }

    /// Whether it answers, and when not, why.
    pub(super) fn check(self, port: u16) -> Result<(), Box<ureq::Error>> {
        let path = match self {
            Self::Ministack => "/_ministack/ready",
            Self::Moto => "/moto-api/",
        };
        agent(Duration::from_secs(2)).get(url(port) + path).call()?;
        Ok(())
    }

    /// Removes everything it holds.
    pub(super) fn empty(self, port: u16) -> Result<(), Box<ureq::Error>> {
        let path = match self {
            Self::Ministack => "/_ministack/reset",
            Self::Moto => "/moto-api/reset",
        };
        agent(Duration::from_secs(30)).post(url(port) + path).send_empty()?;
        Ok(())
    }
}

impl fmt::Display for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ministack => "ministack",
            Self::Moto => "moto",
        })
    }
}

impl<T> Both<T> {
    pub(super) fn get(&self, emulator: Emulator) -> &T {
        match emulator {
            Emulator::Ministack => &self.ministack,
            Emulator::Moto => &self.moto,
        }
    }

    pub(super) fn get_mut(&mut self, emulator: Emulator) -> &mut T {
        match emulator {
            Emulator::Ministack => &mut self.ministack,
            Emulator::Moto => &mut self.moto,
        }
    }

    pub(super) fn try_build<E>(mut make: impl FnMut(Emulator) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { ministack: make(Emulator::Ministack)?, moto: make(Emulator::Moto)? })
    }

    pub(super) fn build(mut make: impl FnMut(Emulator) -> T) -> Self {
        Self { ministack: make(Emulator::Ministack), moto: make(Emulator::Moto) }
    }
}

/// Lets an emulator begin. To be called once its process is on record: were we killed before, it would read the end
/// of this pipe instead and leave, rather than run where nobody finds it.
pub(super) fn release(child: &mut Child) -> io::Result<()> {
    match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(b"go\n"),
        None => Ok(()),
    }
}

/// Loopback only: an emulator checks no signatures, so it must not be within reach of the network.
pub(super) const HOST: &str = "127.0.0.1";

/// The endpoint that an emulator with this port serves.
pub(super) fn url(port: u16) -> String {
    format!("http://{HOST}:{port}")
}

/// Neither the emulators nor the functions that inherit their environment may see the user's AWS accounts or proxies.
fn clean_environment(command: &mut Command, launch: &Launch<'_>) {
    command.env_clear();
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("HOME", launch.folder.dir()).env("TMPDIR", launch.folder.scratch());
    command.envs([
        ("LANG", "C.UTF-8"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", launch.region),
        ("AWS_DEFAULT_REGION", launch.region),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
}

/// Talks to loopback, so never through a proxy.
fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().proxy(None).timeout_global(Some(timeout)).build().into()
}
