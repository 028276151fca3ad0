//! One whole deployment without a process of its own: a real database, a simulated store, wires, power and agent.
//!
//! What there is can be written down as [`Facts`], so that two moments can be compared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bmi_api::{NewImage, NewImageImport, NewNetwork, NewNode, NewProject, Nic, Operation, UserData};
use bmi_api::{OperationState, Power};
use bmi_auth::Subject;
use bmi_auth::oidc::Providers;
use bmi_auth::{Caller, MasterKey};
use bmi_control_plane::app::authentication::{Authentication, SessionLimits, Throttle, ThrottleLimits};
use bmi_control_plane::app::policies::Policies;
use bmi_control_plane::app::{self, App, Wake};
use bmi_control_plane::workflows::{self, Context};
use bmi_db::journal::DbJournal;
use bmi_db::{After, ConfiguredBinding, Db, DbError, DbInventory};
use bmi_drivers::isolation::NetworkIsolation;
use bmi_drivers::power::{Manual, PowerDriver};
use bmi_drivers::store::{ImportDir, SimulatedStore};
use bmi_types::{
    Architecture, ByteSize, DhcpMode, ImageFormat, ImageId, InstanceId, Name, NetworkId, NodeId, Segment,
    Timestamp,
};
use bmi_workflow::{Engine, Ran};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::agent;
use crate::simulated::{Hardware, Switches, Wires};

pub const PROJECT: &str = "research";
pub const NETWORK: &str = "lab";
/// Where people sign in; nobody does here.
const PROVIDER: &str = "name = 'corp'\nissuer = 'https://id.example.org'\nclient_id = 'bmi'";
/// Rounds of [`World::settle`]: a bound on an operation that does not end.
const ROUNDS_MAX: usize = 200;

/// What there is, one line for each thing.
pub type Facts = BTreeSet<String>;

/// A deployment.
pub struct World {
    pub app: Arc<App>,
    pub store: Arc<SimulatedStore>,
    pub hardware: Arc<Hardware>,
    pub network: NetworkId,
    agent: JoinHandle<()>,
    clock: Arc<AtomicI64>,
    directory: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn admin() -> Caller {
    Caller::local_admin()
}

/// A qcow2 file of an empty disk of 1 MiB: header, first table, table of reference counts.
fn qcow2() -> Vec<u8> {
    let mut bytes = b"QFI\xfb".to_vec();
    let mut numbers = |numbers: &[u32]| bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    // Version, no backing file, clusters of 2^16 bytes, size of the disk, no encryption, one entry in the first table.
    numbers(&[2, 0, 0, 0, 16, 0, 1 << 20, 0, 1]);
    // Where the first table is, and that of reference counts.
    numbers(&[0, 1 << 16, 0, 2 << 16, 1]);
    bytes.resize(3 << 16, 0);
    bytes
}

const EVERYTHING: After = After { id: uuid::Uuid::nil(), limit: 100 };

impl World {
    /// A deployment with a project, a network and its agent. In memory where that is possible: hundreds are made.
    pub async fn new() -> Self {
        Self::waiting(Duration::from_secs(5)).await
    }

    /// The same, where a step waits only so long for the agent.
    pub async fn waiting(agent_wait: Duration) -> Self {
        Self::with(agent_wait, |_, hardware| {
            (Arc::new(Wires(Arc::clone(hardware))), Arc::new(Switches(Arc::clone(hardware))))
        })
        .await
    }

    /// The same, where an isolator is the production's own, and a person is the power driver.
    pub async fn isolated(make: impl FnOnce(Arc<DbInventory>) -> Arc<dyn NetworkIsolation>) -> Self {
        let manual = |db: &Db, _: &Arc<Hardware>| -> (Arc<dyn NetworkIsolation>, Arc<dyn PowerDriver>) {
            (make(Arc::new(DbInventory(db.clone()))), Arc::new(Manual))
        };
        Self::with(Duration::from_secs(5), manual).await
    }

    async fn with(
        agent_wait: Duration,
        drivers: impl FnOnce(&Db, &Arc<Hardware>) -> (Arc<dyn NetworkIsolation>, Arc<dyn PowerDriver>),
    ) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = |file: &str| directory.path().join(file);
        std::fs::create_dir(path("import")).unwrap();
        std::fs::write(path("import/disk.raw"), vec![7; 1 << 20]).unwrap();
        std::fs::write(path("import/disk.qcow2"), qcow2()).unwrap();
        let (store, hardware) = (Arc::new(SimulatedStore::new()), Arc::new(Hardware::default()));
        let db = Db::open(path("bmi.sqlite").to_str().unwrap()).unwrap();
        let (isolation, power) = drivers(&db, &hardware);
        let local_admin = ConfiguredBinding {
            subject: Subject::local_admin(),
            role: "platform-admin".to_owned(),
            project: None,
        };
        let app = Arc::new(App {
            policies: Policies::load(db.clone(), vec![local_admin]).await.unwrap(),
            audit: bmi_control_plane::app::audit::Chain::new(
                bmi_auth::AuditKey::load_or_create(&path("audit.key")).unwrap(),
                path("audit.head"),
                None,
            ),
            rate_limit: bmi_control_plane::app::rate_limit::RateLimit::new(
                bmi_control_plane::app::rate_limit::RateLimits::default(),
            ),
            quota_defaults: bmi_control_plane::app::quota::Defaults::default(),
            db,
            store: store.clone(),
            isolation,
            power,
            master_key: MasterKey::load_or_create(&path("master.key")).unwrap(),
            authentication: Authentication {
                local_admin: None,
                providers: Providers::new(vec![toml::from_str(PROVIDER).unwrap()]).unwrap(),
                public_url: None,
                sessions: SessionLimits::default(),
                service_token_max_days: 365,
                throttle: Throttle::new(ThrottleLimits::default()),
            },
            import_dir: Some(ImportDir::new(path("import"))),
            agent_wait,
            enrolling: None,
            boot_limits: app::BootLimits::default(),
            metrics: bmi_control_plane::app::metrics::Metrics::default(),
            wake: Wake::default(),
        });
        let project = NewProject { name: name(PROJECT), description: String::new() };
        app::project::project_create(&app, &admin(), project).await.unwrap();
        let network = NewNetwork {
            name: name(NETWORK),
            cidr: "10.9.0.0/24".parse().unwrap(),
            netboot_address: None,
            target_range: None,
            node_range: None,
            discovery_range: None,
            dhcp: DhcpMode::Authoritative,
            relays: Vec::new(),
            segment: Segment::None,
            projects: None,
        };
        let network = app::network::network_create(&app, &admin(), network).await.unwrap().id;
        let agent = agent::start(Arc::clone(&app), name(NETWORK), Arc::clone(&hardware));
        let clock = Arc::new(AtomicI64::new(Timestamp::now().plus(Duration::from_secs(1)).micros()));
        Self { app, store, hardware, network, agent, clock, directory }
    }

    pub fn agent_dies(&self) {
        self.agent.abort();
    }

    pub fn agent_returns(&mut self) {
        self.agent = agent::start(Arc::clone(&self.app), name(NETWORK), Arc::clone(&self.hardware));
    }

    /// Removes every file that could be imported.
    pub fn import_dir_empty(&self) {
        let directory = self.directory.path().join("import");
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::create_dir(directory).unwrap();
    }

    /// A node of the project.
    pub async fn node(&self, number: u8) -> NodeId {
        let new = NewNode {
            name: name(&format!("node-{number}")),
            nics: vec![Nic { mac: format!("52:54:00:00:00:{number:02x}").parse().unwrap() }],
            architecture: Architecture::X86_64,
            power: Power::Manual,
        };
        let node = app::node::node_create(&self.app, &admin(), new).await.unwrap().id;
        let assigned =
            app::node::node_assign(&self.app, &admin(), node.to_string(), PROJECT.to_owned(), None).await;
        assigned.unwrap().id
    }

    /// Asks for a golden image.
    pub async fn import(&self, image: &str) -> Operation {
        self.import_file(image, "disk.raw", ImageFormat::Raw).await
    }

    /// Asks for a golden image of a file that is converted.
    pub async fn import_qcow2(&self, image: &str) -> Operation {
        self.import_file(image, "disk.qcow2", ImageFormat::Qcow2).await
    }

    async fn import_file(&self, image: &str, file: &str, format: ImageFormat) -> Operation {
        let new = NewImageImport { name: name(image), file: file.to_owned(), format };
        app::image::image_import(&self.app, &admin(), PROJECT.to_owned(), new).await.unwrap()
    }

    /// An open image whose bytes are all there.
    pub async fn uploaded(&self, image: &str) -> ImageId {
        self.uploaded_as(image, ImageFormat::Raw, None).await
    }

    /// The same, of a file that is converted.
    pub async fn uploaded_qcow2(&self, image: &str) -> ImageId {
        self.uploaded_as(image, ImageFormat::Qcow2, Some(ByteSize::new(1 << 20))).await
    }

    async fn uploaded_as(&self, image: &str, format: ImageFormat, file_size: Option<ByteSize>) -> ImageId {
        let new = NewImage { name: name(image), virtual_size: ByteSize::new(1 << 20), format, file_size };
        let made = app::image::image_create(&self.app, &admin(), PROJECT.to_owned(), new).await.unwrap();
        let (admin, project) = (admin(), PROJECT.to_owned());
        let begun = app::upload::upload_begin(&self.app, &admin, project, image.to_owned(), 0);
        let mut uploading = begun.await.unwrap();
        uploading.write(&self.app, vec![7; 1 << 20].into()).await.unwrap();
        uploading.end().await.unwrap();
        made.id
    }

    /// Asks for an instance called as its node, of the image `golden`.
    pub async fn provision(&self, number: u8) -> Operation {
        let draft = app::instance::Draft {
            name: Some(name(&format!("instance-{number}"))),
            node: Some(format!("node-{number}")),
            image: Some("golden".to_owned()),
            network: Some(NETWORK.to_owned()),
            user_data: UserData { ssh_keys: Vec::new(), user_data: Some("#cloud-config\n".to_owned()) },
            faults: Vec::new(),
        };
        app::instance::instance_provision(&self.app, &admin(), PROJECT.to_owned(), draft).await.unwrap()
    }

    /// Asks for its end.
    pub async fn deprovision(&self, number: u8) -> Operation {
        let instance = format!("instance-{number}");
        app::instance::instance_deprovision(&self.app, &admin(), PROJECT.to_owned(), instance, None)
            .await
            .unwrap()
    }

    pub async fn operation(&self, operation: &Operation) -> Operation {
        app::operation::operation_show(&self.app, &admin(), operation.id.to_string()).await.unwrap()
    }

    /// Runs the engine, as the server does, until nothing is due or `until` holds; the clock jumps over pauses.
    async fn run_until(&self, operation: &Operation, until: impl Fn(OperationState) -> bool) -> Operation {
        let (app, clock) = (Arc::clone(&self.app), Arc::clone(&self.clock));
        let engine = Engine::new(
            Arc::new(DbJournal::new(self.app.db.clone())),
            workflows::all(),
            "world",
            move |claim| Context::new(Arc::clone(&app), claim.operation),
            move || Timestamp::from_micros(clock.fetch_add(1, Ordering::Relaxed)),
        );
        for _ in 0..ROUNDS_MAX {
            let now = self.operation(operation).await;
            if until(now.state) {
                return now;
            }
            if engine.run_once().await.unwrap() == Ran::Idle {
                self.clock.fetch_add(1_000_000, Ordering::Relaxed);
            }
        }
        panic!("{:?} is not where it should be", self.operation(operation).await);
    }

    /// Runs the engine until an operation is finished.
    pub async fn settle(&self, operation: &Operation) -> Operation {
        self.run_until(operation, OperationState::is_final).await
    }

    /// Runs the engine until an operation is stuck.
    pub async fn get_stuck(&self, operation: &Operation) -> Operation {
        self.run_until(operation, |state| state == OperationState::Stuck).await
    }

    /// The same, where it must succeed.
    pub async fn succeed(&self, operation: &Operation) {
        let ended = self.settle(operation).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{:?}", ended.error);
    }

    /// Everything there is: rows, volumes and images, wires, power, targets.
    pub async fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let project = || PROJECT.to_owned();
        for node in app::node::node_list(&self.app, &admin(), None, EVERYTHING).await.unwrap() {
            facts.insert(format!("node {} is {}", node.id, node.state));
        }
        for image in app::image::image_list(&self.app, &admin(), project(), EVERYTHING).await.unwrap() {
            facts.insert(format!("image {} is {}", image.id, image.state));
        }
        for instance in
            app::instance::instance_list(&self.app, &admin(), project(), EVERYTHING).await.unwrap()
        {
            facts.insert(format!("instance {} is {}", instance.id, instance.state));
            facts.insert(format!("the target of {} is {}", instance.id, instance.target_state));
        }
        let network = self.network;
        let addresses = self.app.db.system_read(move |tx| bmi_db::instance::addresses(tx, network));
        for address in addresses.await.unwrap_or_else(|error: DbError| panic!("{error}")) {
            facts.insert(format!("address {address} is taken"));
        }
        facts.extend(self.store.volumes().iter().map(|place| format!("volume {place} exists")));
        facts.extend(
            self.store.images().iter().map(|place| format!("content of image {} exists", place.volume)),
        );
        facts.extend(
            self.store.uploads().iter().map(|place| format!("the upload of image {} is there", place.volume)),
        );
        let hardware = self.hardware.look();
        facts.extend(
            hardware.attached.iter().map(|(node, network)| format!("node {node} is on network {network}")),
        );
        facts.extend(hardware.on.iter().map(|node| format!("node {node} is powered")));
        facts.extend(hardware.targets.iter().map(|id| format!("the agent keeps a target of {id}")));
        facts.extend(hardware.violations);
        facts
    }

    /// What is added to the world by an instance on a node.
    pub async fn facts_of_instance(&self, id: InstanceId, node: NodeId) -> Facts {
        let found = self.app.db.system_read(move |tx| bmi_db::instance::by_id(tx, id)).await;
        let found: Option<bmi_db::instance::Record> =
            found.unwrap_or_else(|error: DbError| panic!("{error}"));
        let found = found.unwrap();
        let (instance, project) = (&found.instance, found.instance.project);
        Facts::from([
            format!("node {node} is in-use"),
            format!("instance {id} is ready"),
            format!("the target of {id} is listening"),
            format!("address {} is taken", instance.node_address.unwrap()),
            format!("address {} is taken", instance.target_address),
            format!("volume {project}/{} exists", found.boot_volume),
            format!("volume {project}/{} exists", found.config_volume),
            format!("node {node} is on network {}", self.network),
            format!("node {node} is powered"),
            format!("the agent keeps a target of {id}"),
        ])
    }
}

/// How the world differs from what it should be.
pub fn differences(expected: &Facts, found: &Facts) -> Vec<String> {
    let missing = expected.difference(found).map(|fact| format!("not so: {fact}"));
    let surplus = found.difference(expected).map(|fact| format!("left over: {fact}"));
    missing.chain(surplus).collect()
}
