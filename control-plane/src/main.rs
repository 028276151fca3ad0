//! `bmi-control-plane`: reads its configuration, puts the drivers together, and serves until SIGTERM.

mod commands;

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use bmi_api::Code;
use bmi_auth::oidc::Providers;
use bmi_auth::{AuditKey, LocalAdmin, Subject};
use bmi_control_plane::agents_tls::{AgentsTls, authorities_ensure};
use bmi_control_plane::app::authentication::{Authentication, PublicUrl, Throttle};
use bmi_control_plane::app::metrics::Metrics;
use bmi_control_plane::app::policies::Policies;
use bmi_control_plane::app::rate_limit::RateLimit;
use bmi_control_plane::app::{App, Wake, audit, boots_watch, policies};
use bmi_control_plane::config::{AgentSocket, Agents, Config, Isolation, Store};
use bmi_control_plane::tls::Certificate;
use bmi_control_plane::{code, data_dir, http, reconcile, sealed, workflows};
use bmi_db::{BridgeTables, ConfiguredBinding, Db, DbError, DbInventory, Held, Purpose};
use bmi_drivers::image::{Converter, launcher};
use bmi_drivers::isolation::{Bridge, Hil, HilSettings, NetworkIsolation, Unisolated};
use bmi_drivers::power::Manual;
#[cfg(feature = "ceph")]
use bmi_drivers::store::ceph::{CephSettings, CephStore};
use bmi_drivers::store::{DataStore, ImportDir, LocalStore, StoreError, prepare_local_directory};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// BMI's control plane: projects, networks, nodes, images, instances and operations over a REST API.
///
/// The first start makes a master key and a local admin token in the data directory (mode 0600). The first line on
/// standard output is {"event":"listening","address":"IP:PORT"}; the log goes to standard error (RUST_LOG).
///
/// Exit status: 0 after SIGTERM, 1 when it cannot start, 2 for wrong usage or configuration.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true, default_value = "/etc/bmi/control-plane.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Checks the configuration file and exits.
    CheckConfig,
    /// Brings the database up to date; or moves a stopped SQLite deployment to PostgreSQL.
    ///
    /// The password of PostgreSQL belongs into a password file (PGPASSFILE), and not into the URL.
    Migrate {
        /// The empty PostgreSQL database that everything is moved to: postgres://USER@HOST/NAME.
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
    /// Seals all secrets under a new master key. Every replica must be stopped.
    Rekey,
    /// Writes a backup of the database and of all keys, also while the server runs.
    Backup {
        /// A directory that does not exist yet.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Restores a backup into the configured database and key files, which must not hold anything else.
    Restore {
        /// A directory that `backup` made.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
    /// The launcher of one image conversion. Started by the server itself.
    #[command(name = launcher::COMMAND, hide = true)]
    Convert,
    /// Prints the OpenAPI document.
    Openapi,
}

/// Why the server could not start.
type StartError = Box<dyn std::error::Error + Send + Sync>;

#[expect(clippy::print_stdout, reason = "check-config answers on standard output")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Command::Convert)) {
        return launcher::run();
    }
    if matches!(arguments.command, Some(Command::Openapi)) {
        // It needs no configuration: the document is the same everywhere.
        print!("{}", http::openapi_document());
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    match arguments.command {
        None => {}
        Some(Command::CheckConfig) => {
            println!("{} is valid", arguments.config.display());
            return ExitCode::SUCCESS;
        }
        Some(_) => {}
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // A journal or a file has no colours.
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    // The database, its log and what is copied of it hold sealed secrets and everybody's names: nobody else reads what
    // is made here.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let done = match arguments.command {
        Some(Command::Migrate { to: None }) => commands::migrate::run(&config),
        Some(Command::Migrate { to: Some(to) }) => commands::r#move::run(&config, &to),
        Some(Command::Rekey) => commands::rekey::run(&config),
        Some(Command::Backup { to }) => commands::backup::run(&config, &to),
        Some(Command::Restore { from }) => commands::restore::run(&config, &from),
        _ => actix_web::rt::System::new().block_on(serve(&config)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, 1),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a process that cannot go on")]
fn fail(error: &dyn std::error::Error, status: u8) -> ExitCode {
    eprintln!("bmi-control-plane: {}", bmi_types::chain(error));
    ExitCode::from(status)
}

#[expect(clippy::print_stdout, reason = "the first line on standard output says where the server listens")]
async fn serve(config: &Config) -> Result<(), StartError> {
    let _only = data_dir::hold(&config.data_dir)?;
    let held = Held::of_url(&config.database_url(), Purpose::Serving)?;
    let app = Arc::new(assemble(config).await?);
    // Nobody else serves this SQLite file: what the last server was doing is taken over at once. A PostgreSQL database
    // may have other replicas; their leases end by themselves.
    if app.db.is_alone() {
        app.db.system_write(bmi_db::lease::end_all).await.map_err(|error: DbError| error)?;
    }
    let agent = config.agent.as_ref().map(|agent| agent_serve(config, agent, &app)).transpose()?;
    let agents = match &config.agents {
        Some(agents) => Some(agents_serve(agents, &app).await?),
        None => None,
    };
    let listener = TcpListener::bind(config.listen)
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    let address = listener.local_addr()?;
    let certificate = config.tls.clone().map(Certificate::load).transpose()?;
    let tls = certificate.as_ref().map(Certificate::server_config).transpose()?;
    let api = http::api_server(Arc::clone(&app), listener, tls)?;
    let replica = format!("{address} pid {} {}", std::process::id(), Uuid::new_v4().simple());
    let mut workers = workflows::start(&app, &replica);
    workers.push(tokio::spawn(reconcile::run(Arc::clone(&app), config.reconcile, replica)));
    workers.push(tokio::spawn(boots_watch(Arc::clone(&app))));
    workers.push(tokio::spawn(policies::watch(Arc::clone(&app))));
    workers.push(tokio::spawn(audit::watch(Arc::clone(&app))));
    workers.extend(certificate.map(|certificate| tokio::spawn(certificate.watch())));
    let agents_address = agents.as_ref().map(|agents| agents.address);
    let agents_handle = agents.map(|agents| {
        workers.push(tokio::spawn(agents.tls.watch()));
        agents.handle
    });
    let api_handle = api.handle();
    let api = tokio::spawn(api);
    let mut said = serde_json::json!({"event": "listening", "address": address});
    if let (Some(agents), Some(said)) = (agents_address, said.as_object_mut()) {
        said.insert("agents".to_owned(), agents.to_string().into());
    }
    println!("{said}");
    tracing::info!(%address, "listening");

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let lost = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        error = sealed::keep(held, &app) => Some(StartError::from(error)),
        error = app.store.lost() => Some(format!("the data store is lost to this process: {}", bmi_types::chain(&error)).into()),
    };
    tracing::info!("stopping");
    app.wake.stopping.say();
    for worker in &workers {
        worker.abort();
    }
    if let Some((socket, agent)) = agent {
        agent.stop(false).await;
        std::fs::remove_file(socket).ok();
    }
    if let Some(agents) = agents_handle {
        agents.stop(false).await;
    }
    api_handle.stop(true).await;
    api.await??;
    lost.map_or(Ok(()), Err)
}

/// Serves the agents' API on the configured socket.
fn agent_serve(
    config: &Config,
    agent: &AgentSocket,
    app: &Arc<App>,
) -> Result<(PathBuf, ServerHandle), StartError> {
    let socket = config.path(agent.socket.as_ref(), "agent.sock");
    let listener = bind_agent_socket(&socket, agent.uid)?;
    let server = http::agent_server(Arc::clone(app), listener, agent.network.clone())?;
    let handle = server.handle();
    tokio::spawn(server);
    tracing::info!(socket = %socket.display(), network.name = %agent.network, "listening for the agent");
    Ok((socket, handle))
}

/// The listener of agents on other hosts.
struct AgentsListener {
    address: SocketAddr,
    handle: ServerHandle,
    tls: Arc<AgentsTls>,
}

/// Serves the agents' API to agents on other hosts. The authority that they know the server by is made when there is none.
async fn agents_serve(config: &Agents, app: &Arc<App>) -> Result<AgentsListener, StartError> {
    let enrolling = config.enrolling();
    let records = authorities_ensure(&app.db, &app.master_key, &enrolling).await?;
    let (db, key, names) = (app.db.clone(), app.master_key.clone(), config.names.clone());
    let tls = AgentsTls::new(db, key, enrolling, names, &records)?;
    let listener = TcpListener::bind(config.listen)
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    let address = listener.local_addr()?;
    let server = http::agents_server(Arc::clone(app), listener, &tls)?;
    let handle = server.handle();
    tokio::spawn(server);
    tracing::info!(%address, trust_domain = config.trust_domain, "listening for agents");
    Ok(AgentsListener { address, handle, tls })
}

/// Puts the configured drivers together.
async fn assemble(config: &Config) -> Result<App, StartError> {
    let converter = Converter {
        program: config.convert.program.clone(),
        user: config.convert.uid,
        launcher: "/proc/self/exe".into(),
    };
    let db = Db::open(&config.database_url())?;
    let master_key = sealed::master_key(&db, &config.master_key_path()).await?;
    let store: Arc<dyn DataStore> = match &config.store {
        Store::Local { directory, size } => {
            Arc::new(local_store(config, directory.as_ref(), size, converter)?)
        }
        #[cfg(feature = "ceph")]
        Store::Ceph { conf, user, keyring, pool, import_namespace, broker_mon_host, staging } => {
            let settings = CephSettings {
                conf: conf.clone(),
                user: user.clone(),
                keyring: keyring.clone(),
                pool: pool.clone(),
                import_namespace: import_namespace.clone(),
                broker_mon_host: broker_mon_host.clone(),
                staging: config.path(staging.as_ref(), "staging"),
            };
            Arc::new(ceph_store(settings, converter, &db, &master_key).await?)
        }
        #[cfg(not(feature = "ceph"))]
        Store::Ceph { .. } => return Err("this program was built without the ceph store".into()),
    };
    let mut bindings = config.group_bindings();
    bindings.push(ConfiguredBinding {
        subject: Subject::local_admin(),
        role: "platform-admin".to_owned(),
        project: None,
    });
    let wake = Wake::default();
    Ok(App {
        isolation: isolation(config, &db, &wake)?,
        policies: Policies::load(db.clone(), bindings).await?,
        quota_defaults: config.quota.defaults(),
        audit: audit::Chain::new(
            AuditKey::load_or_create(&config.path(config.audit.key_file.as_ref(), "audit.key"))?,
            config.data_dir.join("audit.head"),
            config.audit.keep_days.map(|days| Duration::from_secs(days * 24 * 60 * 60)),
        ),
        rate_limit: RateLimit::new(config.rate_limit),
        master_key,
        authentication: authentication(config)?,
        db,
        store,
        power: Arc::new(Manual),
        enrolling: config.agents.as_ref().map(Agents::enrolling),
        import_dir: config.import_dir.clone().map(ImportDir::new),
        agent_wait: workflows::AGENT_WAIT,
        boot_limits: config.boot,
        metrics: Metrics::default(),
        wake,
    })
}

/// The configured isolator.
fn isolation(config: &Config, db: &Db, wake: &Wake) -> Result<Arc<dyn NetworkIsolation>, StartError> {
    let inventory = Arc::new(DbInventory(db.clone()));
    Ok(match &config.isolation {
        Isolation::None {} => Arc::new(Unisolated),
        Isolation::Bridge { ports } => {
            let desired = Arc::clone(&wake.desired);
            let (records, wait) = (Arc::new(BridgeTables(db.clone())), workflows::AGENT_WAIT);
            Arc::new(Bridge::new(records, inventory, ports.clone(), wait, Arc::new(move || desired.ring())))
        }
        Isolation::Hil(hil) => {
            let settings = HilSettings {
                url: hil.url.clone(),
                user: hil.user.clone(),
                password: bmi_auth::secret_load(&hil.password_file)?,
                ca_file: hil.ca_file.clone(),
                channel: hil.channel.clone(),
                request_timeout: Duration::from_secs(hil.request_timeout_s),
                operation_timeout: Duration::from_secs(hil.operation_timeout_s),
                nodes: hil.nodes.clone(),
                networks: hil.networks.clone(),
            };
            Arc::new(Hil::new(settings, inventory)?)
        }
    })
}

/// Why the data store cannot be used, behind the code of that.
fn told(code: Code, error: &dyn std::error::Error) -> StartError {
    format!("{code}: {}", bmi_types::chain(error)).into()
}

/// The data store in local files.
fn local_store(
    config: &Config,
    directory: Option<&PathBuf>,
    size: &str,
    converter: Converter,
) -> Result<LocalStore, StartError> {
    let directory = config.path(directory, "store");
    let image = config.data_dir.join("store.xfs");
    let told = |error: StoreError| told(code::of_store(&error), &error);
    prepare_local_directory(&directory, &image, size.parse()?).map_err(told)?;
    LocalStore::open(directory, converter).map_err(told)
}

/// The data store in Ceph.
#[cfg(feature = "ceph")]
async fn ceph_store(
    settings: CephSettings,
    converter: Converter,
    db: &Db,
    master_key: &bmi_auth::MasterKey,
) -> Result<CephStore, StartError> {
    let records = Arc::new(bmi_db::CephTables::new(db.clone(), master_key.clone()));
    let store = CephStore::open(settings, converter, records).await;
    store.map_err(|error| told(code::of_preflight(&error), &error))
}

/// How callers may prove who they are.
fn authentication(config: &Config) -> Result<Authentication, StartError> {
    let admin_token = config.path(config.admin_token_file.as_ref(), "admin.token");
    let local_admin = config.local_admin_enabled().then(|| LocalAdmin::load_or_create(&admin_token));
    Ok(Authentication {
        local_admin: local_admin.transpose()?,
        providers: Providers::new(config.oidc.clone())?,
        public_url: config.public_url.as_deref().map(PublicUrl::parse).transpose()?,
        sessions: config.sessions,
        service_token_max_days: config.service_accounts.token_max_days,
        throttle: Throttle::new(config.sign_in),
    })
}

/// Binds the agent's socket: mode 0600, owned by the agent's user.
fn bind_agent_socket(path: &Path, uid: Option<u32>) -> Result<UnixListener, StartError> {
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(format!("another control plane listens on {}", path.display()).into());
        }
        std::fs::remove_file(path)?;
    }
    let listener =
        UnixListener::bind(path).map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    if let Some(uid) = uid {
        std::os::unix::fs::chown(path, Some(uid), None)?;
    }
    Ok(listener)
}
