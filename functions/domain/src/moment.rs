//! Which snapshots were started together, by one call.

use jiff::{SignedDuration, Timestamp};

/// How far the start times of one call's snapshots may lie apart.
///
/// EC2 gives them all the same one; an emulator may stamp them one by one. Two attempts lie further apart: EC2 wants
/// 15 seconds between two snapshots of a volume, and Lambda waits a minute before it repeats a failed run.
const APART: SignedDuration = SignedDuration::from_secs(5);

/// The snapshots by moment, oldest first. One that does not say when it was started belongs to none.
pub fn moments<'a, T>(
    snapshots: &[&'a T],
    started_at: impl Fn(&T) -> Option<Timestamp>,
) -> impl Iterator<Item = Vec<&'a T>> {
    let mut timed: Vec<_> =
        snapshots.iter().filter_map(|snapshot| Some((started_at(snapshot)?, *snapshot))).collect();
    timed.sort_by_key(|(at, _)| *at);
    let mut starts: Vec<_> = timed.iter().map(|(at, _)| *at).collect();
    starts.dedup();
    starts.into_iter().map(move |start| {
        let together = |at: Timestamp| at >= start && at.duration_since(start) <= APART;
        timed.iter().filter(|(at, _)| together(*at)).map(|(_, snapshot)| *snapshot).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments_of(seconds: &[Option<i64>]) -> Vec<Vec<Option<i64>>> {
        let all: Vec<_> = seconds.iter().collect();
        moments(&all, |second| second.map(|second| Timestamp::from_second(second).unwrap()))
            .map(|moment| moment.into_iter().copied().collect())
            .collect()
    }

    #[test]
    fn two_attempts_are_never_taken_for_one_set() {
        assert_eq!(moments_of(&[Some(75), Some(60), Some(60)]), [vec![Some(60), Some(60)], vec![Some(75)]]);
        assert_eq!(moments_of(&[None]), [[]; 0]);
    }

    #[test]
    fn a_set_stamped_across_a_second_is_still_one() {
        assert_eq!(moments_of(&[Some(61), Some(60)])[0], [Some(60), Some(61)]);
    }
}
