//! Which clock a run goes by.

use std::net::IpAddr;

use jiff::Timestamp;
use snapwarden_domain::event::{Clock, Event, EventError};

/// The run's clock: the real one, or the event's own where EC2 is an emulator on this host.
///
/// An event's own clock moves "today", and with it what cleanup deletes. So whoever may merely invoke the function
/// must not be able to set it where real snapshots are in reach; nor a pace that takes the account's request rates
/// from everybody else.
pub(crate) fn of(event: &Event, real_now: Timestamp, endpoint: Option<&str>) -> Result<Clock, EventError> {
    let for_emulators = event.simulated_now.map(|_| "simulated_now").or(event.pace.map(|_| "pace"));
    if let Some(field) = for_emulators
        && !endpoint.is_some_and(is_loopback)
    {
        let endpoint = endpoint.unwrap_or("AWS's own").to_owned();
        return Err(EventError::OnlyForEmulators { field, endpoint });
    }
    event.clock(event.simulated_now.unwrap_or(real_now))
}

/// The endpoint that the SDK is told to use for EC2, if it is told any, by the SDK's own rules.
pub(crate) fn ec2_endpoint(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    if variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some() {
        return None;
    }
    variable("AWS_ENDPOINT_URL_EC2").or_else(|| variable("AWS_ENDPOINT_URL"))
}

/// Whether a URL's host is this one. Whatever looks unusual is not.
pub(crate) fn is_loopback(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_local && !authority.contains('@')
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_of_the_events_own_never_reaches_real_snapshots() {
        let real = at("2026-11-22T02:00:00Z");
        let simulated = at("2030-01-01T02:00:00Z");
        let event = Event { simulated_now: Some(simulated), ..Event::manual(simulated, false) };
        let local = of(&event, real, Some("http://127.0.0.1:5000")).unwrap();
        assert_eq!(local, Event::manual(simulated, false).clock(simulated).unwrap());
        for endpoint in [None, Some("https://ec2.eu-central-1.amazonaws.com"), Some("http://10.0.0.7:5000")] {
            let message = of(&event, real, endpoint).unwrap_err().to_string();
            assert!(message.contains("simulated_now") && message.contains(endpoint.unwrap_or("AWS's own")));
        }
    }

    #[test]
    fn a_pace_of_the_events_own_never_takes_a_real_accounts_request_rates() {
        let now = at("2026-11-22T02:00:00Z");
        let event = Event { pace: NonZeroU16::new(9), ..Event::manual(now, false) };
        assert!(of(&event, now, Some("http://127.0.0.1:5000")).is_ok());
        let message = of(&event, now, None).unwrap_err().to_string();
        assert!(message.contains("pace is refused") && message.contains("AWS's own"), "{message}");
    }

    #[test]
    fn only_this_host_counts_as_an_emulator() {
        for url in ["http://localhost", "http://localhost:5000/", "http://127.3.2.1:1/x", "http://[::1]:5000"]
        {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "",
            "localhost",
            "http://localhost@evil.example",
            "http://127.0.0.1:80@evil.example/",
            "http://localhost.evil.example",
            "http://evil.example\\@127.0.0.1",
            "http://evil.example/127.0.0.1",
            "http://0.0.0.0",
            "http://[::]",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn the_endpoint_follows_the_sdks_own_rules() {
        let with = |set: &'static [(&str, &str)]| {
            ec2_endpoint(|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("AWS_ENDPOINT_URL", "a"), ("AWS_ENDPOINT_URL_EC2", "b")]).as_deref(), Some("b"));
        assert_eq!(with(&[("AWS_ENDPOINT_URL", "a")]).as_deref(), Some("a"));
        assert_eq!(with(&[("AWS_ENDPOINT_URL", "a"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")]), None);
    }
}
