//! Looking after runs: passing on what they print, noticing that they end, and ending them.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinHandle, spawn_local};

use super::record::Run;
use super::{LOG_FILE, ProcessDriver, ProcessError, output};
use crate::helper::verbs::Said;
use crate::plan::names::ProcessId;

/// How long a process may take to flush and end after SIGTERM, and to vanish after SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a log's end is quoted when a process ended by itself.
const LOG_QUOTED: u64 = 400;

/// A process this helper looks after.
pub(super) struct Kept {
    pub(super) run: Run,
    child: Rc<RefCell<Option<Child>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl ProcessDriver {
    /// Watches a run: passes on what it prints, and says when it ends by itself.
    pub(super) fn look_after(
        &self,
        id: ProcessId,
        run: Run,
        child: Option<Child>,
    ) -> Result<(), ProcessError> {
        let fault = |doing| move |source| ProcessError::File { doing, id, source };
        let lines = output::open_for_helper(&self.directory(id)).map_err(fault("opening the output"))?;
        let ended = watch(&run).map_err(fault("watching the process"))?;
        let child = Rc::new(RefCell::new(child));
        let (news, reaped, name) = (self.news.clone(), Rc::clone(&child), run.name());
        let log = self.directory(id).join(LOG_FILE);
        let waiter = spawn_local(async move {
            if ended.readable().await.is_err() {
                return;
            }
            let how = match reaped.borrow_mut().as_mut().map(Child::wait) {
                Some(Ok(status)) => status.to_string(),
                _ => "ended".to_owned(),
            };
            let how = last_line(&log).map_or(how.clone(), |line| format!("{how}: {line}"));
            let _ = news.send(Said::Exited { id, run: name, how }).await;
        });
        let reader = spawn_local(output::pass_on(id, run.name(), lines, self.news.clone()));
        self.kept.borrow_mut().insert(id, Kept { run, child, tasks: vec![waiter, reader] });
        Ok(())
    }

    /// Ends a run for certain.
    pub(super) async fn end(&self, id: ProcessId, run: &Run) -> Result<(), ProcessError> {
        if let (true, Ok(ended)) = (run.lives(), watch(run)) {
            for (signal, timeout) in [(Signal::TERM, TERM_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
                // Gone already is as good.
                let _ = pidfd_send_signal(ended.get_ref(), signal);
                if tokio::time::timeout(timeout, ended.readable()).await.is_ok() {
                    break;
                }
            }
        }
        if let Some(kept) = self.kept.borrow_mut().remove(&id)
            && let Some(mut child) = kept.child.borrow_mut().take()
        {
            let _ = child.try_wait();
        }
        if run.lives() { Err(ProcessError::Immortal(id)) } else { Ok(()) }
    }
}

/// Becomes readable when the run ends. The run is looked at again after the handle is open, so it is the right one.
#[expect(deprecated, reason = "an OwnedFd stays open as long as it is registered; the successor is unsafe")]
fn watch(run: &Run) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(run.pid).ok_or_else(|| io::Error::other("not a process id"))?;
    let handle = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    if !run.lives() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    AsyncFd::with_interest(handle, tokio::io::Interest::READABLE)
}

/// The end of a log, for people: what a process says when it cannot start. Its last line, printable, cut short.
fn last_line(log: &Path) -> Option<String> {
    let mut log = File::open(log).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LOG_QUOTED))).ok()?;
    let mut end = Vec::new();
    log.take(LOG_QUOTED).read_to_end(&mut end).ok()?;
    let end = String::from_utf8_lossy(&end);
    let line = end.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).collect())
}
