//! The unprivileged half's end of the socketpair: verbs out, answers and news in.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmi_types::MacAddr;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};

use super::frame;
use super::verbs::{Answer, Found, Request, Said, Verb};
use crate::plan::names::ProcessId;

/// News waiting to be read by the agent. More are dropped and counted: a process that prints a lot must not grow us.
const NEWS_MAX: usize = 8192;

/// Requests waiting to be written.
const REQUESTS_MAX: usize = 64;

/// How long a verb is waited for: stopping a process takes ten seconds at most, and starts share one namespace lock. An engine may
/// take longer over its answers. The helper goes on with it then, and says that the process is busy until it is done.
const LONGEST: Duration = Duration::from_secs(60);

/// What the helper says without being asked.
#[derive(Debug)]
pub enum News {
    /// A process printed a line: which run, and what.
    Line(ProcessId, String, String),
    /// A process ended by itself: which run, and how.
    Exited(ProcessId, String, String),
    /// A node's MAC is at one port and was seen at a second.
    MacConflict(MacAddr, String, String),
    /// Somebody had removed this table of rules; it is in force again.
    RulesRestored(String),
}

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The helper says no.
    #[error("{0}")]
    Fault(String),
    /// It takes long.
    #[error("it is not done after {} s, and goes on", LONGEST.as_secs())]
    Slow,
    /// The helper has gone, or is stuck.
    #[error("the root helper does not answer")]
    Gone,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// Asks the helper. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Helper {
    requests: mpsc::Sender<Request>,
    waiting: Waiting,
    number: Arc<AtomicU64>,
}

impl Helper {
    /// Starts talking. The second part gives the news, and ends when the helper does.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn connect(socket: std::os::unix::net::UnixStream) -> io::Result<(Self, mpsc::Receiver<News>)> {
        socket.set_nonblocking(true)?;
        let (read, mut write) = UnixStream::from_std(socket)?.into_split();
        let (requests, mut outgoing) = mpsc::channel::<Request>(REQUESTS_MAX);
        let (news, incoming) = mpsc::channel(NEWS_MAX);
        let waiting = Waiting::default();
        let asked = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Some(request) = outgoing.recv().await {
                if frame::write(&mut write, &request).await.is_err() {
                    break;
                }
            }
            // From here on nothing is taken any more, and what was taken last was asked in vain.
            outgoing.close();
            gone(&asked);
        });
        tokio::spawn(listen(read, Arc::clone(&waiting), news));
        Ok((Self { requests, waiting, number: Arc::default() }, incoming))
    }

    async fn ask(&self, verb: Verb) -> Result<Answer, HelperError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
        self.requests.send(Request { number, verb }).await.map_err(|_| HelperError::Gone)?;
        let answered = tokio::time::timeout(LONGEST, answered).await;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        match answered {
            Ok(Ok(Answer::Fault(reason))) => Err(HelperError::Fault(reason)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(HelperError::Gone),
            Err(_) => Err(HelperError::Slow),
        }
    }

    /// Has something done.
    ///
    /// # Errors
    /// When it was not.
    pub async fn order(&self, verb: Verb) -> Result<(), HelperError> {
        self.ask(verb).await.map(|_| ())
    }

    /// What exists. It waits for no other verb, so a helper that does not look is stuck.
    ///
    /// # Errors
    /// When the helper cannot look.
    pub async fn observe(&self) -> Result<Found, HelperError> {
        match self.ask(Verb::Observe).await {
            Ok(Answer::Found(found)) => Ok(*found),
            Ok(Answer::Done | Answer::Fault(_)) | Err(HelperError::Slow) => Err(HelperError::Gone),
            Err(error) => Err(error),
        }
    }
}

async fn listen(mut from: OwnedReadHalf, waiting: Waiting, news: mpsc::Sender<News>) {
    let mut dropped: u64 = 0;
    loop {
        let item = match frame::read::<Said>(&mut from).await {
            Ok(Some(Said::Answer { number, answer })) => {
                let asker = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                if let Some(asker) = asker {
                    let _ = asker.send(answer);
                }
                continue;
            }
            Ok(Some(Said::Line { id, run, line })) => News::Line(id, run, line),
            Ok(Some(Said::Exited { id, run, how })) => News::Exited(id, run, how),
            Ok(Some(Said::MacConflict { mac, place, second })) => News::MacConflict(mac, place, second),
            Ok(Some(Said::RulesRestored { table })) => News::RulesRestored(table),
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the root helper sent something unreadable");
                break;
            }
        };
        if news.try_send(item).is_err() {
            dropped += 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "news of processes were dropped");
            }
        }
    }
    gone(&waiting);
}

/// Whoever still waits learns that the helper has gone.
fn gone(waiting: &Waiting) {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
