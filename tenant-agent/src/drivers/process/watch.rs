//! Looking after runs: passing on what they print, noticing that they end, and ending them.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncRead;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinHandle, spawn_local};

use super::record::Run;
use super::{ProcessDriver, ProcessError, log, output};
use crate::helper::verbs::Said;
use crate::plan::names::ProcessId;

/// How long a process may take to flush and end after SIGTERM, and to vanish after SIGKILL.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is said of a process that its filter ended.
pub(in crate::drivers) const SIGSYS_TOLD: &str =
    "ended by signal SIGSYS (seccomp): it made a system call that its profile does not allow";

/// A process this helper looks after.
pub(super) struct Kept {
    pub(super) run: Run,
    child: Rc<RefCell<Option<Child>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a run prints, and how it is found out how it ended when it is no child of ours.
pub(in crate::drivers) struct Printed<R> {
    /// Standard output.
    pub lines: R,
    /// Standard error.
    pub errors: R,
    /// A task that feeds both.
    pub feeder: Option<JoinHandle<()>>,
    /// Asked when it has ended.
    pub ending: Option<LocalBoxFuture<'static, String>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl ProcessDriver {
    /// Watches a run: passes on what it prints, and says when it ends by itself.
    pub(in crate::drivers) fn look_after(
        &self,
        id: ProcessId,
        run: Run,
        child: Option<Child>,
    ) -> Result<(), ProcessError> {
        let fault = |doing| move |source| ProcessError::File { doing, id, source };
        let directory = self.directory(id);
        let lines = output::open_for_helper(id, &directory, output::OUTPUT_FILE)
            .map_err(fault("opening the output"))?;
        let errors = output::open_for_helper(id, &directory, output::ERROR_FILE)
            .map_err(fault("opening the errors"))?;
        self.keep(id, run, child, Printed { lines, errors, feeder: None, ending: None })
    }

    /// Watches a run that prints in its own way.
    pub(in crate::drivers) fn keep<R: AsyncRead + Unpin + 'static>(
        &self,
        id: ProcessId,
        run: Run,
        child: Option<Child>,
        printed: Printed<R>,
    ) -> Result<(), ProcessError> {
        let fault = |doing| move |source| ProcessError::File { doing, id, source };
        let Printed { lines, errors, feeder, ending: told } = printed;
        let directory = self.directory(id);
        let ended = watch(&run).map_err(fault("watching the process"))?;
        let child = Rc::new(RefCell::new(child));
        let (news, reaped, name) = (self.news.clone(), Rc::clone(&child), run.name());
        let writer = spawn_local(log::keep(directory.clone(), errors));
        let waiter = spawn_local(async move {
            if ended.readable().await.is_err() {
                return;
            }
            let status = reaped.borrow_mut().as_mut().map(Child::wait);
            let how = match (status, told) {
                (Some(Ok(status)), _) => ending(status),
                (_, Some(told)) => told.await,
                _ => "ended".to_owned(),
            };
            let how = log::last_line(&directory).map_or(how.clone(), |line| format!("{how}: {line}"));
            let _ = news.send(Said::Exited { id, run: name, how }).await;
        });
        let reader = spawn_local(output::pass_on(id, run.name(), lines, self.news.clone()));
        let tasks = [waiter, writer, reader].into_iter().chain(feeder).collect();
        self.kept.borrow_mut().insert(id, Kept { run, child, tasks });
        Ok(())
    }

    /// Ends a run for certain.
    pub(in crate::drivers) async fn end(&self, id: ProcessId, run: &Run) -> Result<(), ProcessError> {
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

/// Kills a run at once, when it is still there. That it has ended is not waited for.
pub(in crate::drivers) fn kill(run: &Run) {
    let handle = Pid::from_raw(run.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(handle) = handle.filter(|_| run.lives()) {
        // Gone already is as good.
        let _ = pidfd_send_signal(handle, Signal::KILL);
    }
}

/// How a process ended, for people. The kernel's log says which system call it was (`type=1326`).
fn ending(status: ExitStatus) -> String {
    if status.signal() == Some(Signal::SYS.as_raw()) {
        return SIGSYS_TOLD.to_owned();
    }
    status.to_string()
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
