//! The configuration file: TOML, unknown keys refused with file and line.

mod agents;
mod isolation;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bmi_auth::oidc::ProviderSettings;
use bmi_db::ConfiguredBinding;
use bmi_types::{ByteSize, Name, ProjectId};
use serde::Deserialize;

use crate::app::BootLimits;
use crate::app::authentication::{PublicUrl, SessionLimits, ThrottleLimits};
use crate::app::quota::Defaults;
use crate::app::rate_limit::RateLimits;
use crate::tls::TlsSettings;

pub use agents::Agents;
pub use isolation::{HilSection, Isolation};

/// The configuration of `bmi-control-plane`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the REST API listens. Port 0 takes a free one; the first line on standard output names it.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// The certificate of the REST API. Without it the API speaks HTTP, on loopback only.
    pub tls: Option<TlsSettings>,
    /// Speak HTTP on an address that others reach: where a proxy on the way speaks TLS.
    #[serde(default)]
    pub plain_http: bool,
    /// How many requests somebody may make.
    #[serde(default)]
    pub rate_limit: RateLimits,
    /// Where everything is kept that is not configured elsewhere.
    pub data_dir: PathBuf,
    /// `postgres://…`, or the path of a SQLite file. Default: `bmi.sqlite` in `data_dir`.
    pub database: Option<String>,
    /// The key that seals secrets. Default: `master.key` in `data_dir`.
    pub master_key_file: Option<PathBuf>,
    /// The local admin's token. Default: `admin.token` in `data_dir`.
    pub admin_token_file: Option<PathBuf>,
    /// Where browsers reach the API: `https://bmi.example.org`. Identity providers send them back there.
    pub public_url: Option<String>,
    /// Whether the local admin's token is taken.
    #[serde(default)]
    pub local_admin: LocalAdminSettings,
    /// Identity providers.
    #[serde(default)]
    pub oidc: Vec<ProviderSettings>,
    /// How long sessions last.
    #[serde(default)]
    pub sessions: SessionLimits,
    /// How often somebody may try to sign in.
    #[serde(default)]
    pub sign_in: ThrottleLimits,
    /// What service accounts may have.
    #[serde(default)]
    pub service_accounts: ServiceAccountSettings,
    /// Files below it may be imported as images by a platform admin. Default: importing is off.
    pub import_dir: Option<PathBuf>,
    /// What converts images that are not raw.
    #[serde(default)]
    pub convert: Convert,
    /// Where the local agent connects. Default: there is none.
    pub agent: Option<AgentSocket>,
    /// Where agents on other hosts dial. Default: none can join.
    pub agents: Option<Agents>,
    /// When a node's boot counts as failed.
    #[serde(default)]
    pub boot: BootLimits,
    /// The data store.
    pub store: Store,
    /// What keeps nodes on their networks. Default: nothing.
    #[serde(default)]
    pub isolation: Isolation,
    /// How the world is compared with the database.
    #[serde(default)]
    pub reconcile: Reconcile,
    /// What a project may have that has no quota of its own.
    #[serde(default)]
    pub quota: Quota,
    /// The audit log.
    #[serde(default)]
    pub audit: Audit,
}

/// The audit log.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The key that signs the chain; replicas share it. Default: `audit.key` in `data_dir`.
    pub key_file: Option<PathBuf>,
    /// Days that lines are kept, 1 to 36 500. Default: for ever.
    pub keep_days: Option<u64>,
}

/// Whether the local admin's token is taken.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalAdminSettings {
    /// When this is not said, it is taken unless there is an identity provider.
    pub enabled: Option<bool>,
}

/// What service accounts may have.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceAccountSettings {
    /// The most days that a token lasts.
    pub token_max_days: u32,
}

impl Default for ServiceAccountSettings {
    fn default() -> Self {
        Self { token_max_days: 365 }
    }
}

/// What a project may have that has no quota of its own. What is not given has no limit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Instances.
    pub instances: Option<u64>,
    /// Nodes that are assigned.
    pub nodes: Option<u64>,
    /// Images.
    pub images: Option<u64>,
    /// Size of images and boot volumes: `500G`.
    pub virtual_bytes: Option<String>,
    /// What they really take: `100G`.
    pub used_bytes: Option<String>,
}

impl Quota {
    /// The limits, which [`Config::load`] has read once.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        let bytes = |text: &Option<String>| {
            let size = text.as_ref().and_then(|text| text.parse::<ByteSize>().ok());
            size.map(ByteSize::bytes)
        };
        Defaults {
            instances: self.instances,
            nodes: self.nodes,
            images: self.images,
            virtual_bytes: bytes(&self.virtual_bytes),
            used_bytes: bytes(&self.used_bytes),
        }
    }
}

/// How the world is compared with the database.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconcile {
    /// Seconds from one look to the next, at least 1.
    pub every_s: u64,
    /// Days that what nobody knows is kept aside before it is removed.
    pub keep_days: u64,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { every_s: 60, keep_days: 7 }
    }
}

/// The unix socket of the local agent. Who connects to it speaks for one network, and learns of no other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSocket {
    /// The name of the network.
    pub network: Name,
    /// Its path. Default: `agent.sock` in `data_dir`.
    pub socket: Option<PathBuf>,
    /// The user that may connect, besides root.
    pub uid: Option<u32>,
}

/// The data store.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Store {
    /// Raw files on a filesystem with reflink.
    Local {
        /// Its directory. Default: `store` in `data_dir`.
        directory: Option<PathBuf>,
        /// Size of the XFS image that is made where the directory has no reflink: `20G`.
        #[serde(default = "image_size")]
        size: String,
    },
    /// RBD images in Ceph, a namespace per project.
    Ceph {
        /// Ceph's configuration file, which says where the monitors are.
        #[serde(default = "ceph_conf")]
        conf: PathBuf,
        /// The user, without `client.`.
        #[serde(default = "ceph_user")]
        user: String,
        /// Its keyring. Default: where the configuration file says.
        keyring: Option<PathBuf>,
        /// The pool.
        #[serde(default = "ceph_pool")]
        pool: String,
        /// The namespace of the pool whose images may be imported by a platform admin. Default: none may.
        import_namespace: Option<String>,
        /// Where the monitors are for the agents' hosts, when they reach them elsewhere.
        broker_mon_host: Option<String>,
        /// A directory with room for the largest image that is converted. Default: `staging` in `data_dir`.
        staging: Option<PathBuf>,
    },
}

/// What converts images that are not raw.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convert {
    /// `qemu-img`.
    #[serde(default = "qemu_img")]
    pub program: PathBuf,
    /// The user it runs as, which nobody else is.
    #[serde(default = "converter_uid")]
    pub uid: u32,
}

impl Default for Convert {
    fn default() -> Self {
        Self { program: qemu_img(), uid: converter_uid() }
    }
}

fn qemu_img() -> PathBuf {
    "/usr/bin/qemu-img".into()
}

/// Just below what the agent gives to its processes.
const fn converter_uid() -> u32 {
    209_999
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8440))
}

fn ceph_conf() -> PathBuf {
    "/etc/ceph/ceph.conf".into()
}

fn ceph_user() -> String {
    "bmi".to_owned()
}

fn ceph_pool() -> String {
    "bmi".to_owned()
}

fn image_size() -> String {
    "20G".to_owned()
}

/// What a pool or a user of Ceph may be called here: what needs no quotes in a cap.
fn plain(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl Store {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Local { size, .. } => {
                size.parse::<ByteSize>().map(drop).map_err(|error| format!("store.size: {error}"))
            }
            Self::Ceph { .. } if !cfg!(feature = "ceph") => {
                Err("store.kind is \"ceph\", and this program was built without it".to_owned())
            }
            Self::Ceph { user, pool, import_namespace, .. } => {
                let named = [
                    ("user", Some(user)),
                    ("pool", Some(pool)),
                    ("import_namespace", import_namespace.as_ref()),
                ];
                for (key, text) in named {
                    if let Some(text) = text.filter(|text| !plain(text)) {
                        return Err(format!(
                            "store.{key} must be letters, digits, `-`, `_` and `.`, not `{text}`"
                        ));
                    }
                }
                // A project's namespace is called by its id: what is in it is its tenant's.
                match import_namespace {
                    Some(name) if name.parse::<ProjectId>().is_ok() => Err(format!(
                        "store.import_namespace is `{name}`, which is a project's; make one of its own for imports"
                    )),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be; the text has the line.
    #[error("{path}: {detail}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, or is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let wrong = |detail: String| ConfigError::Content { path: path.to_owned(), detail };
        let config: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if !config.data_dir.is_absolute() {
            return Err(wrong(format!(
                "data_dir must be an absolute path, not {}",
                config.data_dir.display()
            )));
        }
        if config.tls.is_none() && !config.plain_http && !config.listen.ip().is_loopback() {
            return Err(wrong(format!(
                "{} is reached by others: give the API a certificate (tls.certificate_file, tls.key_file), or say \
                 plain_http = true where a proxy speaks TLS",
                config.listen
            )));
        }
        if config.reconcile.every_s == 0 {
            return Err(wrong("reconcile.every_s must be at least 1".to_owned()));
        }
        if config.audit.keep_days.is_some_and(|days| !(1..=36_500).contains(&days)) {
            return Err(wrong("audit.keep_days must be 1 to 36500".to_owned()));
        }
        if config.convert.uid == 0 || !config.convert.program.is_absolute() {
            return Err(wrong(
                "convert.program must be an absolute path, and convert.uid not root".to_owned(),
            ));
        }
        for (key, text) in
            [("virtual_bytes", &config.quota.virtual_bytes), ("used_bytes", &config.quota.used_bytes)]
        {
            if let Some(Err(error)) = text.as_ref().map(|text| text.parse::<ByteSize>()) {
                return Err(wrong(format!("quota.{key}: {error}")));
            }
        }
        config.sign_in_check().map_err(wrong)?;
        config.store.check().map_err(wrong)?;
        config.agents.as_ref().map_or(Ok(()), Agents::check).map_err(wrong)?;
        config.isolation.check().map_err(wrong)?;
        Ok(config)
    }

    /// Where the database is.
    #[must_use]
    pub fn database_url(&self) -> String {
        let file = || self.data_dir.join("bmi.sqlite").display().to_string();
        self.database.clone().unwrap_or_else(file)
    }

    /// Where the key is that seals secrets.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        self.path(self.master_key_file.as_ref(), "master.key")
    }

    /// The files with secrets that the server made and cannot make again: what a backup has besides the database, under
    /// these names.
    #[must_use]
    pub fn key_files(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("master.key", self.master_key_path()),
            ("audit.key", self.path(self.audit.key_file.as_ref(), "audit.key")),
            ("admin.token", self.path(self.admin_token_file.as_ref(), "admin.token")),
        ]
    }

    fn sign_in_check(&self) -> Result<(), String> {
        if let Some(url) = &self.public_url {
            PublicUrl::parse(url).map_err(|error| format!("public_url {error}"))?;
        }
        for (position, provider) in self.oidc.iter().enumerate() {
            provider.check()?;
            let before = || self.oidc.iter().take(position);
            if before().any(|other| other.name == provider.name) {
                return Err(format!("oidc `{}` is there twice", provider.name));
            }
            if before().any(|other| other.issuer == provider.issuer) {
                return Err(format!("oidc `{}`: its issuer is that of another one", provider.name));
            }
        }
        if !self.oidc.is_empty() && self.public_url.is_none() {
            return Err("with oidc, public_url must say where browsers reach the API".to_owned());
        }
        let SessionLimits { idle_minutes, hours } = self.sessions;
        if !(1..=100_000).contains(&idle_minutes) || !(1..=8760).contains(&hours) {
            return Err("sessions: idle_minutes must be 1 to 100000, and hours 1 to 8760".to_owned());
        }
        if !(1..=3650).contains(&self.service_accounts.token_max_days) {
            return Err("service_accounts.token_max_days must be 1 to 3650".to_owned());
        }
        Ok(())
    }

    /// Whether the local admin's token is taken: when that is said, or nobody could come in otherwise.
    #[must_use]
    pub fn local_admin_enabled(&self) -> bool {
        self.local_admin.enabled.unwrap_or(self.oidc.is_empty())
    }

    /// The roles that follow from groups.
    #[must_use]
    pub fn group_bindings(&self) -> Vec<ConfiguredBinding> {
        let of = |provider: &ProviderSettings| {
            let bindings = provider.roles.iter().map(|role| ConfiguredBinding {
                subject: provider.group(&role.group),
                role: role.role.clone(),
                project: role.project.clone(),
            });
            bindings.collect::<Vec<_>>()
        };
        self.oidc.iter().flat_map(of).collect()
    }

    /// A path in the data directory, unless configured otherwise.
    #[must_use]
    pub fn path(&self, configured: Option<&PathBuf>, name: &str) -> PathBuf {
        configured.cloned().unwrap_or_else(|| self.data_dir.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bmi.toml");
        std::fs::write(&path, "data_dir = '/x'\nlisten_on = '127.0.0.1:1'\n[store]\nkind = 'local'\n")
            .unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("listen_on"), "{error}");
    }

    fn load(more: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bmi.toml");
        std::fs::write(&path, format!("data_dir = '/x'\n{more}\n[store]\nkind = 'local'\n")).unwrap();
        Config::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_projects_namespace_is_none_to_import_from() {
        let check = |namespace: &str| {
            let store = format!("kind = 'ceph'\nimport_namespace = '{namespace}'");
            toml::from_str::<Store>(&store).unwrap().check()
        };
        assert_eq!(check("import"), Ok(()));
        let project = ProjectId::generate().to_string();
        for other in [project.clone(), project.to_uppercase(), project.replace('-', "")] {
            assert!(check(&other).unwrap_err().contains("a project's"), "{other}");
        }
        for bad in ["", "im/port", "import@", "im port", "im\u{e9}"] {
            assert!(check(bad).unwrap_err().contains("store.import_namespace must be"), "{bad}");
        }
    }

    const PROVIDER: &str = "[[oidc]]\nname = 'corp'\nissuer = 'https://id.example.org'\nclient_id = 'bmi'\n";

    #[test]
    fn the_local_admin_goes_when_a_provider_comes_unless_it_is_asked_for() {
        assert!(load("").unwrap().local_admin_enabled());
        assert!(!load("[local_admin]\nenabled = false").unwrap().local_admin_enabled());
        let url = "public_url = 'https://bmi.example.org'\n";
        assert!(!load(&format!("{url}{PROVIDER}")).unwrap().local_admin_enabled());
        let asked = format!("{url}[local_admin]\nenabled = true\n{PROVIDER}");
        assert!(load(&asked).unwrap().local_admin_enabled());
    }

    #[test]
    fn what_would_make_sign_in_unsafe_or_impossible_is_refused() {
        let url = "public_url = 'https://bmi.example.org'\n";
        let said = |text: &str| load(text).unwrap_err();
        assert!(said(PROVIDER).contains("public_url"));
        assert!(said(&format!("{url}{PROVIDER}{PROVIDER}")).contains("twice"));
        let other = PROVIDER.replace("corp", "other");
        assert!(said(&format!("{url}{PROVIDER}{other}")).contains("issuer"));
        assert!(said(&format!("{url}{PROVIDER}realm = 'x'\n")).contains("unknown field"));
        assert!(said("public_url = 'http://bmi.example.org'").contains("public_url"));
        assert!(said("[sessions]\nhours = 0").contains("hours"));
        assert!(said("[sign_in]\nattempts_per_minute = 0").contains("nonzero"));
    }

    #[test]
    fn groups_have_the_roles_that_are_configured() {
        let roles = "[[oidc.roles]]\ngroup = 'ops'\nrole = 'platform-admin'\n\
                     [[oidc.roles]]\ngroup = 'lab'\nrole = 'project-member'\nproject = 'lab'\n";
        let config = load(&format!("public_url = 'https://bmi.example.org'\n{PROVIDER}{roles}")).unwrap();
        let bindings = config.group_bindings();
        assert_eq!(bindings[0].subject.as_str(), "group:corp:ops");
        assert_eq!(bindings[1].project.as_ref().unwrap().as_str(), "lab");
    }
}
