//! The helper's loop: verbs from the socketpair to the driver, answers and news back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bmi_types::chain;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{LocalSet, spawn_local};

use super::frame;
use super::verbs::{Answer, Found, Request, Said, Verb};
use crate::drivers::{Diskless, NewsSink, ProcessConfig};
use crate::plan::names::ProcessId;

/// Verbs worked on at once. Starting is waiting for the kernel most of the time; more would only contend.
const AT_ONCE: usize = 8;

/// Verbs that were read and are not done. More wait in the socket.
const TAKEN_MAX: usize = 256;

/// Answers and news waiting to be written. A process that prints waits here, and then in its own FIFO.
const OUTGOING_MAX: usize = 1024;

/// How often the driver looks after what changes by itself.
const TEND: Duration = Duration::from_secs(1);

/// Why the helper cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime or the socketpair.
    #[error("preparing the root helper")]
    Prepare(#[source] io::Error),
    /// The driver.
    #[error("starting the driver: {0}")]
    Driver(String),
    /// The socketpair broke.
    #[error("talking to the agent")]
    Channel(#[source] io::Error),
}

/// Serves the socketpair on standard input until it closes.
///
/// # Errors
/// When it cannot start, or the other half sends something unreadable.
pub fn run<D: Diskless + 'static>(
    start: impl FnOnce(NewsSink) -> Result<D, D::Error>,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ServeError::Prepare)?;
    let result = LocalSet::new().block_on(&runtime, async {
        let channel = io::stdin().as_fd().try_clone_to_owned().map_err(ServeError::Prepare)?;
        let channel = StdUnixStream::from(channel);
        channel.set_nonblocking(true).map_err(ServeError::Prepare)?;
        let channel = UnixStream::from_std(channel).map_err(ServeError::Prepare)?;
        let (news, outgoing) = mpsc::channel(OUTGOING_MAX);
        let driver = start(news.clone()).map_err(|error| ServeError::Driver(chain(&error)))?;
        serve(channel, Rc::new(driver), news, outgoing).await
    });
    // A launcher that is being waited for must not keep the helper: it ends when its channel closes.
    runtime.shutdown_background();
    result
}

async fn serve<D: Diskless + 'static>(
    channel: UnixStream,
    driver: Rc<D>,
    say: NewsSink,
    mut outgoing: mpsc::Receiver<Said>,
) -> Result<(), ServeError> {
    let (mut from, mut to) = channel.into_split();
    spawn_local(async move {
        while let Some(said) = outgoing.recv().await {
            if frame::write(&mut to, &said).await.is_err() {
                return;
            }
        }
    });
    let tended = Rc::clone(&driver);
    spawn_local(async move {
        loop {
            tokio::time::sleep(TEND).await;
            tended.tend().await;
        }
    });
    let pending = Pending::default();
    let (room, taken) = (Rc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(TAKEN_MAX)));
    while let Some(request) = frame::read::<Request>(&mut from).await.map_err(ServeError::Channel)? {
        let (driver, say, room) = (Rc::clone(&driver), say.clone(), Rc::clone(&room));
        let asked = request.verb.process().map(|id| pending.add(id));
        let pending = pending.clone();
        let Ok(place) = Arc::clone(&taken).acquire_owned().await else { break };
        spawn_local(async move {
            let _place = place;
            // Whoever only looks, or writes a file, does not wait behind starts that wait for an engine. The others come in the
            // order of asking.
            let _turn = match request.verb {
                Verb::Observe | Verb::GateWrite { .. } | Verb::NetbootConfigure { .. } => None,
                _ => room.acquire().await.ok(),
            };
            let before = pending.ids();
            let answer = match perform(&*driver, request.verb).await {
                Ok(Answer::Found(found)) => Answer::Found(Box::new(pending.told(*found, before))),
                Ok(answer) => answer,
                Err(error) => Answer::Fault(chain(&error)),
            };
            drop(asked);
            let _ = say.send(Said::Answer { number: request.number, answer }).await;
        });
    }
    Ok(())
}

/// The processes of verbs that were taken and are not done.
#[derive(Clone, Default)]
struct Pending(Rc<RefCell<BTreeMap<ProcessId, usize>>>);

/// One such verb.
struct Asked(Pending, ProcessId);

impl Pending {
    fn add(&self, id: ProcessId) -> Asked {
        *self.0.borrow_mut().entry(id).or_default() += 1;
        Asked(self.clone(), id)
    }

    fn ids(&self) -> BTreeSet<ProcessId> {
        self.0.borrow().keys().copied().collect()
    }

    /// What was found, but of what was pending before or is now: that may have been seen half made.
    fn told(&self, mut found: Found, before: BTreeSet<ProcessId>) -> Found {
        let pending = before.into_iter().chain(self.ids()).collect::<BTreeSet<_>>();
        found.processes.retain(|id, _| !pending.contains(id));
        found.pending = pending.into_iter().collect();
        found
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut pending = self.0.0.borrow_mut();
        if let Some(count) = pending.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                pending.remove(&self.1);
            }
        }
    }
}

async fn perform<D: Diskless>(driver: &D, verb: Verb) -> Result<Answer, D::Error> {
    match verb {
        Verb::Observe => return driver.observe().await.map(|found| Answer::Found(Box::new(found))),
        Verb::NetworkEnsure { network } => driver.network_ensure(network).await,
        Verb::NetworkRemove => driver.network_remove().await,
        Verb::NetbootStart { spec, config } => {
            driver.process_ensure(spec, ProcessConfig::Netboot(config)).await
        }
        Verb::TargetStart { spec, gate } => driver.process_ensure(spec, ProcessConfig::Gate(gate)).await,
        Verb::BrokerStart { spec } => driver.process_ensure(spec, ProcessConfig::Broker).await,
        Verb::ProcessStop { id } => driver.process_remove(id).await,
        Verb::NetbootConfigure { config } => driver.process_configure(ProcessConfig::Netboot(config)).await,
        Verb::GateWrite { gate } => driver.process_configure(ProcessConfig::Gate(gate)).await,
    }
    .map(|()| Answer::Done)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::drivers::firewall::testing;
    use crate::helper::client::Helper;
    use crate::plan::spec::{NetworkSpec, ProcessSpec};

    /// Never done with anything but looking.
    struct Stuck;

    impl Diskless for Stuck {
        type Error = io::Error;

        async fn network_ensure(&self, _: NetworkSpec) -> io::Result<()> {
            pending().await
        }

        async fn network_remove(&self) -> io::Result<()> {
            pending().await
        }

        async fn process_ensure(&self, _: ProcessSpec, _: ProcessConfig) -> io::Result<()> {
            pending().await
        }

        async fn process_configure(&self, _: ProcessConfig) -> io::Result<()> {
            pending().await
        }

        async fn process_remove(&self, _: ProcessId) -> io::Result<()> {
            pending().await
        }

        async fn observe(&self) -> io::Result<Found> {
            Ok(Found::default())
        }

        async fn tend(&self) {}
    }

    #[tokio::test]
    async fn whoever_looks_does_not_wait_behind_what_takes_long() {
        let looks = async {
            let (ours, theirs) = StdUnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let (news, outgoing) = mpsc::channel(OUTGOING_MAX);
            let channel = UnixStream::from_std(theirs).unwrap();
            spawn_local(serve(channel, Rc::new(Stuck), news, outgoing));
            let (helper, _news) = Helper::connect(ours).unwrap();
            let order = |helper: Helper, number: u8| async move {
                let id = ProcessId::Target(testing::target(number).instance);
                helper.order(Verb::ProcessStop { id }).await
            };
            let count = u8::try_from(2 * AT_ONCE).unwrap();
            let orders: Vec<_> =
                (0..count).map(|number| spawn_local(order(helper.clone(), number))).collect();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let found = tokio::time::timeout(Duration::from_secs(30), helper.observe()).await;
            // What waits for its turn is told as well as what is being worked on.
            assert_eq!(found.unwrap().unwrap().pending.len(), 2 * AT_ONCE);
            assert!(orders.iter().all(|order| !order.is_finished()));
        };
        LocalSet::new().run_until(looks).await;
    }
}
