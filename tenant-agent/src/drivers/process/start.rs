//! Starting a process: a launcher in a directory that was made, which is told what to become.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bmi_agent_api::config::{BOOT_GATE_FILE, BROKER_FILE, NETBOOT_FILE};
use nix::sched::{CloneFlags, unshare};
use tokio::task::spawn_blocking;

use super::broker::OrderBroker;
use super::launcher::{Order, OrderLun};
use super::record::{Record, Run};
use super::{HTTP_PORT, ISCSI_PORT, ProcessDriver, ProcessError, broker, launcher, output};
use crate::drivers::ProcessConfig;
use crate::helper::frame;
use crate::helper::validate::{self, Refusal};
use crate::plan::names::ProcessId;
use crate::plan::spec::{ProcessSpec, TargetSpec};

/// How long a launcher may take to enter its namespace, and to become its program: both are milliseconds.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(10);

impl ProcessDriver {
    fn spawn(&self, id: ProcessId, directory: &Path) -> Result<(Child, UnixStream), ProcessError> {
        let fault = |source| ProcessError::Launch { id, source };
        let (ours, theirs) = UnixStream::pair().map_err(fault)?;
        ours.set_read_timeout(Some(LAUNCH_TIMEOUT)).map_err(fault)?;
        let mut launcher = Command::new("/proc/self/exe");
        launcher.arg0_launcher();
        if let ProcessId::Broker(_) = id {
            launcher.arg("--network").arg(broker::network_argument(&self.config));
        }
        launcher
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output::open_for_process(directory, output::OUTPUT_FILE).map_err(fault)?)
            .stderr(output::open_for_process(directory, output::ERROR_FILE).map_err(fault)?);
        Ok((spawn_first(launcher).map_err(fault)?, ours))
    }

    pub(super) fn order(&self, spec: &ProcessSpec, directory: PathBuf) -> Result<Order, ProcessError> {
        let uid = self.uid(spec.slot());
        let (volume_dir, without) = (self.config.volume_dir.clone(), self.config.sandbox_without.clone());
        Ok(match spec {
            ProcessSpec::Netboot(_) => Order {
                program: self.config.netboot_program(),
                arguments: vec!["--config".to_owned(), NETBOOT_FILE.to_owned()],
                uid,
                directory,
                volume_dir,
                luns: Vec::new(),
                profile: "bmi-netboot".to_owned(),
                shown: vec![self.config.loaders.clone()],
                ports: vec![HTTP_PORT],
                without,
                broker: None,
                stock: None,
            },
            ProcessSpec::Broker(spec) => Order {
                program: self.config.broker_program(),
                arguments: ["--config", BROKER_FILE, "--inherited-socket"].map(str::to_owned).to_vec(),
                uid,
                directory,
                volume_dir,
                luns: Vec::new(),
                profile: "bmi-broker".to_owned(),
                shown: Vec::new(),
                ports: Vec::new(),
                without,
                broker: Some(OrderBroker {
                    sockets: self.sockets(spec.instance),
                    target_uid: self.uid(spec.target_slot),
                    connect: broker::ports(spec, &self.config),
                }),
                stock: None,
            },
            ProcessSpec::Target(target) => {
                let luns = target.luns.iter().map(|lun| {
                    let path = validate::below(self.config.volume_dir.as_deref(), &lun.path)?;
                    Ok(OrderLun { lun: lun.lun, path, read_only: lun.read_only })
                });
                let sockets = self.sockets(target.instance);
                let mut arguments = target_arguments(target);
                for lun in &target.remote {
                    arguments.push("--lun".to_owned());
                    arguments.push(broker::lun_argument(lun.lun, &sockets, lun.read_only));
                }
                let profile = if target.remote.is_empty() { "bmi-target" } else { "bmi-target-broker" };
                Order {
                    program: self.config.target_program(),
                    arguments,
                    uid,
                    directory,
                    volume_dir,
                    luns: luns.collect::<Result<Vec<_>, Refusal>>()?,
                    profile: profile.to_owned(),
                    shown: if target.remote.is_empty() { Vec::new() } else { vec![sockets] },
                    ports: vec![ISCSI_PORT],
                    without,
                    broker: None,
                    stock: None,
                }
            }
        })
    }

    /// Starts a process that is not there, kept for this, and says which run it is. `order` says what is to become of
    /// the launcher in the directory that was made.
    pub(in crate::drivers) async fn launch(
        &self,
        spec: &ProcessSpec,
        config: ProcessConfig,
        order: impl FnOnce(PathBuf) -> Result<Order, ProcessError>,
    ) -> Result<Run, ProcessError> {
        let id = spec.id();
        self.others_check(spec)?;
        let launch = |source| ProcessError::Launch { id, source };
        let directory = self.directory_make(spec, &config)?;
        let order = order(directory.clone())?;
        let (child, channel) = self.spawn(id, &directory)?;
        let pid = i32::try_from(child.id()).map_err(|error| launch(io::Error::other(error)))?;
        let run = Run::of(pid).ok_or_else(|| launch(io::Error::other("it ended at once")))?;
        let record = Record { spec: spec.clone(), run: run.clone() };
        record.save(&directory).map_err(launch)?;
        self.look_after(id, run.clone(), Some(child))?;
        let mut channel = blocking(channel, launcher::await_ready).await.map_err(launch)?;
        if let ProcessId::Broker(_) = id {
            self.brokers_fence(None).await?;
        }
        if let Some((address, network)) = spec.place() {
            self.wire(spec, &run, address, network.cidr.prefix_len()).await?;
        }
        frame::write_blocking(&mut channel, &order).map_err(launch)?;
        // The channel closes when the launcher becomes its program; before that it can only say what is wrong.
        blocking(channel, |channel| {
            let mut reason = String::new();
            io::Read::read_to_string(channel, &mut reason)?;
            if reason.is_empty() { Ok(()) } else { Err(io::Error::other(reason)) }
        })
        .await
        .map_err(launch)?;
        Ok(run)
    }
}

/// The launcher adds the LUNs.
pub(in crate::drivers) fn target_arguments(target: &TargetSpec) -> Vec<String> {
    let listen = format!("{}:{ISCSI_PORT}", target.address);
    let pairs = [
        ("--listen", listen.as_str()),
        ("--target", target.iqn.as_str()),
        ("--initiator", target.initiator.as_str()),
        ("--boot-gate", BOOT_GATE_FILE),
        ("--sessions", "one"),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
}

trait Launcher {
    fn arg0_launcher(&mut self) -> &mut Self;
}

impl Launcher for Command {
    fn arg0_launcher(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt;
        self.arg0("bmi-agent").arg("launch")
    }
}

/// Starts a program as the first process of a process id namespace. When it ends, however it ends, the kernel ends
/// everything it ever started, before anyone is told; and it finds no process but its own. Only a thread's next children
/// are put into the namespace that it made, so a thread of its own makes it.
fn spawn_first(mut program: Command) -> io::Result<Child> {
    let spawn = move || {
        unshare(CloneFlags::CLONE_NEWPID)?;
        program.spawn()
    };
    let thread = std::thread::Builder::new().name("first-process".to_owned()).spawn(spawn)?;
    thread.join().map_err(|_| io::Error::other("the thread that starts it ended early"))?
}

/// Does something that blocks with a launcher's channel, and gives the channel back.
async fn blocking(
    mut channel: UnixStream,
    work: impl FnOnce(&mut UnixStream) -> io::Result<()> + Send + 'static,
) -> io::Result<UnixStream> {
    spawn_blocking(move || work(&mut channel).map(|()| channel)).await.map_err(io::Error::other)?
}
