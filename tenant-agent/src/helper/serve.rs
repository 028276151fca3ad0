//! The helper's loop: verbs from the socketpair to the driver, answers and news back.

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
use super::verbs::{Answer, Request, Said, Verb};
use crate::drivers::{Diskless, NewsSink, ProcessConfig};

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
    let (room, taken) = (Rc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(TAKEN_MAX)));
    while let Some(request) = frame::read::<Request>(&mut from).await.map_err(ServeError::Channel)? {
        let (driver, say, room) = (Rc::clone(&driver), say.clone(), Rc::clone(&room));
        let Ok(place) = Arc::clone(&taken).acquire_owned().await else { break };
        spawn_local(async move {
            let _place = place;
            // Whoever only looks does not wait behind starts that wait for an engine. The others come in the order of asking.
            let _turn = match request.verb {
                Verb::Observe => None,
                _ => room.acquire().await.ok(),
            };
            let answer = match perform(&*driver, request.verb).await {
                Ok(answer) => answer,
                Err(error) => Answer::Fault(chain(&error)),
            };
            let _ = say.send(Said::Answer { number: request.number, answer }).await;
        });
    }
    Ok(())
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
    use crate::helper::client::Helper;
    use crate::helper::verbs::Found;
    use crate::plan::names::ProcessId;
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
            let order = |helper: Helper| async move { helper.order(Verb::NetworkRemove).await };
            let orders: Vec<_> = (0..2 * AT_ONCE).map(|_| spawn_local(order(helper.clone()))).collect();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let found = tokio::time::timeout(Duration::from_secs(30), helper.observe()).await;
            assert_eq!(found.unwrap().unwrap(), Found::default());
            assert!(orders.iter().all(|order| !order.is_finished()));
        };
        LocalSet::new().run_until(looks).await;
    }
}
