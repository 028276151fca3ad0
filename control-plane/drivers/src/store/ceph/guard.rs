//! A lock of ours, had while something is done that two must not do at once: librbd ends its process when two
//! remove the same image from the trash.
//!
//! What is done under it waits in the library, on a thread that nobody can end. So it is done in a task of
//! its own: when nobody waits for it any more it is told to stop, the lock is renewed until that thread has
//! ended, and is given back then. The lock ends by itself, too, when nobody renews it; whoever works under it
//! asks at every step whether it is had for sure.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bmi_rbd::Pool;
use bmi_types::VolumeId;

use super::fault::of_ceph;
use crate::store::StoreError;

/// How long it is had when nobody renews it.
const TIME: Duration = Duration::from_secs(30);
/// How long it is had for sure: the rest is for what is under way to come to its end.
const SURE: Duration = Duration::from_secs(25);
/// How often it is renewed, and how long that may take. Together they are less than [`SURE`].
const RENEWAL: Duration = Duration::from_secs(8);
const RENEWAL_MAX: Duration = Duration::from_secs(10);
/// The pause until it is asked for again while another process has it.
const PAUSE: Duration = Duration::from_millis(200);

/// The lock as whoever works under it knows it.
#[derive(Clone)]
pub(super) struct Held(Arc<Mutex<State>>);

struct State {
    /// Whether anybody wants the work.
    wanted: bool,
    /// Until when the lock is had for sure.
    until: Option<Instant>,
}

impl Held {
    fn not_yet() -> Self {
        Self(Arc::new(Mutex::new(State { wanted: true, until: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to go on: the work is wanted, and the lock is had for sure.
    pub(super) fn holds(&self) -> bool {
        let state = self.state();
        state.wanted && state.until.is_some_and(|until| Instant::now() < until)
    }

    /// What tells a long call of the library to stop.
    pub(super) fn progress(&self) -> bmi_rbd::Progress {
        let held = self.clone();
        Box::new(move |_, _| held.holds())
    }

    fn is_wanted(&self) -> bool {
        self.state().wanted
    }

    fn stop(&self) {
        self.state().wanted = false;
    }

    /// It was got, or renewed, by who asked at that time.
    fn had(&self, asked: Instant) {
        self.state().until = asked.checked_add(SURE);
    }

    /// Whether the time has not run out in which it is had for sure. Where it has, somebody else may have had
    /// it since.
    fn is_in_time(&self) -> bool {
        self.state().until.is_some_and(|until| Instant::now() < until)
    }
}

/// Has the work stop when it goes.
struct Interest(Held);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Does something while this process alone has the lock on an object. Gives nothing when another process has
/// it, after so many tries. When this is dropped the work is told to stop, and goes on until it has.
pub(super) async fn guarded<T, F>(
    pool: &Pool,
    object: &'static str,
    tries: u32,
    work: impl FnOnce(Held) -> F + Send + 'static,
) -> Result<Option<T>, StoreError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    let held = Held::not_yet();
    let _interest = Interest(held.clone());
    let task = tokio::spawn(under(pool.clone(), object, tries, held, work));
    task.await.unwrap_or_else(|failed| Err(StoreError::Unusable(failed.to_string())))
}

async fn under<T, F>(
    pool: Pool,
    object: &'static str,
    tries: u32,
    held: Held,
    work: impl FnOnce(Held) -> F,
) -> Result<Option<T>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    // The end of the runtime drops this task.
    let _interest = Interest(held.clone());
    let cookie = VolumeId::generate().to_string();
    if !taken(&pool, object, tries, &cookie, &held).await? {
        return Ok(None);
    }
    let work = work(held.clone());
    let renewal = renewed(&pool, object, &cookie, &held);
    tokio::pin!(work, renewal);
    let mut lost = None;
    // The work is waited for in any case: it ends soon when it is told to.
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            error = &mut renewal, if lost.is_none() => {
                held.stop();
                lost = Some(error);
            }
        }
    };
    if let Some(error) = lost {
        return Err(error);
    }
    match pool.guard_release(object, &cookie).await {
        Err(error) if !error.is_absent() => Err(of_ceph(error)),
        _ => done.map(Some),
    }
}

/// Takes the lock; gives whether it is had.
async fn taken(
    pool: &Pool,
    object: &'static str,
    tries: u32,
    cookie: &str,
    held: &Held,
) -> Result<bool, StoreError> {
    for _ in 0..tries {
        let asked = Instant::now();
        if pool.guard_take(object, cookie, Some(TIME)).await.map_err(of_ceph)? {
            held.had(asked);
            return Ok(true);
        }
        if !held.is_wanted() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(false)
}

/// Renews the lock again and again. It ends when the lock is lost, or may be.
async fn renewed(pool: &Pool, object: &'static str, cookie: &str, held: &Held) -> StoreError {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let asked = Instant::now();
        let action = || format!("keep the lock {object} of {}", pool.namespace());
        match tokio::time::timeout(RENEWAL_MAX, pool.guard_take(object, cookie, Some(TIME))).await {
            Ok(Ok(true)) if held.is_in_time() => held.had(asked),
            Ok(Ok(_)) => return StoreError::Unusable(format!("cannot {}: another process has it", action())),
            Ok(Err(error)) => return of_ceph(error),
            Err(_) => {
                let source = std::io::ErrorKind::TimedOut.into();
                return StoreError::Unreachable { action: action(), source };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_on_only_while_the_lock_is_had_for_sure_and_the_work_is_wanted() {
        let held = Held::not_yet();
        let mut progress = held.progress();
        assert!(!held.holds() && !progress(0, 1), "it is not had yet");
        held.had(Instant::now());
        assert!(held.holds() && progress(0, 1));
        // Who asked for it longer ago has it, or not: it may have stood still in between.
        held.had(Instant::now().checked_sub(SURE).unwrap());
        assert!(!held.holds() && !held.is_in_time() && !progress(0, 1));
        held.had(Instant::now());
        drop(Interest(held.clone()));
        assert!(!held.holds() && !progress(0, 1) && held.is_in_time(), "nobody wants it any more");
    }

    #[test]
    fn a_renewal_that_fails_is_noticed_before_the_lock_ends() {
        assert!(RENEWAL + RENEWAL_MAX < SURE && SURE < TIME);
    }
}
