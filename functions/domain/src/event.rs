//! The input of both functions, and the clock that follows from it.

use std::num::NonZeroU16;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::continuation::Continuation;
use crate::excerpt::excerpt;
use crate::names::Zone;
use crate::run::{RunId, ScheduleName};

/// What a function is invoked with, by EventBridge Scheduler or by a person.
///
/// Unknown fields are errors: a misspelt `dry_run` must not start a real run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When the run was due.
    #[serde(deserialize_with = "time")]
    pub scheduled_at: Timestamp,
    /// What fired it.
    pub schedule: ScheduleName,
    /// Whether to decide everything and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether the cleanup function replaces snapshots in clear text by encrypted copies, instead of cleaning up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seal: bool,
    /// How many snapshots this run of cleanup may delete, instead of its settings' `max_deletes`. Only by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_deletes: Option<u32>,
    /// Lets this run of cleanup delete however large a share of all snapshots. Only by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_mass_deletion: bool,
    /// A clock to use instead of the real one. Only honoured against an emulator on the same host.
    #[serde(default, deserialize_with = "some_time", skip_serializing_if = "Option::is_none")]
    pub simulated_now: Option<Timestamp>,
    /// How many times EC2's published request rates to go at. Only honoured against an emulator on the same host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<NonZeroU16>,
    /// What the run's earlier invocations came to, in the events that the functions send themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<Continuation>,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It is not an [`Event`] at all.
    #[error(
        "the event is not understood: {0}; expected {{\"scheduled_at\": \"2026-11-22T02:00:00Z\", \
         \"schedule\": \"<ARN of the schedule, or manual>\", \"dry_run\": false}}"
    )]
    Unreadable(String),
    /// It lifts a fence, and a schedule brings it: the fence would be lifted every night.
    #[error(
        "the event's {field} is refused: it is for one run by hand, and this one is of the schedule {schedule}"
    )]
    OnlyByHand {
        /// The field.
        field: &'static str,
        /// What fired the run.
        schedule: ScheduleName,
    },
    /// Its time is too far from the clock to be a late or early delivery.
    #[error(
        "the event's scheduled_at {scheduled_at} is more than {hours} hours away from now, {now:.0}: \
         it is refused as stale or forged",
        hours = Event::MAX_DISTANCE.as_hours()
    )]
    FarFromNow {
        /// When the run is said to have been due.
        scheduled_at: Timestamp,
        /// The clock's time.
        now: Timestamp,
    },
    /// It brings a clock or a pace of its own where a real account could be reached.
    #[error(
        "the event's {field} is refused: it is only for an emulator on this host, \
         and EC2's endpoint is {endpoint}"
    )]
    OnlyForEmulators {
        /// The field.
        field: &'static str,
        /// Where EC2 calls would go.
        endpoint: String,
    },
}

impl Event {
    /// How far a scheduled time may be from now. The Scheduler gives up on a delivery after a day and Lambda after
    /// six hours, so that a genuine event is never this old.
    pub const MAX_DISTANCE: SignedDuration = SignedDuration::from_hours(48);

    /// A run that a person starts at `now`.
    pub fn manual(now: Timestamp, dry_run: bool) -> Self {
        Self {
            scheduled_at: now,
            schedule: ScheduleName::manual(),
            dry_run,
            seal: false,
            max_deletes: None,
            allow_mass_deletion: false,
            simulated_now: None,
            pace: None,
            continuation: None,
        }
    }

    /// The input that a schedule is given: the Scheduler fills in the two attributes at every firing.
    pub fn scheduler_input() -> Value {
        json!({
            "scheduled_at": "<aws.scheduler.scheduled-time>",
            "schedule": "<aws.scheduler.schedule-arn>",
            "dry_run": false,
        })
    }

    /// The input of the schedule of sealing passes.
    pub fn sealing_input() -> Value {
        let mut input = Self::scheduler_input();
        input["seal"] = true.into();
        input
    }

    /// Reads an event, with errors that name the field at fault.
    pub fn from_json(value: Value) -> Result<Self, EventError> {
        let event: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let field = error.path().to_string();
            let reason = error.into_inner();
            EventError::Unreadable(match field.as_str() {
                "." => excerpt(&reason),
                _ => excerpt(&format!("{field}: {reason}")),
            })
        })?;
        event.lifts_fences_only_by_hand()?;
        Ok(event)
    }

    fn lifts_fences_only_by_hand(&self) -> Result<(), EventError> {
        let lifted =
            [("max_deletes", self.max_deletes.is_some()), ("allow_mass_deletion", self.allow_mass_deletion)];
        match lifted.into_iter().find(|(_, is_lifted)| *is_lifted) {
            Some((field, _)) if self.schedule != ScheduleName::manual() => {
                Err(EventError::OnlyByHand { field, schedule: self.schedule.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The run this event belongs to.
    pub fn run(&self) -> RunId {
        RunId::new(self.schedule.clone(), self.scheduled_at)
    }

    /// Which of the run's invocations this is; the one that a schedule or a person starts is 0.
    pub fn hop(&self) -> u32 {
        self.continuation.as_ref().map_or(0, |continuation| continuation.hop)
    }

    /// The run's clock at `now`, unless the event's own time is too far from it.
    pub fn clock(&self, now: Timestamp) -> Result<Clock, EventError> {
        let scheduled_at = self.scheduled_at;
        if now.duration_since(scheduled_at).abs() > Self::MAX_DISTANCE {
            return Err(EventError::FarFromNow { scheduled_at, now });
        }
        Ok(Clock { scheduled_at, now })
    }
}

/// The two times a run knows, known to be close to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    scheduled_at: Timestamp,
    now: Timestamp,
}

impl Clock {
    /// The day that the run's snapshots belong to: that of its scheduled time, so that late deliveries and retries
    /// after midnight write the same `DeleteOn`.
    pub fn scheduled_day(&self, zone: &Zone) -> Date {
        day(self.scheduled_at, zone)
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The day that cleanup goes by: the earlier of the scheduled and the real one, so that neither a forged event
    /// nor a wrong clock alone deletes anything early.
    pub fn today(&self, zone: &Zone) -> Date {
        day(self.scheduled_at.min(self.now), zone)
    }
}

/// The calendar day of an instant in a zone.
pub fn day(at: Timestamp, zone: &Zone) -> Date {
    at.to_zoned(zone.rules().clone()).date()
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!("`{text}` is not a time: expected the form 2026-11-22T02:00:00Z"))
    })
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    time(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn refusal(event: Value) -> String {
        Event::from_json(event).unwrap_err().to_string()
    }

    #[test]
    fn what_the_scheduler_sends_is_understood() {
        let sent = Event::scheduler_input()
            .to_string()
            .replace("<aws.scheduler.scheduled-time>", "2026-11-22T02:00:00Z")
            .replace(
                "<aws.scheduler.schedule-arn>",
                "arn:aws:scheduler:eu-central-1:123456789012:schedule/snapwarden-prod/backup",
            );
        let event = Event::from_json(serde_json::from_str(&sent).unwrap()).unwrap();
        assert_eq!(event.run().to_string(), "snapwarden-prod/backup@2026-11-22T02:00:00Z");
        assert!(!event.dry_run);
    }

    #[test]
    fn refusals_name_the_field_and_what_was_expected() {
        let message =
            refusal(json!({"scheduled_at": "<aws.scheduler.scheduled-time>", "schedule": "manual"}));
        assert!(
            message.contains("scheduled_at: `<aws.scheduler.scheduled-time>` is not a time"),
            "{message}"
        );
        let message = refusal(json!({"scheduled_at": "2026-11-22T02:00:00Z", "schedule": "nightly"}));
        assert!(message.contains("schedule: `nightly` is not a schedule"), "{message}");
        let message =
            refusal(json!({"scheduled_at": "2026-11-22T02:00:00Z", "schedule": "manual", "dry_run": 1}));
        assert!(message.contains("dry_run: invalid type"), "{message}");
        assert!(refusal(json!({})).contains("missing field `scheduled_at`"));
        assert!(refusal(json!("hello")).contains("expected struct Event"));
    }

    #[test]
    fn a_misspelt_dry_run_does_not_start_a_real_run() {
        let event = json!({"scheduled_at": "2026-11-22T02:00:00Z", "schedule": "manual", "dryrun": true});
        assert!(refusal(event).contains("unknown field `dryrun`"));
    }

    /// A fence lifted in a schedule's input would be lifted every night.
    #[test]
    fn only_a_person_lifts_a_fence_and_for_one_run() {
        for (field, value) in [("max_deletes", json!(9_000)), ("allow_mass_deletion", json!(true))] {
            let event = |schedule: &str| {
                Event::from_json(
                    json!({"scheduled_at": "2026-11-22T02:00:00Z", "schedule": schedule, field: value}),
                )
            };
            assert!(event("manual").is_ok());
            let message = event("snapwarden-prod/cleanup").unwrap_err().to_string();
            assert!(message.contains(field) && message.contains("snapwarden-prod/cleanup"), "{message}");
        }
    }

    #[test]
    fn a_stale_or_forged_time_is_refused_with_both_times() {
        let event = Event::manual(at("2026-11-22T02:00:00Z"), false);
        assert!(event.clock(at("2026-11-24T02:00:00Z")).is_ok());
        assert!(event.clock(at("2026-11-20T02:00:00Z")).is_ok());
        for now in ["2026-11-24T02:00:01Z", "2026-11-20T01:59:59Z"] {
            let message = event.clock(at(now)).unwrap_err().to_string();
            assert!(message.contains("2026-11-22T02:00:00Z") && message.contains(now), "{message}");
        }
    }

    #[test]
    fn a_run_delivered_after_midnight_keeps_its_own_day() {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let event = Event::manual(at("2026-11-22T22:30:00Z"), false); // 23:30 in Berlin
        let late = event.clock(at("2026-11-22T23:10:00Z")).unwrap();
        assert_eq!(late.scheduled_day(&zone), date(2026, 11, 22));
        assert_eq!(late.today(&zone), date(2026, 11, 22));
    }

    proptest! {
        #[test]
        fn no_event_makes_today_later_than_it_is(
            scheduled in -377_000_000_000_i64..253_000_000_000,
            skew in -400_000_i64..400_000,
        ) {
            let zone: Zone = "Pacific/Apia".parse().unwrap();
            let scheduled_at = Timestamp::from_second(scheduled).unwrap();
            let now = Timestamp::from_second(scheduled + skew).unwrap();
            if let Ok(clock) = Event::manual(scheduled_at, false).clock(now) {
                prop_assert!(skew.abs() <= 48 * 3600);
                prop_assert!(clock.today(&zone) <= day(now, &zone));
                prop_assert!(clock.today(&zone) <= clock.scheduled_day(&zone));
            } else {
                prop_assert!(skew.abs() > 48 * 3600);
            }
        }
    }
}
