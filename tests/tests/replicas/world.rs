//! Two replicas, and what can be known of what they did.

use std::collections::BTreeSet;

use bmi_tests::{Api, Deployment, Postgres, Replica, STORE_SMALL, processes, tree};
use serde_json::{Value, json};

/// Where images and instances are made.
pub(crate) const IMAGES: &str = "/v1/projects/lab/images";
pub(crate) const INSTANCES: &str = "/v1/projects/lab/instances";

/// Two replicas. The first is the deployment's own, which the agent is connected to. (Fields are dropped in this order.)
pub(crate) struct Pair {
    pub(crate) second: Replica,
    pub(crate) first: Deployment,
}

impl Pair {
    /// Starts both on an empty database, with a project `lab`.
    pub(crate) fn start() -> Self {
        Self::start_on(Postgres::shared())
    }

    /// Starts both on an empty database of a server.
    pub(crate) fn start_on(server: &Postgres) -> Self {
        let first = Deployment::start_on(STORE_SMALL, Some(server.database()));
        first.api.project("lab");
        let mut second = first.replica("second");
        second.start();
        Self { second, first }
    }

    /// The API of each.
    pub(crate) fn apis(&self) -> [&Api; 2] {
        [&self.first.api, &self.second.api]
    }

    /// Makes nodes, the agent's network, and an image to provision them from.
    pub(crate) fn fill(&mut self, nodes: usize) {
        self.first.agent_start();
        self.first.api.image("lab", "golden");
        nodes_make(&self.first.api, nodes);
    }

    /// Lines of what a query answers.
    pub(crate) fn rows(&self, query: &str) -> Vec<String> {
        let url = self.first.database.as_ref().unwrap();
        Postgres::sql(url, query).lines().map(str::to_owned).collect()
    }

    /// The operations that each has finished, by its log.
    pub(crate) fn finished(&self) -> [BTreeSet<String>; 2] {
        [self.first.control_plane_log(), self.second.log()].map(|log| {
            let lines = log.lines().filter(|line| line.contains("operation finished"));
            let id = |line: &str| line.split_once("operation.id=")?.1.split(' ').next().map(str::to_owned);
            lines.filter_map(id).collect()
        })
    }

    /// Nothing was done twice: every operation ended once, each of its steps was done once, and none began while it was
    /// at work already. Gives how many operations there are.
    pub(crate) fn assert_each_done_once(&self) -> usize {
        let twice = self.rows(
            "WITH entries AS (
                 SELECT operation_id, entry::json->>'entry' AS entry, entry::json->>'step' AS step FROM journal
             ), counted AS (
                 SELECT operation_id, step,
                     count(*) FILTER (WHERE entry = 'step_started') AS started,
                     count(*) FILTER (WHERE entry = 'step_failed') AS failed,
                     count(*) FILTER (WHERE entry = 'step_done') AS done,
                     count(*) FILTER (WHERE entry = 'finished') AS finished
                 FROM entries GROUP BY operation_id, step
             )
             SELECT * FROM counted
             WHERE CASE WHEN step IS NULL THEN finished <> 1 ELSE done <> 1 OR started <> done + failed END",
        );
        assert!(twice.is_empty(), "operation, step, started, failed, done, finished: {twice:#?}");
        self.assert_ends_are_audited_once()
    }

    /// The audit log tells of the end of each operation, once. Gives how many operations there are.
    pub(crate) fn assert_ends_are_audited_once(&self) -> usize {
        let ended = self.rows("SELECT id FROM operations WHERE state = 'succeeded' ORDER BY id");
        let lines = self.first.api.list("/v1/audit");
        let ends = lines.iter().filter(|line| line["action"].as_str().unwrap().starts_with("operation:"));
        let mut told: Vec<String> = ends
            .map(|line| {
                assert_eq!(line["outcome"], "done", "{line}");
                line["detail"].as_str().unwrap().strip_prefix("operation ").unwrap().to_owned()
            })
            .collect();
        told.sort();
        assert_eq!(told, ended);
        assert_eq!(self.rows("SELECT count(*) FROM operations"), [ended.len().to_string()]);
        ended.len()
    }

    /// The store has exactly so many images and volumes, whole, and so many targets run; nothing was set aside.
    pub(crate) fn assert_there(&self, images: usize, instances: usize) {
        let store = tree(&self.first.store());
        let files = |folder: &str| {
            let below = store.keys().filter(|name| name.starts_with(folder));
            below.filter(|name| name.contains('.')).cloned().collect::<Vec<String>>()
        };
        let whole = |files: &[String]| files.iter().all(|name| name.ends_with(".raw"));
        let (images_there, volumes) = (files("images/"), files("volumes/"));
        assert!(images_there.len() == images && whole(&images_there), "{images} images: {images_there:#?}");
        assert!(volumes.len() == 2 * instances && whole(&volumes), "{instances} instances: {volumes:#?}");
        assert_eq!(files("aside/"), [""; 0]);
        assert_eq!(self.targets(), instances);
    }

    /// How many targets run.
    pub(crate) fn targets(&self) -> usize {
        let uids = self.first.uid_base..self.first.uid_base + 100;
        let own = processes().into_iter().filter(|one| uids.contains(&one.uid));
        let program = |command: &str| command.split(' ').next()?.rsplit('/').next().map(str::to_owned);
        own.filter(|one| program(&one.command).as_deref() == Some("bmi-target")).count()
    }
}

/// Registers nodes of `lab`: `node-0`, `node-1`, …
pub(crate) fn nodes_make(api: &Api, nodes: usize) {
    for node in 0..nodes {
        api.node_of(&format!("node-{node}"), &format!("52:54:00:5a:00:{node:02x}"), "lab");
    }
}

/// What is asked for an instance of a node.
pub(crate) fn instance(name: &str, node: usize) -> Value {
    json!({"name": name, "node": format!("node-{node}"), "image": "golden", "network": "provisioning"})
}

/// What is asked for an image.
pub(crate) fn import(name: &str) -> Value {
    json!({"name": name, "import_file": "small.raw"})
}
