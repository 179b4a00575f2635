//! For how long a holder may rely on its lock without another look.
//!
//! A step of a plan makes several calls and may wait for minutes between them. A laptop that sleeps in the middle of
//! one wakes up when another command holds the lock, and must not send the next call. So every attempt of a call asks
//! here first, right before it is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use super::LEASE;

/// How much of a lease has to be left for a call to be sent: as long as one may be on its way.
const MARGIN: Duration = Duration::from_secs(15);

/// The lease of the lock that this program holds, if it holds one. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// No lock is held, and none is needed.
    #[default]
    NotNeeded,
    /// Renewed by a call that was sent then.
    Renewed(Moment),
    /// Somebody else has the lock.
    Lost,
}

/// A moment by two clocks: the monotonic one stands still while a machine sleeps, and the other one may be set back.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    fn elapsed(self) -> Duration {
        self.monotonic.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

/// Why a call was not sent.
#[derive(Debug, thiserror::Error)]
#[error("the environment's lock was not renewed in time, so another command may be changing it by now")]
pub struct LeaseOver;

impl Lease {
    /// The lock is held since then, or still held.
    pub(super) fn renew(&self, at: Moment) {
        self.set(State::Renewed(at));
    }

    /// Somebody else has the lock.
    pub(super) fn lose(&self) {
        self.set(State::Lost);
    }

    /// The lock is given back, and what needed it is over.
    pub(super) fn end(&self) {
        self.set(State::NotNeeded);
    }

    fn set(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Refuses when the lock may be somebody else's by now.
    pub(super) fn check(&self) -> Result<(), LeaseOver> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Renewed(at) if at.elapsed() >= LEASE - MARGIN => Err(LeaseOver),
            State::Lost => Err(LeaseOver),
            State::NotNeeded | State::Renewed(_) => Ok(()),
        }
    }
}

/// Asked by the SDK right before every attempt of a call.
impl Intercept for Lease {
    fn name(&self) -> &'static str {
        "Lease"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        Ok(self.check()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_smithy_http_client::test_util::infallible_client_fn;

    use super::*;
    use crate::aws::{Aws, LocalEndpoints};
    use crate::error::{Call, ErrorClass};

    /// A lease that was renewed some seconds ago, by the wall's clock alone: the machine slept.
    fn slept(seconds: u64) -> Moment {
        Moment { wall: SystemTime::now() - Duration::from_secs(seconds), ..Moment::now() }
    }

    #[test]
    fn a_lease_is_over_before_anybody_else_may_take_the_lock() {
        let lease = Lease::default();
        assert!(lease.check().is_ok(), "who only looks needs no lock");
        lease.renew(slept(60));
        assert!(lease.check().is_ok());
        lease.renew(slept(80));
        assert!(lease.check().is_err());
        lease.renew(Moment { wall: SystemTime::now() + Duration::from_secs(9999), ..Moment::now() });
        assert!(lease.check().is_ok(), "a clock that was set back is no reason to stop");
        lease.lose();
        assert!(lease.check().is_err());
        lease.end();
        assert!(lease.check().is_ok());
    }

    /// A laptop that wakes up in the middle of a step must not write its old plan over what was deployed meanwhile.
    #[tokio::test(start_paused = true)]
    async fn no_call_is_sent_once_the_lease_is_over() {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let http = infallible_client_fn(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            http::Response::builder().status(200).body("<DeleteRoleResponse/>").unwrap()
        });
        let nowhere =
            LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
        let aws = Aws::local_through(&"eu-central-1".to_owned().try_into().unwrap(), &nowhere, &http);
        let call = async || aws.iam.delete_role().role_name("r").send().await.call("iam:DeleteRole");
        aws.lease.renew(Moment::now());
        call().await.unwrap();
        aws.lease.renew(slept(600));
        let error = call().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::LeaseOver);
        assert!(error.to_string().starts_with("iam:DeleteRole: not sent: the environment's lock"), "{error}");
        assert_eq!(sent.load(Ordering::Relaxed), 1);
    }
}
