//! The lock over a slot in memory, in virtual time.

use std::rc::Rc;

use super::*;

/// A slot that behaves like an SSM parameter, and can lose the answer to a creation.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<State>>);

/// What it holds with its version, and whether the next answer is lost.
type State = (Option<(Option<Holder>, i64)>, bool);

fn error(class: ErrorClass) -> AwsError {
    AwsError { call: "ssm:PutParameter", class, code: String::new(), message: String::new() }
}

#[async_trait(?Send)]
impl Slot for Memory {
    async fn create(&self, holder: &Holder) -> Result<(), AwsError> {
        let mut slot = self.0.borrow_mut();
        if slot.0.is_some() {
            return Err(error(ErrorClass::AlreadyExists));
        }
        slot.0 = Some((Some(holder.clone()), 1));
        if std::mem::take(&mut slot.1) { Err(error(ErrorClass::AlreadyExists)) } else { Ok(()) }
    }

    async fn overwrite(&self, holder: &Holder) -> Result<i64, AwsError> {
        let mut slot = self.0.borrow_mut();
        let version = slot.0.as_ref().map_or(0, |(_, version)| *version);
        slot.0 = Some((Some(holder.clone()), version + 1));
        Ok(version + 1)
    }

    async fn read(&self) -> Result<Option<(Option<Holder>, i64)>, AwsError> {
        Ok(self.0.borrow().0.clone())
    }

    async fn delete(&self) -> Result<(), AwsError> {
        self.0.borrow_mut().0 = None;
        Ok(())
    }
}

fn holder(who: &str) -> Holder {
    let process = Process { machine: "m".to_owned(), pid: 1, began: "b".to_owned() };
    Holder::new(who.to_owned(), "deploy", Timestamp::UNIX_EPOCH, Some(process))
}

fn patience(limit: u64) -> Patience<'static> {
    Patience {
        limit: Duration::from_secs(limit),
        break_lock: false,
        has_ended: &|_| false,
        waiting: &|_, _| (),
    }
}

/// Two deploys that interleave leave a mixture of both that neither has planned.
#[tokio::test(start_paused = true)]
async fn who_comes_second_waits_for_the_first_or_is_told_who_it_is() {
    let slot = Memory::default();
    let first = Lock::take(slot.clone(), holder("ann"), patience(0)).await.unwrap();
    let refused = Lock::take(slot.clone(), holder("bob"), patience(10)).await.err().unwrap();
    assert_eq!(refused.to_string(), "ann is changing this environment (deploy since 1970-01-01 00:00 UTC)");
    let second = Lock::take(slot.clone(), holder("bob"), patience(60));
    let (second, ()) = tokio::join!(second, async {
        sleep(Duration::from_secs(30)).await;
        first.release().await.unwrap();
    });
    second.unwrap().check().await.unwrap();
}

/// A deploy takes as long as AWS does: it must not lose its lock to somebody who is merely impatient.
#[tokio::test(start_paused = true)]
async fn a_lock_is_held_for_as_long_as_it_is_renewed() {
    let slot = Memory::default();
    let first = Lock::take(slot.clone(), holder("ann"), patience(0)).await.unwrap();
    let working = first.while_held(sleep(LEASE * 5));
    let (second, ()) = tokio::join!(Lock::take(slot.clone(), holder("bob"), patience(400)), working);
    assert!(matches!(second, Err(LockError::Held(_))));
    first.check().await.unwrap();
}

/// A machine that died in the middle of a deploy must not need a person to free the environment.
#[tokio::test(start_paused = true)]
async fn what_nobody_renews_is_taken_over_and_the_old_holder_stops() {
    let slot = Memory::default();
    let asleep = Lock::take(slot.clone(), holder("ann"), patience(0)).await.unwrap();
    let started = Instant::now();
    let awake = Lock::take(slot.clone(), holder("bob"), patience(600)).await.unwrap();
    assert!(started.elapsed() >= LEASE && started.elapsed() < LEASE * 2);
    awake.check().await.unwrap();
    let halt = asleep.check().await.unwrap_err();
    assert!(halt.0.contains("taken this environment's lock over"), "{halt}");
    asleep.renew().await;
    asleep.release().await.unwrap();
    awake.check().await.unwrap();
}

/// After Ctrl-C, twice, the very next command has to get through.
#[tokio::test(start_paused = true)]
async fn a_lock_of_a_process_that_has_ended_is_taken_at_once() {
    let slot = Memory::default();
    drop(Lock::take(slot.clone(), holder("ann"), patience(0)).await.unwrap());
    let started = Instant::now();
    let knowing = Patience { has_ended: &|process| process.pid == 1, ..patience(0) };
    Lock::take(slot.clone(), holder("ann"), knowing).await.unwrap().check().await.unwrap();
    assert!(started.elapsed() <= SETTLING * 2);
}

/// Of several who find the same abandoned lock, one gets it.
#[tokio::test(start_paused = true)]
async fn of_all_who_take_it_over_at_once_one_gets_it() {
    let slot = Memory::default();
    drop(Lock::take(slot.clone(), holder("ann"), patience(0)).await.unwrap());
    let breaking = Patience { break_lock: true, ..patience(0) };
    let (bob, eve) = tokio::join!(Lock::take(slot.clone(), holder("bob"), breaking), async {
        sleep(SETTLING / 2).await;
        Lock::take(slot.clone(), holder("eve"), breaking).await
    });
    assert!(matches!(bob, Err(LockError::Held(by)) if by.who == "eve"));
    eve.unwrap().check().await.unwrap();
}

/// The SDK repeats a call whose answer was lost; the repetition must not wait for the first for ever.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_lock_us_out() {
    let slot = Memory::default();
    slot.0.borrow_mut().1 = true;
    Lock::take(slot.clone(), holder("ann"), patience(0)).await.unwrap().check().await.unwrap();
}

/// Somebody's own parameter of that name is not ours to take, unless they say so.
#[tokio::test(start_paused = true)]
async fn what_is_no_lock_is_named() {
    let slot = Memory::default();
    slot.0.borrow_mut().0 = Some((None, 7));
    let started = Instant::now();
    let refused = Lock::take(slot.clone(), holder("ann"), patience(600)).await.err().unwrap();
    assert!(refused.to_string().contains("no lock"), "{refused}");
    assert!(started.elapsed() < LOOK, "it was waited for in vain");
    let breaking = Patience { break_lock: true, ..patience(0) };
    Lock::take(slot.clone(), holder("ann"), breaking).await.unwrap().check().await.unwrap();
}
