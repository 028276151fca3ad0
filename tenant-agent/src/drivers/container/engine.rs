//! The engine: Docker or Podman, by Docker's API on a unix socket. The only place that knows the API.
//!
//! Whoever can talk to an engine is root on its host: only the root helper does, and no tenant's text gets here but as a
//! process's id. Deliberately absent: registries, networks, volumes and restart policies of the engine.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ImportImageOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker, body_full};
use futures::{Stream, StreamExt};

use crate::config::ImageDigest;

/// The oldest API that has all that is asked for: Docker 20.10, Podman 3.
const API_OLDEST: (usize, usize) = (1, 41);

/// How long an engine may take for one answer, in seconds.
const ANSWER_SECONDS: u64 = 60;

/// How often a container is removed that the engine cannot end, and the pause in between.
const REMOVE_TRIES: u32 = 4;
const REMOVE_PAUSE: Duration = Duration::from_millis(250);

/// The largest image: one static program.
const IMAGE_LARGEST: u64 = 512 * 1024 * 1024;

/// What an engine did not do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It is not there.
    #[error("the container engine at {socket} does not answer: is it running?")]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
    /// It was asked and says nothing.
    #[error("the container engine at {socket} does not answer, although it listens: is it hung?")]
    Silent {
        /// Where.
        socket: PathBuf,
    },
    /// It cannot do what is needed.
    #[error(
        "the container engine at {socket} speaks version {}.{} of the API: {}.{} is needed (Docker 20.10, Podman 3)",
        found.0, found.1, API_OLDEST.0, API_OLDEST.1
    )]
    Old {
        /// Where.
        socket: PathBuf,
        /// What it speaks.
        found: (usize, usize),
    },
    /// It said no.
    #[error("{doing}")]
    Refused {
        /// What it was asked for.
        doing: &'static str,
        /// What it said.
        #[source]
        source: Error,
    },
    /// It has not the image, and there is no file to load it from.
    #[error(
        "the engine has no image {digest}, and image_dir does not say where it is: run infra/containers/build and load it"
    )]
    NoImage {
        /// Which.
        digest: ImageDigest,
    },
    /// The file is another image.
    #[error("{path} is not the image {digest} that the configuration names")]
    OtherImage {
        /// The file.
        path: PathBuf,
        /// Which it should be.
        digest: ImageDigest,
    },
    /// The file.
    #[error("reading the image {path}")]
    ImageFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// What it returned; above 128 the number of a signal and 128.
    pub code: i64,
    /// Whether it wanted more memory than it may have.
    pub memory: bool,
}

/// A container of ours, as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The engine's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

/// What an engine calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its version.
    pub number: String,
}

impl Version {
    /// Whether it reads a filter from a file of its host, where Docker has it in the request itself.
    #[must_use]
    pub fn reads_filters_from_files(&self) -> bool {
        self.name.contains("Podman")
    }
}

/// What an engine can do on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// It filters system calls.
    pub seccomp: bool,
    /// It limits memory, processes and processor time.
    pub limits: bool,
    /// Its containers go on without it.
    pub survives: bool,
}

/// One engine. Connected to when it is needed: it may start after the agent, and again at any time.
pub struct Engine {
    socket: PathBuf,
    connected: RefCell<Option<Docker>>,
    /// What it said of itself since it was connected to.
    version: RefCell<Option<Version>>,
    /// Had while it is asked who it is. Podman asks its package manager for that: two hundred readers of logs that each asked, as
    /// when an agent starts, kept it busy for minutes.
    asking: tokio::sync::Mutex<()>,
    /// Images that it has, as far as is known. One at a time looks for one or loads it: the others find it here.
    images: tokio::sync::Mutex<HashSet<String>>,
}

fn is_absent(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Whether there is a container of that name already.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 409, .. })
}

impl Engine {
    /// An engine by its socket. Nothing is asked yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        let (connected, version) = (RefCell::default(), RefCell::default());
        let (asking, images) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        Self { socket, connected, version, asking, images }
    }

    /// Connects, or has been.
    async fn docker(&self) -> Result<Docker, EngineError> {
        if let Some(docker) = self.connected.borrow().clone() {
            return Ok(docker);
        }
        let _asking = self.asking.lock().await;
        // Whoever waited finds what the one before has done.
        if let Some(docker) = self.connected.borrow().clone() {
            return Ok(docker);
        }
        let unreachable = |source| EngineError::Unreachable { socket: self.socket.clone(), source };
        let path = self.socket.to_string_lossy();
        let docker =
            Docker::connect_with_unix(&path, ANSWER_SECONDS, API_DEFAULT_VERSION).map_err(unreachable)?;
        let docker = docker.negotiate_version().await.map_err(unreachable)?;
        let version = docker.client_version();
        let found = (version.major_version, version.minor_version);
        if found < API_OLDEST {
            return Err(EngineError::Old { socket: self.socket.clone(), found });
        }
        *self.connected.borrow_mut() = Some(docker.clone());
        Ok(docker)
    }

    /// A refusal, or that it has gone: then it is connected to again the next time.
    fn fault(&self, doing: &'static str, source: Error) -> EngineError {
        if matches!(source, Error::DockerResponseServerError { .. }) {
            return EngineError::Refused { doing, source };
        }
        *self.connected.borrow_mut() = None;
        *self.version.borrow_mut() = None;
        EngineError::Unreachable { socket: self.socket.clone(), source }
    }

    /// That it was waited for long enough. It is connected to again the next time.
    pub fn silent(&self) -> EngineError {
        *self.connected.borrow_mut() = None;
        *self.version.borrow_mut() = None;
        EngineError::Silent { socket: self.socket.clone() }
    }

    /// Whether it answers and can do what is needed, and what it calls itself.
    ///
    /// # Errors
    /// When it does not or cannot.
    pub async fn version(&self) -> Result<Version, EngineError> {
        if let Some(version) = self.version.borrow().clone() {
            return Ok(version);
        }
        let docker = self.docker().await?;
        let _asking = self.asking.lock().await;
        if let Some(version) = self.version.borrow().clone() {
            return Ok(version);
        }
        let version = docker.version().await.map_err(|it| self.fault("asking its version", it))?;
        let names = version.components.unwrap_or_default().into_iter().map(|it| it.name);
        let version = Version {
            name: names.into_iter().next().unwrap_or_default(),
            number: version.version.unwrap_or_default(),
        };
        *self.version.borrow_mut() = Some(version.clone());
        Ok(version)
    }

    /// What it can do.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn abilities(&self) -> Result<Abilities, EngineError> {
        let is_podman = self.version().await?.reads_filters_from_files();
        let info = self.docker().await?.info().await.map_err(|it| self.fault("asking what it can do", it))?;
        let options = info.security_options.unwrap_or_default();
        let has = |what: Option<bool>| what.unwrap_or_default();
        Ok(Abilities {
            seccomp: options.iter().any(|option| option.contains("seccomp")),
            limits: has(info.memory_limit) && has(info.pids_limit) && has(info.cpu_cfs_quota),
            // Podman has no daemon that they could end with.
            survives: is_podman || has(info.live_restore_enabled),
        })
    }

    /// Makes sure that it has an image: the one with this digest and no other. It is not looked for again while nobody says
    /// that it is gone ([`Engine::image_forget`]).
    ///
    /// # Errors
    /// When it has not, and there is no file of it.
    pub async fn image_ensure(
        &self,
        digest: &ImageDigest,
        directory: Option<&Path>,
        name: &str,
    ) -> Result<(), EngineError> {
        let mut known = self.images.lock().await;
        if known.contains(&digest.to_string()) {
            return Ok(());
        }
        if !self.has_image(digest).await? {
            self.image_load(digest, directory, name).await?;
        }
        known.insert(digest.to_string());
        Ok(())
    }

    /// Has an image looked for again when it is needed the next time.
    pub async fn image_forget(&self, digest: &ImageDigest) {
        self.images.lock().await.remove(&digest.to_string());
    }

    async fn image_load(
        &self,
        digest: &ImageDigest,
        directory: Option<&Path>,
        name: &str,
    ) -> Result<(), EngineError> {
        let path = directory
            .map(|directory| directory.join(format!("{name}.tar")))
            .ok_or_else(|| EngineError::NoImage { digest: digest.clone() })?;
        let file = |source| EngineError::ImageFile { path: path.clone(), source };
        let length = tokio::fs::metadata(&path).await.map_err(file)?.len();
        if length > IMAGE_LARGEST {
            return Err(file(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
        }
        let content = tokio::fs::read(&path).await.map_err(file)?;
        let docker = self.docker().await?;
        let mut said = docker.import_image(
            ImportImageOptionsBuilder::default().build(),
            body_full(content.into()),
            None,
        );
        while let Some(said) = said.next().await {
            said.map_err(|error| self.fault("loading an image", error))?;
        }
        tracing::info!(image = %digest, path = %path.display(), "loaded");
        if self.has_image(digest).await? {
            Ok(())
        } else {
            Err(EngineError::OtherImage { path, digest: digest.clone() })
        }
    }

    /// Whether it has an image: the one with this digest and no other.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn has_image(&self, digest: &ImageDigest) -> Result<bool, EngineError> {
        let wanted = digest.to_string();
        match self.docker().await?.inspect_image(&wanted).await {
            // Podman leaves out what kind of digest it is.
            Ok(found) => {
                Ok(found.id.is_some_and(|id| id == wanted || Some(&*id) == wanted.strip_prefix("sha256:")))
            }
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(self.fault("looking for an image", error)),
        }
    }

    /// Makes and starts a container; one of that name that is there already is removed. Gives whether the image was there.
    ///
    /// # Errors
    /// When the engine refuses. What was made is left for [`Engine::remove`].
    pub async fn start(&self, name: &str, body: ContainerCreateBody) -> Result<bool, EngineError> {
        let docker = self.docker().await?;
        let options = || Some(CreateContainerOptionsBuilder::default().name(name).build());
        let mut made = docker.create_container(options(), body.clone()).await;
        if made.as_ref().is_err_and(is_conflict) {
            // What an engine kept of an earlier one.
            self.remove(name).await?;
            made = docker.create_container(options(), body).await;
        }
        match made {
            Ok(_) => {}
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => return Err(self.fault("making a container", error)),
        }
        let started = docker.start_container(name, None).await;
        started.map_err(|error| self.fault("starting a container", error))?;
        Ok(true)
    }

    /// The process id of a container's first process.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn process(&self, name: &str) -> Result<Option<i32>, EngineError> {
        let found = self.docker().await?.inspect_container(name, None).await;
        let state = match found {
            Ok(found) => found.state.unwrap_or_default(),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.fault("looking at a container", error)),
        };
        let runs = state.status == Some(ContainerStateStatusEnum::RUNNING);
        Ok(state.pid.filter(|pid| runs && *pid > 0).and_then(|pid| i32::try_from(pid).ok()))
    }

    /// The image that a container was made of.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn image_of(&self, name: &str) -> Result<Option<String>, EngineError> {
        match self.docker().await?.inspect_container(name, None).await {
            Ok(found) => Ok(found.image),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.fault("looking at a container", error)),
        }
    }

    /// How a container ended, as far as the engine knows.
    pub async fn ending(&self, name: &str) -> Option<Ending> {
        let found = self.docker().await.ok()?.inspect_container(name, None).await.ok()?;
        let state = found.state?;
        Some(Ending { code: state.exit_code?, memory: state.oom_killed.unwrap_or_default() })
    }

    /// Ends a container and removes all of it. One that is not there is as good.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let mut tries = 1..REMOVE_TRIES;
        loop {
            match self.docker().await?.remove_container(name, Some(options.clone())).await {
                // Podman cannot end what ends at that very moment.
                Err(Error::DockerResponseServerError { status_code: 500, .. }) if tries.next().is_some() => {
                    tokio::time::sleep(REMOVE_PAUSE).await;
                }
                Err(error) if !is_absent(&error) => return Err(self.fault("removing a container", error)),
                _ => return Ok(()),
            }
        }
    }

    /// Every container with a label of this value.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(&self, label: &str, value: &str) -> Result<Vec<Listed>, EngineError> {
        let filter = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let found = self.docker().await?.list_containers(Some(options)).await;
        let found = found.map_err(|error| self.fault("listing containers", error))?;
        let listed = found.into_iter().filter_map(|container| {
            let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            Some(Listed {
                id: container.id?,
                name: name.trim_start_matches('/').to_owned(),
                labels: container.labels.unwrap_or_default(),
            })
        });
        Ok(listed.collect())
    }

    /// What a container prints from a second on (of 1970), with times, until it ends.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn printed(
        &self,
        name: &str,
        since: i32,
    ) -> Result<impl Stream<Item = Result<LogOutput, Error>> + use<>, EngineError> {
        let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true);
        let docker = self.docker().await?;
        Ok(docker.logs(name, Some(options.timestamps(true).since(since).build())))
    }
}
