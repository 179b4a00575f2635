//! Processes that outlive the command that started them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process, known by its number and by when it began: the kernel gives numbers out again, so a number alone may
/// have become somebody else's program by the time we want to stop ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    began: String,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn with_pid(pid: u32) -> Option<Self> {
        Some(Self { pid, began: began(pid)? })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_running(&self) -> bool {
        began(self.pid).is_some_and(|began| began == self.began)
    }

    /// Asks the process to end, makes it end when it has not after `patience`, and waits until it is gone.
    /// Answers whether it is.
    pub(crate) fn stop(&self, patience: Duration) -> bool {
        self.signal(Signal::TERM);
        if self.is_gone_within(patience) {
            return true;
        }
        self.signal(Signal::KILL);
        self.is_gone_within(Duration::from_secs(5))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && self.is_running()
        {
            // It fails when the process has just ended, which is what was wanted, or when it is not ours to stop,
            // which the caller learns from its still being there.
            let _ = kill_process(pid, signal);
        }
    }

    fn is_gone_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_running() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(20));
        }
        true
    }
}

/// When a process began, in a form that is only good for comparing; nothing when it has ended.
pub(crate) fn began(pid: u32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let ticks = began_in_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        // Ticks count from the boot, so after a restart another process could have both the number and the ticks.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        return Some(format!("{} {ticks}", boot.trim()));
    }
    let ps = Command::new("ps")
        .args(["-o", "stat=,lstart=", "-p", &pid.to_string()])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    began_in_ps(&String::from_utf8_lossy(&ps.stdout))
}

/// Reads `/proc/PID/stat`. The program's name, in parentheses, may itself hold spaces and parentheses.
fn began_in_stat(stat: &str) -> Option<String> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let (state, began) = (fields.first()?, fields.get(19)?);
    (!is_dead(state)).then(|| (*began).to_owned())
}

fn began_in_ps(output: &str) -> Option<String> {
    let (state, began) = output.trim().split_once(char::is_whitespace)?;
    (!is_dead(state)).then(|| began.trim().to_owned())
}

/// An ended process keeps its number until its parent, perhaps this very program, has looked at it.
fn is_dead(state: &str) -> bool {
    state.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (a) (b c) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 56789 8192 100";

    #[test]
    fn reads_the_start_whatever_the_program_is_called() {
        assert_eq!(began_in_stat(STAT).as_deref(), Some("56789"));
        assert_eq!(began_in_stat(&STAT.replace(" S ", " Z ")), None);
        assert_eq!(began_in_stat("4711 (cut off) S 1"), None);
        assert_eq!(
            began_in_ps("Ss   Mon Nov 23 02:00:00 2026\n").as_deref(),
            Some("Mon Nov 23 02:00:00 2026")
        );
        assert_eq!(began_in_ps(""), None);
    }

    // Else `local down` could kill a stranger's program.
    #[test]
    fn does_not_stop_a_process_that_only_has_the_same_number() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let ours = Process::with_pid(child.id()).unwrap();
        let recycled = Process { began: "earlier".to_owned(), ..ours.clone() };

        assert!(!recycled.is_running());
        assert!(recycled.stop(Duration::from_secs(1)), "it is gone already");
        assert!(ours.is_running());

        assert!(ours.stop(Duration::from_secs(5)));
        assert!(!ours.is_running(), "also while nobody has waited for it");
        child.wait().unwrap();
    }

    #[test]
    fn ends_a_process_that_does_not_want_to() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The line says that the shell ignores SIGTERM from here on.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert!(Process::with_pid(child.id()).unwrap().stop(Duration::from_millis(100)));
        child.wait().unwrap();
    }
}
