//! Where an emulator is reached: at its own address or, for tests that record or break calls, through a proxy.
//!
//! Variables name the proxies: [`LOCAL`] for this program's own calls, [`FUNCTIONS`] for those of the functions, which
//! learn of theirs when the emulators start. Each has a twin for EC2, whose name ends in `_EC2`.

use std::env;
use std::net::IpAddr;

use ureq::http::Uri;

use crate::failure::{Exit, Failure};

/// The proxy for this program's calls.
pub(crate) const LOCAL: &str = "SNAPWARDEN_LOCAL_ENDPOINT";

/// The proxy for the functions' calls.
pub(crate) const FUNCTIONS: &str = "SNAPWARDEN_FUNCTIONS_ENDPOINT";

/// A variable that names something other than a proxy on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: `{proxy}` is not an address of this machine")]
pub(crate) struct NotLoopback {
    variable: String,
    proxy: String,
}

/// The proxy in front of everything but EC2, or the emulator itself.
pub(crate) fn general(variable: &str, emulator: String) -> Result<String, NotLoopback> {
    through_proxy(variable.to_owned(), emulator)
}

/// The proxy in front of EC2, or the emulator itself.
pub(crate) fn ec2(variable: &str, emulator: String) -> Result<String, NotLoopback> {
    through_proxy(format!("{variable}_EC2"), emulator)
}

/// Only on this machine, since what is meant for the emulators must never reach an account.
fn through_proxy(variable: String, emulator: String) -> Result<String, NotLoopback> {
    let proxy = match env::var(&variable) {
        Ok(proxy) if !proxy.is_empty() => proxy,
        _ => return Ok(emulator),
    };
    let host = proxy.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned)).unwrap_or_default();
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return Ok(proxy);
    }
    Err(NotLoopback { variable, proxy })
}

impl From<NotLoopback> for Failure {
    fn from(error: NotLoopback) -> Self {
        Self::caused_by(Exit::Usage, &error)
            .hint("set it to a proxy such as http://127.0.0.1:8080, or unset it")
    }
}
