//! Whether the store can do its work, found out by doing it once at the start.

use std::path::PathBuf;

use bmi_rbd::{Access, Cluster, CommandError, Pool, RbdError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::caps;
use super::preflight_space::{self, CLONE, IMAGE};
use super::records::RecordError;

/// What is missing. Each says the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// No monitor answers, or the key is wrong.
    #[error("cannot connect to Ceph as client.{user}: {hint}")]
    Connect {
        /// As whom.
        user: String,
        /// What to look at.
        hint: &'static str,
        /// Why.
        #[source]
        source: RbdError,
    },
    /// There is no such pool.
    #[error(
        "there is no pool `{pool}`; make it: ceph osd pool create {pool} && ceph osd pool application enable {pool} rbd"
    )]
    NoPool {
        /// Which.
        pool: String,
    },
    /// The pool is not meant for RBD.
    #[error("the pool `{pool}` is not for RBD; allow it: ceph osd pool application enable {pool} rbd")]
    NotForRbd {
        /// Which.
        pool: String,
    },
    /// There is no namespace to import from.
    #[error(
        "there is no namespace `{namespace}` to import from in the pool `{pool}`; make it: rbd namespace create {pool}/{namespace}"
    )]
    NoImportNamespace {
        /// Where.
        pool: String,
        /// Which.
        namespace: String,
    },
    /// A right is missing.
    #[error(
        "client.{user} may not {action}: it needs {cap} (`ceph auth caps client.{user} …`; infra/ceph lists all of them)"
    )]
    Cap {
        /// Who.
        user: String,
        /// What was tried.
        action: String,
        /// Which right it needs.
        cap: String,
    },
    /// The pool is another database's.
    #[error(
        "the pool `{pool}` belongs to the database {owner}, and this one is {own}: its images would be set aside. Give this one a pool of its own, or restore that database; if it is gone for good, give the pool away with: rados -p {pool} rm bmi_owner"
    )]
    Foreign {
        /// Which.
        pool: String,
        /// Whose.
        owner: String,
        /// Who asks.
        own: String,
    },
    /// The database does not say who it is.
    #[error("asking the database who it is for Ceph")]
    Records(#[from] RecordError),
    /// Ceph was there, and does not answer any more.
    #[error("{action}: Ceph does not answer in time ({reason})")]
    Silent {
        /// What was tried.
        action: String,
        /// How that shows.
        reason: String,
    },
    /// Something else went wrong.
    #[error("{action}: {reason}")]
    Failed {
        /// What was tried.
        action: String,
        /// Why it was not done.
        reason: String,
    },
    /// The directory for conversions.
    #[error("cannot make {path}")]
    Staging {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl PreflightError {
    pub(super) fn connect(source: RbdError) -> Self {
        let user = source.place.trim_start_matches("client.").to_owned();
        let hint = if source.is_timeout() {
            "no monitor answers; look at `mon_host` in the configuration file and at the monitors"
        } else if source.is_refused() {
            "the monitors do not know this user by this key; look at `ceph auth get` and the keyring"
        } else if source.is_absent() {
            "the configuration file, the keyring or the monitors' addresses are not there"
        } else {
            "see the reason"
        };
        Self::Connect { user, hint, source }
    }
}

/// `EPERM` and `EACCES`.
const REFUSED: [i32; 2] = [1, 13];
/// `ENOENT`.
const ENOENT: i32 = 2;

/// Tries everything once, leaves nothing, and gives the pool's default namespace.
pub(super) async fn check(
    cluster: &Cluster,
    pool: &str,
    import_namespace: Option<&str>,
) -> Result<Pool, PreflightError> {
    // It tells the age of what is made, should it be left.
    let start = Uuid::now_v7();
    let tries = Tries { cluster, pool };
    tries.monitors(start).await?;
    let root = cluster.pool(pool, "").await.map_err(|error| {
        if error.is_absent() {
            PreflightError::NoPool { pool: pool.to_owned() }
        } else {
            tries.of_rbd(&error)
        }
    })?;
    if let Some(namespace) = import_namespace {
        tries.import(&root, namespace).await?;
    }
    let name = preflight_space::named(start);
    let tried = match tries.images(&root, &name).await {
        // Who may not write anything more may still delete; the pool is looked at again at the next start.
        Err(Tried::Full) => {
            tracing::warn!(
                pool,
                "the pool is full: nothing new can be made, and rights to do so were not tried"
            );
            Ok(())
        }
        Err(Tried::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    // Whatever came of it, nothing is left, or a later start removes it.
    let space = cluster.pool(pool, &name).await.map_err(|error| tries.of_rbd(&error))?;
    let removed = preflight_space::removed(&root, &space, || Box::new(|_, _| true)).await;
    match (tried, removed) {
        (Ok(()), Ok(())) => Ok(root),
        (Ok(()), Err(error)) => Err(tries.of_rbd(&error)),
        (Err(failed), removed) => {
            if let Err(error) = removed {
                preflight_space::told(&space, &error);
            }
            Err(failed)
        }
    }
}

/// Why images could not be tried.
enum Tried {
    Full,
    Failed(PreflightError),
}

struct Tries<'a> {
    cluster: &'a Cluster,
    pool: &'a str,
}

impl Tries<'_> {
    fn cap(&self, action: String, cap: String) -> PreflightError {
        PreflightError::Cap { user: self.cluster.user().to_owned(), action, cap }
    }

    fn of_rbd(&self, error: &RbdError) -> PreflightError {
        if error.is_refused() {
            return self.cap(error.to_string(), format!("osd 'profile rbd pool={}'", self.pool));
        }
        let (action, reason) = (error.to_string(), error.source.to_string());
        if error.is_timeout() {
            return PreflightError::Silent { action, reason };
        }
        PreflightError::Failed { action, reason }
    }

    async fn command(&self, command: Value) -> Result<Value, PreflightError> {
        let prefix = command.get("prefix").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.cluster.command(command).await.map_err(|error| match error {
            refused if REFUSED.contains(&refused.errno()) => {
                self.cap(format!("give the command `{prefix}`"), format!("mon 'allow command \"{prefix}\"'"))
            }
            CommandError::Refused { source, .. } if source.kind() == std::io::ErrorKind::TimedOut => {
                PreflightError::Silent {
                    action: format!("the command `{prefix}`"),
                    reason: source.to_string(),
                }
            }
            CommandError::Refused { reason, .. } => {
                PreflightError::Failed { action: format!("the command `{prefix}`"), reason }
            }
            other => PreflightError::Failed {
                action: format!("the command `{prefix}`"),
                reason: bmi_types::chain(&other),
            },
        })
    }

    async fn monitors(&self, start: Uuid) -> Result<(), PreflightError> {
        self.command(json!({"prefix": "df"})).await?;
        let pools = self.command(json!({"prefix": "osd pool ls", "detail": "detail"})).await?;
        let pools = pools.as_array().cloned().unwrap_or_default();
        let named = |pool: &&Value| pool.get("pool_name").and_then(Value::as_str) == Some(self.pool);
        let Some(found) = pools.iter().find(named) else {
            return Err(PreflightError::NoPool { pool: self.pool.to_owned() });
        };
        let for_rbd = found.get("application_metadata").and_then(|uses| uses.get("rbd")).is_some();
        if !for_rbd {
            return Err(PreflightError::NotForRbd { pool: self.pool.to_owned() });
        }
        // A user that may do nothing, and an address that nobody has: 192.0.2.0/24 is for documentation (RFC 5737).
        let entity = format!("client.{}-preflight-{start}", self.cluster.user());
        let nothing = format!("allow r pool={} namespace=none object_prefix rbd_nothing", self.pool);
        let caps = json!(["mon", caps::MON, "mgr", caps::MGR, "osd", nothing]);
        self.command(json!({"prefix": "auth get-or-create", "entity": entity, "caps": caps})).await?;
        let tried = async {
            self.command(json!({"prefix": "auth get", "entity": entity})).await?;
            self.command(json!({"prefix": "auth caps", "entity": entity, "caps": caps})).await?;
            Ok(())
        };
        let tried: Result<(), PreflightError> = tried.await;
        let removed = self.command(json!({"prefix": "auth rm", "entity": entity})).await;
        tried?;
        removed?;
        let address = "192.0.2.1:0/1";
        let list =
            |op: &str| json!({"prefix": "osd blocklist", "blocklistop": op, "addr": address, "expire": 60.0});
        self.command(list("add")).await?;
        match self
            .cluster
            .command(json!({"prefix": "osd blocklist", "blocklistop": "rm", "addr": address}))
            .await
        {
            Err(error) if error.errno() != ENOENT => {
                let refused = REFUSED.contains(&error.errno());
                let (action, cap) =
                    ("take a client off the blocklist", "mon 'allow command \"osd blocklist\"'");
                Err(if refused {
                    self.cap(action.to_owned(), cap.to_owned())
                } else {
                    PreflightError::Failed { action: action.to_owned(), reason: error.to_string() }
                })
            }
            _ => Ok(()),
        }
    }

    /// What is done in the namespace to import from, as far as that can be tried where there may be no image: nothing in it is
    /// changed.
    async fn import(&self, root: &Pool, namespace: &str) -> Result<(), PreflightError> {
        let namespaces = root.namespaces().await.map_err(|error| self.of_rbd(&error))?;
        if !namespaces.iter().any(|known| known == namespace) {
            let (pool, namespace) = (self.pool.to_owned(), namespace.to_owned());
            return Err(PreflightError::NoImportNamespace { pool, namespace });
        }
        let fault = |error: RbdError| {
            if error.is_refused() {
                let cap = format!("osd 'profile rbd-read-only pool={} namespace={namespace}'", self.pool);
                return self.cap(error.to_string(), cap);
            }
            self.of_rbd(&error)
        };
        let space = self.cluster.pool(self.pool, namespace).await.map_err(fault)?;
        space.images().await.map_err(fault)?;
        // Of no image, but who may not ask learns that first.
        match space.header(&format!("bmi-preflight-{}", Uuid::new_v4())).await {
            Err(error) if !error.is_absent() => Err(fault(error)),
            _ => Ok(()),
        }
    }

    /// What is done with images, in a namespace of its own.
    async fn images(&self, root: &Pool, name: &str) -> Result<(), Tried> {
        let fault = |error: RbdError| match error.is_full() {
            true => Tried::Full,
            false => Tried::Failed(self.of_rbd(&error)),
        };
        root.namespace_create(name).await.map_err(fault)?;
        let space = self.cluster.pool(self.pool, name).await.map_err(fault)?;
        space.image_create(IMAGE, 1 << 20).await.map_err(fault)?;
        let image = space.image_open(IMAGE, Access::ReadWrite).await.map_err(fault)?;
        image.write(0, vec![1; 512].into()).await.map_err(fault)?;
        image.snapshot_create("golden").await.map_err(fault)?;
        image.watchers().await.map_err(fault)?;
        space.lock_owners(&image.id().await.map_err(fault)?).await.map_err(fault)?;
        image.close().await.map_err(fault)?;
        space.image_clone(&space, IMAGE, "golden", CLONE).await.map_err(fault)
    }
}
