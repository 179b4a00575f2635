//! How a local environment is, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::emulator::{Both, Emulator};

/// How a local environment is. As JSON it is what `local status --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// Whether both emulators run.
    pub(crate) running: bool,
    /// Every service but EC2, as in `AWS_ENDPOINT_URL`.
    pub(crate) endpoint: Option<String>,
    /// EC2, as in `AWS_ENDPOINT_URL_EC2`.
    pub(crate) endpoint_ec2: Option<String>,
    /// The region that it plays, or would.
    pub(crate) region: String,
    /// The account that it plays, or would.
    pub(crate) account: String,
    /// The processes that run.
    pub(crate) pids: Both<Option<u32>>,
    /// The folder that holds all of it.
    pub(crate) dir: PathBuf,
    /// Where the emulators write what they do.
    pub(crate) logs: Both<PathBuf>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(endpoint), Some(endpoint_ec2)) = (&self.endpoint, &self.endpoint_ec2) else {
            return self.fmt_stopped(f);
        };
        writeln!(f, "the local environment is running")?;
        writeln!(f)?;
        writeln!(f, "  endpoint      {endpoint}")?;
        writeln!(f, "  EC2 endpoint  {endpoint_ec2}")?;
        writeln!(f, "  region        {}", self.region)?;
        writeln!(f, "  account       {}", self.account)?;
        writeln!(f, "  folder        {}", self.dir.display())?;
        for emulator in Emulator::ALL {
            let pid = self.pids.get(emulator).unwrap_or_default();
            writeln!(
                f,
                "  {:13} process {pid}, log {}",
                emulator.to_string(),
                self.logs.get(emulator).display()
            )?;
        }
        writeln!(f)?;
        writeln!(f, "for the aws CLI:")?;
        writeln!(f)?;
        writeln!(f, "  export AWS_ENDPOINT_URL={endpoint}")?;
        writeln!(f, "  export AWS_ENDPOINT_URL_EC2={endpoint_ec2}")?;
        writeln!(f, "  export AWS_REGION={0} AWS_DEFAULT_REGION={0}", self.region)?;
        write!(f, "  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test")
    }
}

impl Status {
    fn fmt_stopped(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the local environment in {} is not running", self.dir.display())?;
        for emulator in Emulator::ALL {
            if let Some(pid) = self.pids.get(emulator) {
                write!(f, " (though {emulator} is, as process {pid})")?;
            }
        }
        write!(f, "\nstart it with `cargo xtask local up`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Status {
        Status {
            running: true,
            endpoint: Some("http://127.0.0.1:4566".to_owned()),
            endpoint_ec2: Some("http://127.0.0.1:4567".to_owned()),
            region: "eu-central-1".to_owned(),
            account: "123456789012".to_owned(),
            pids: Both { ministack: Some(11), moto: Some(12) },
            dir: "/w/target/local".into(),
            logs: Both { ministack: "/w/ministack.log".into(), moto: "/w/moto.log".into() },
        }
    }

    // Scripts read these fields.
    #[test]
    fn json_keeps_its_fields() {
        let json = serde_json::to_value(running()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "running": true,
                "endpoint": "http://127.0.0.1:4566",
                "endpoint_ec2": "http://127.0.0.1:4567",
                "region": "eu-central-1",
                "account": "123456789012",
                "pids": { "ministack": 11, "moto": 12 },
                "dir": "/w/target/local",
                "logs": { "ministack": "/w/ministack.log", "moto": "/w/moto.log" },
            })
        );
    }

    // What is shown is copied into a shell.
    #[test]
    fn text_has_the_variables_to_copy() {
        let text = running().to_string();
        assert!(text.contains("\n  export AWS_ENDPOINT_URL=http://127.0.0.1:4566\n"), "{text}");
        assert!(text.contains("\n  export AWS_ENDPOINT_URL_EC2=http://127.0.0.1:4567\n"), "{text}");
    }

    #[test]
    fn one_emulator_alone_is_not_a_running_environment() {
        let half = Status {
            running: false,
            endpoint: None,
            endpoint_ec2: None,
            pids: Both { ministack: None, moto: Some(12) },
            ..running()
        };
        let text = half.to_string();
        assert!(text.contains("is not running (though moto is, as process 12)"), "{text}");
    }
}
