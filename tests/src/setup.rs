//! The resources that most tests need, made through the API.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::deployment::Deployment;
use crate::host::until;
use crate::random::Random;

/// How long an operation may take: sealing reads 8 GiB on a loaded machine.
const OPERATION: Duration = Duration::from_secs(240);
/// Size of the small image.
pub const SMALL_IMAGE: usize = 1 << 20;

/// A disk image that boots nothing: every import directory has it as `small.raw`.
pub(crate) fn small_image() -> Vec<u8> {
    (0..SMALL_IMAGE).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

impl Deployment {
    /// Puts a disk image of 16 MiB of noise into the import directory, as `noise.raw`; gives its path.
    pub fn noise(&self) -> PathBuf {
        let mut random = Random::of_the_run();
        let noise: Vec<u8> = (0..2 << 20).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
        let path = self.data.join("images/noise.raw");
        std::fs::write(&path, noise).unwrap();
        path
    }
}

/// Waits until an operation has ended, and gives it.
#[must_use]
pub fn operation_end(api: &Api, operation: &Value) -> Value {
    let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
    until("the operation ends", OPERATION, || {
        let now = api.get(&path).expect(200);
        matches!(now["state"].as_str(), Some("succeeded" | "failed")).then_some(now)
    })
}

impl Api {
    /// Creates a project.
    pub fn project(&self, name: &str) -> Value {
        self.post("/v1/projects", &json!({"name": name})).expect(201)
    }

    /// Creates a network.
    pub fn network(&self, name: &str, cidr: &str) -> Value {
        self.post("/v1/networks", &json!({"name": name, "cidr": cidr})).expect(201)
    }

    /// Registers a node with one NIC.
    pub fn node(&self, name: &str, mac: &str) -> Value {
        self.post("/v1/nodes", &json!({"name": name, "nics": [{"mac": mac}]})).expect(201)
    }

    /// Registers a node and assigns it to a project.
    pub fn node_of(&self, name: &str, mac: &str, project: &str) -> Value {
        self.node(name, mac);
        self.post(&format!("/v1/nodes/{name}/assign"), &json!({"project": project})).expect(200)
    }

    /// Imports the small image into a project and waits until it is sealed.
    pub fn image(&self, project: &str, name: &str) -> Value {
        self.image_of(project, name, "small.raw")
    }

    /// Imports a file of the import directory.
    pub fn image_of(&self, project: &str, name: &str, file: &str) -> Value {
        let images = format!("/v1/projects/{project}/images");
        let operation = self.post(&images, &json!({"name": name, "import_file": file})).expect(202);
        let ended = operation_end(self, &operation);
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        self.get(&format!("{images}/{name}")).expect(200)
    }

    /// Provisions an instance on the network `provisioning`, and waits until it is ready.
    pub fn instance(&self, project: &str, name: &str, image: &str, user_data: &Value) -> Value {
        let instances = format!("/v1/projects/{project}/instances");
        let mut body = json!({"name": name, "node": name, "image": image, "network": "provisioning"});
        let more = user_data.as_object().cloned().unwrap_or_default();
        body.as_object_mut().unwrap().extend(more);
        let ended = operation_end(self, &self.post(&instances, &body).expect(202));
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        self.get(&format!("{instances}/{name}")).expect(200)
    }

    /// Deprovisions an instance and waits until it is gone.
    pub fn instance_remove(&self, project: &str, name: &str) -> Value {
        let operation = self.delete(&format!("/v1/projects/{project}/instances/{name}")).expect(202);
        let ended = operation_end(self, &operation);
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        ended
    }

    /// Every item of a list.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=500{cursor}")).expect(200);
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// Everything there is: every list of every noun. What changes by itself (when an agent was last seen) is left out.
    #[must_use]
    pub fn everything(&self) -> Value {
        let mut all = serde_json::Map::new();
        for noun in ["projects", "networks", "nodes", "operations", "agents", "join-tokens"] {
            all.insert(noun.to_owned(), self.list(&format!("/v1/{noun}")).into());
        }
        for network in all["networks"].as_array_mut().unwrap() {
            if let Some(agent) = network["agent"].as_object_mut() {
                agent.remove("last_seen");
            }
        }
        for project in self.list("/v1/projects") {
            let id = project["id"].as_str().unwrap();
            for noun in ["images", "instances"] {
                let path = format!("/v1/projects/{id}/{noun}");
                all.insert(path.clone(), self.list(&path).into());
            }
        }
        Value::Object(all)
    }
}
