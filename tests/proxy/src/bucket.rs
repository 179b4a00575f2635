//! EC2's token buckets, as AWS publishes them.
//!
//! Stated here a second time on purpose: the functions pace themselves by a table of their own
//! (`functions/runtime/src/pace.rs`), and a test that measured them by the same one would find both wrong together.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::Call;

/// One bucket: every call takes a token, and a call that finds none is refused.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    capacity: f64,
    /// Tokens a second.
    refill: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(capacity: f64, refill: f64, now: Instant) -> Self {
        Self { capacity, refill, level: capacity, at: now }
    }

    /// Takes a token, if there is one. A call that is refused takes none.
    pub fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + seconds * self.refill).min(self.capacity);
        self.at = self.at.max(now);
        let there = self.level >= 1.0;
        if there {
            self.level -= 1.0;
        }
        there
    }
}

/// All buckets of an account and Region.
#[derive(Debug)]
pub(crate) struct All {
    scale: f64,
    buckets: BTreeMap<(String, bool), Bucket>,
}

impl All {
    /// Full ones, `scale` times as large and as quick as published.
    pub(crate) fn new(scale: f64) -> Self {
        Self { scale, buckets: BTreeMap::new() }
    }

    /// Whether a call finds a token. Only EC2 publishes its buckets.
    pub(crate) fn admit(&mut self, call: &Call, now: Instant) -> bool {
        let Some(action) = call.action.strip_prefix("ec2:") else { return true };
        let (capacity, refill) = published(action, is_narrowed(call));
        let scale = self.scale;
        let full = || Bucket::new(capacity * scale, refill * scale, now);
        // A list without any filter has a bucket of its own.
        self.buckets.entry((action.to_owned(), is_narrowed(call))).or_insert_with(full).take(now)
    }
}

/// Capacity, and tokens a second (source: EC2 developer guide, "Request throttling for the Amazon EC2 API", tables
/// "Request token bucket sizes and refill rates" and "Non-mutating actions").
fn published(action: &str, is_narrowed: bool) -> (f64, f64) {
    match action {
        "CreateSnapshot" | "CreateSnapshots" | "DeleteSnapshot" => (100.0, 5.0),
        "CreateTags" => (100.0, 10.0),
        action if ["Describe", "Get", "List"].iter().any(|read| action.starts_with(read)) => {
            if is_narrowed {
                (100.0, 20.0)
            } else {
                (50.0, 10.0)
            }
        }
        _ => (50.0, 5.0),
    }
}

/// Whether a list is asked for with a filter or a page's size.
fn is_narrowed(call: &Call) -> bool {
    let fields = call.parameters.as_object();
    fields.is_some_and(|fields| fields.keys().any(|key| key.starts_with("Filter.") || key == "MaxResults"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Every proof about pace, and every comparison with others, is only as true as this.
    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100.0, 5.0, start);
        let mut taken = |at: Duration| (0..1_000).filter(|_| bucket.take(start + at)).count();
        assert_eq!(taken(Duration::ZERO), 100);
        assert_eq!(taken(Duration::from_secs(1)), 5, "five a second, and refusals cost nothing");
        assert_eq!(taken(Duration::from_secs(3)), 10);
        assert_eq!(taken(Duration::from_hours(1)), 100, "never more than it holds");
    }

    #[test]
    fn the_published_figures() {
        for (action, narrowed, expected) in [
            ("CreateSnapshots", false, (100.0, 5.0)),
            ("CreateTags", false, (100.0, 10.0)),
            ("DescribeInstances", true, (100.0, 20.0)),
            ("DescribeInstances", false, (50.0, 10.0)),
            ("LockSnapshot", false, (50.0, 5.0)),
        ] {
            assert_eq!(published(action, narrowed), expected, "{action}");
        }
    }
}
