//! Starting the two halves. The only place that names the concrete driver.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_agent_api::enrol::JoinToken;
use bmi_agent_api::event::About;
use bmi_sandbox::privileges::{PrivilegeError, drop_all};
use bmi_types::AgentId;
use nix::unistd::{geteuid, setsid};
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::agent::{Agent, AgentError};
use crate::config::{Config, ConfigError, Driver};
use crate::drivers::container::{ContainerDriver, ContainerError};
use crate::drivers::process::{ProcessDriver, ProcessError};
use crate::drivers::tgt::{TgtDriver, TgtError};
use crate::faults::Faults;
use crate::helper::client::Helper;
use crate::helper::serve::{ServeError, run};
use crate::identity::{IdentityError, Kept};
use crate::ledger::{Ledger, LedgerError};
use crate::link::{Keeper, Link, LinkError, join_patiently, joining};
use crate::sync::{ControlPlane, EVENTS_KEPT, Known, POLL_TIMEOUT};

/// Where programs are looked for: `nft` is all the helper starts by name.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How long to wait for an earlier helper of the same network to end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the helper may take to end after its channel closed.
const HELPER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing runs, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// Not root.
    #[error("the agent must be started as root: its other half makes interfaces and rules")]
    NotRoot,
    /// A directory or file.
    #[error("preparing {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another one.
    #[error("another agent serves from {0}")]
    Locked(PathBuf),
    /// The helper.
    #[error("starting the root helper")]
    Helper(#[source] io::Error),
    /// Rights.
    #[error("giving up rights")]
    Rights(#[from] PrivilegeError),
    /// The runtime.
    #[error("preparing the runtime")]
    Runtime(#[source] io::Error),
    /// The ledger.
    #[error("opening the ledger")]
    Ledger(#[from] LedgerError),
    /// The way to the control plane.
    #[error("reaching the control plane")]
    Link(#[from] LinkError),
    /// No URL.
    #[error("`{0}` is no control plane on another host: https:// and a host, and nothing else")]
    Server(String),
    /// A token.
    #[error("{0} holds no join token: `bmi agent token create --network N` makes one")]
    Token(String),
    /// The unprivileged half ended.
    #[error("the agent ended")]
    Agent(#[from] AgentError),
    /// The helper ended.
    #[error("the root helper ended")]
    Serve(#[from] ServeError),
    /// Removing everything.
    #[error("removing what the agent made")]
    Remove(#[from] ProcessError),
    /// Something of a container is left.
    #[error("removing")]
    RemoveContainer(#[from] ContainerError),
    /// Something of a stock target is left.
    #[error("removing")]
    RemoveTgt(#[from] TgtError),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |source| StartError::File { path, source }
}

fn directories_make(config: &Config) -> Result<(), StartError> {
    for (path, owner, mode) in [
        (config.state_dir.clone(), 0, 0o711),
        (config.run_dir(), 0, 0o711),
        (config.sockets_dir(), 0, 0o711),
        (config.agent_dir(), config.agent_uid(), 0o700),
    ] {
        fs::create_dir_all(&path).map_err(file(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(file(&path))?;
        chown(&path, Some(owner), Some(owner)).map_err(file(&path))?;
    }
    Ok(())
}

/// Holds the network for one agent at a time, until the process ends.
fn lock(config: &Config) -> Result<File, StartError> {
    let path = config.state_dir.join("lock");
    let held = File::create(&path).map_err(file(&path))?;
    let give_up = Instant::now() + LOCK_TIMEOUT;
    while flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > give_up {
            return Err(StartError::Locked(config.state_dir.clone()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(held)
}

/// `bmi-agent --config FILE`.
///
/// # Errors
/// When it cannot start, or the helper ends.
pub fn agent(path: &Path) -> Result<(), StartError> {
    let config = Config::load(path)?;
    if !geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    directories_make(&config)?;
    let token = token_of(&config)?;
    let (channel, mut helper) = helper_spawn(path)?;
    // The ledger is opened from here on without a right to the directories above it.
    std::env::set_current_dir(config.agent_dir()).map_err(file(&config.agent_dir()))?;
    drop_all(config.agent_uid())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let result = runtime.block_on(unprivileged(config, token, channel));
    // With the runtime goes the channel, and with that the helper.
    drop(runtime);
    let give_up = Instant::now() + HELPER_TIMEOUT;
    while matches!(helper.try_wait(), Ok(None)) && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(10));
    }
    result
}

fn helper_spawn(config: &Path) -> Result<(UnixStream, Child), StartError> {
    let (ours, theirs) = UnixStream::pair().map_err(StartError::Helper)?;
    let config = fs::canonicalize(config).map_err(file(config))?;
    let log = std::env::var("BMI_LOG").unwrap_or_else(|_| "info".to_owned());
    let child = Command::new("/proc/self/exe")
        .args(["helper", "--config"])
        .arg(config)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("BMI_LOG", log)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(StartError::Helper)?;
    Ok((ours, child))
}

/// The join token that the configuration names. Root reads it: nobody else may. Later it need not be there.
fn token_of(config: &Config) -> Result<Option<JoinToken>, StartError> {
    let Some(path) = config.join_token_file.as_ref().filter(|_| config.server().is_some()) else {
        return Ok(None);
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            let none = || StartError::Token(path.display().to_string());
            JoinToken::parse(&text).map(Some).ok_or_else(none)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(path)(error)),
    }
}

/// Keeps the link for ever, where there is something to keep.
async fn keep(keeper: Option<Keeper>, link: &Link) -> Result<(), LinkError> {
    match keeper {
        Some(keeper) => keeper.follow(link).await,
        None => std::future::pending().await,
    }
}

/// What `bmi-agent enrol` is told.
pub struct Enrolling {
    /// The token.
    pub token: String,
    /// The control plane, when not as configured.
    pub server: Option<String>,
    /// Who this agent was, when it has forgotten that.
    pub agent: Option<AgentId>,
    /// Whether it is to forget who it was.
    pub forget: bool,
}

/// `bmi-agent enrol`.
///
/// # Errors
/// When this agent has not joined.
pub fn enrol(path: &Path, told: Enrolling) -> Result<(), StartError> {
    let config = Config::load(path)?;
    if !geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    let token = JoinToken::parse(&told.token).ok_or_else(|| StartError::Token("--token".to_owned()))?;
    let server = told.server.as_deref().unwrap_or(&config.control_plane);
    let no_server = || StartError::Server(server.to_owned());
    let server = crate::config::server(server).ok_or_else(no_server)?;
    directories_make(&config)?;
    // An agent that runs keeps who it is by itself.
    let _lock = lock(&config)?;
    // What is kept is the unprivileged half's.
    std::env::set_current_dir(config.agent_dir()).map_err(file(&config.agent_dir()))?;
    drop_all(config.agent_uid())?;
    let directory = Path::new(".");
    let identity = |error: IdentityError| StartError::Link(error.into());
    if told.forget || told.agent.is_some() {
        Kept::forget(directory).map_err(identity)?;
        // Nor does it go on with what it served as whoever it was, until it is told to.
        let mut ledger = Ledger::load(directory)?;
        if ledger.desired.take().is_some() {
            ledger.save(directory)?;
        }
    }
    let mut joining = joining(directory)?;
    if told.agent.is_some() {
        joining.agent = told.agent;
        joining.save(directory).map_err(identity)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let joined = runtime.block_on(join_patiently(server, &token, &config.network, &joining));
    joined.map_err(LinkError::from)?.save(directory).map_err(identity)
}

async fn unprivileged(
    config: Config,
    token: Option<JoinToken>,
    channel: UnixStream,
) -> Result<(), StartError> {
    let directory = Path::new(".");
    let mut ledger = Ledger::load(directory)?;
    // A host that was given to another network serves nothing of the one before.
    if ledger.desired.as_ref().is_some_and(|desired| desired.network.name != config.network) {
        tracing::warn!(network = %config.network, "what was kept is of another network, and is not served");
        ledger.desired = None;
    }
    let (helper, news) = Helper::connect(channel).map_err(StartError::Helper)?;
    let (link, keeper) = Link::open(&config, directory.to_owned(), token, POLL_TIMEOUT)?;
    let link = Arc::new(link);
    let control_plane = ControlPlane::new(Arc::clone(&link), config.network.clone());
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;

    let known = ledger.desired.as_ref().map(Known::of).unwrap_or_default();
    let generation = known.generation;
    let (to_desired, desired) = watch::channel(None);
    let (to_status, status) = watch::channel(None);
    let (to_events, events) = mpsc::channel(EVENTS_KEPT);
    tokio::spawn(control_plane.clone().desired_follow(
        known,
        to_desired,
        Faults::new(About::Desired, to_events.clone()),
    ));
    tokio::spawn(control_plane.clone().status_follow(status));
    tokio::spawn(control_plane.events_follow(events));
    tracing::info!(network = %config.network, generation, "serving");
    let agent = Agent::new(config, directory, ledger, helper, to_events, to_status);
    tokio::select! {
        ended = agent.run(desired, news) => Ok(ended?),
        ended = keep(keeper, &link) => Ok(ended?),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// `bmi-agent helper`: see [`crate::helper`].
///
/// # Errors
/// When it cannot start, or the other half sends something unreadable.
pub fn helper(path: &Path) -> Result<(), StartError> {
    let config = Config::load(path)?;
    // Of its own session: what interrupts the agent at a terminal ends the helper by closing its channel.
    let _ = setsid();
    let _lock = lock(&config)?;
    for weakness in crate::check::weaknesses(&config) {
        tracing::warn!(weakness, "this host is weaker than it could be");
    }
    match config.driver {
        Driver::Process => run(|news| ProcessDriver::start(config, news))?,
        Driver::Container => run(|news| ContainerDriver::start(config, news))?,
        Driver::Tgt => run(|news| TgtDriver::start(config, news))?,
    }
    Ok(())
}

/// `bmi-agent stop`.
///
/// # Errors
/// When something is left.
pub fn stop(path: &Path) -> Result<(), StartError> {
    let config = Config::load(path)?;
    if !geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    directories_make(&config)?;
    let _lock = lock(&config)?;
    let ledger = config.agent_dir().join(crate::ledger::LEDGER_FILE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (news, _unheard) = mpsc::channel(1);
        match config.driver {
            Driver::Process => ProcessDriver::start(config, news)?.remove_all().await?,
            Driver::Container => ContainerDriver::start(config, news)?.remove_all().await?,
            Driver::Tgt => TgtDriver::start(config, news)?.remove_all().await?,
        }
        Ok::<(), StartError>(())
    })?;
    match fs::remove_file(&ledger) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(&ledger)(error)),
        _ => Ok(()),
    }
}
