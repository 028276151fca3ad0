//! An agent as far as the control plane sees it: keys, requests for certificates, and what is said by mutual TLS.
//!
//! Deliberately absent: what an agent does with the answers. Here, every request is the test's.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::api::Api;
use crate::ceph::Ceph;
use crate::deployment::Deployment;
use crate::management::{ADDRESS, Management};

/// What the identities of a test begin with.
pub const TRUST_DOMAIN: &str = "bmi.test";
/// The longest that an answer may take on a loaded machine: longer than any poll.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key of an agent.
#[derive(Debug)]
pub struct AgentKey(KeyPair);

impl Default for AgentKey {
    fn default() -> Self {
        Self(KeyPair::generate().unwrap())
    }
}

impl AgentKey {
    /// A request for a certificate that asks for nothing.
    #[must_use]
    pub fn request(&self) -> String {
        self.request_for(&CertificateParams::default())
    }

    /// A request that asks for something.
    #[must_use]
    pub fn request_for(&self, asked: &CertificateParams) -> String {
        asked.serialize_request(&self.0).unwrap().pem().unwrap()
    }

    /// The key itself.
    #[must_use]
    pub const fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// The key in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }
}

/// What the control plane answered.
#[derive(Debug, Clone)]
pub struct Told {
    /// The status.
    pub status: u16,
    /// The body; null when it is none.
    pub body: Value,
    /// What it says of the authorities.
    pub authorities_mark: String,
    /// Whether the agent has the network.
    pub standing: String,
}

/// What came of a request: an answer, or how the connection failed.
pub type Said = Result<Told, String>;

impl Told {
    /// The body of an answer that must have this status.
    #[must_use]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The code of a problem that must have this status.
    #[must_use]
    pub fn code(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        self.body["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Somebody who talks to the agents' listener.
#[derive(Debug)]
pub struct Member {
    runtime: Runtime,
    client: reqwest::Client,
    base: String,
}

impl Member {
    /// Somebody without a certificate, who trusts some authorities.
    #[must_use]
    pub fn nobody(address: SocketAddr, authorities: &[String]) -> Self {
        Self::with(address, authorities, None).unwrap()
    }

    /// Somebody with a certificate, in PEM, and its key.
    #[must_use]
    pub fn of(address: SocketAddr, authorities: &[String], certificate: &str, key: &AgentKey) -> Self {
        Self::with(address, authorities, Some(format!("{certificate}\n{}", key.pem()))).unwrap()
    }

    /// Whoever an answer to `enrol` or `renew` says it is.
    #[must_use]
    pub fn identified(address: SocketAddr, identity: &Value, key: &AgentKey) -> Self {
        let authorities = strings(&identity["authorities"]);
        Self::of(address, &authorities, identity["certificate"].as_str().unwrap(), key)
    }

    fn with(address: SocketAddr, authorities: &[String], identity: Option<String>) -> reqwest::Result<Self> {
        let roots = authorities.iter().map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).unwrap());
        let mut builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only(roots);
        if let Some(pem) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes())?);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Ok(Self { runtime: runtime.unwrap(), client: builder.build()?, base: format!("https://{address}") })
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Said {
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
            let status = answer.status().as_u16();
            let header = |name: &str| {
                let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
                value.unwrap_or_default().to_owned()
            };
            let (authorities_mark, standing) = (header("bmi-authorities"), header("bmi-standing"));
            let body = answer.bytes().await.map_err(|error| format!("{error:?}"))?;
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            Ok(Told { status, body, authorities_mark, standing })
        })
    }

    /// Begins a GET and is gone before there is an answer, as when the process is killed.
    pub fn get_and_go(&self, path: &str, stays: Duration) {
        let request = self.client.get(format!("{}{path}", self.base));
        let ended = self.runtime.block_on(async { tokio::time::timeout(stays, request.send()).await });
        assert!(ended.is_err(), "there was an answer: {ended:?}");
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Said {
        self.send(self.client.get(format!("{}{path}", self.base)))
    }

    /// POST.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str, body: &Value) -> Said {
        self.send(self.client.post(format!("{}{path}", self.base)).json(body))
    }

    /// POST of some bytes that claim to be JSON.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Said {
        let request = self.client.post(format!("{}{path}", self.base));
        self.send(request.header("Content-Type", "application/json").body(body.to_vec()))
    }

    /// Asks to join with a token, as it is shown to people.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn enrol(&self, token: &str, network: &str, agent: Option<&str>, request: &str) -> Said {
        let secret = token.split('.').next().unwrap();
        let mut body = json!({"token": secret, "network": network, "request": request, "version": "test"});
        if let Some(agent) = agent {
            body["agent"] = agent.into();
        }
        self.post("/agent/v1/enrol", &body)
    }

    /// The desired state of a network, waiting for so many seconds.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn desired(&self, network: &str, generation: u64, wait: u64) -> Said {
        self.get(&format!("/agent/v1/networks/{network}/desired?generation={generation}&wait={wait}"))
    }

    /// Reports that nothing exists.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn status(&self, network: &str) -> Said {
        let body = json!({"version": "test", "generation_observed": 0, "netboot": {"state": "absent"}, "instances": []});
        self.post(&format!("/agent/v1/networks/{network}/status"), &body)
    }
}

/// A list of texts.
fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

impl Api {
    /// Approves the key of an agent that waits, whichever it is; gives the agent.
    #[must_use]
    pub fn key_approve(&self, agent: &str) -> Value {
        let path = format!("/v1/agents/{agent}");
        let waits = self.get(&path).expect(200)["pending_key_sha256"].clone();
        self.post(&format!("{path}/approve"), &json!({"key_sha256": waits})).expect(200)
    }

    /// The authorities that are trusted, oldest first.
    #[must_use]
    pub fn authorities(&self) -> Vec<Value> {
        self.get("/v1/authorities").expect(200)["items"].as_array().unwrap().clone()
    }

    /// Their certificates.
    #[must_use]
    pub fn authority_certificates(&self) -> Vec<String> {
        self.authorities().iter().map(|it| it["certificate"].as_str().unwrap().to_owned()).collect()
    }

    /// Makes a join token.
    #[must_use]
    pub fn join_token(&self, network: &str) -> String {
        let made = self.post("/v1/join-tokens", &json!({"network": network})).expect(201);
        made["token"].as_str().unwrap().to_owned()
    }
}

/// Where a control plane says that it listens for agents.
pub(crate) fn agents_address(out: &Path) -> SocketAddr {
    let said: Value =
        serde_json::from_str(std::fs::read_to_string(out).unwrap().lines().next().unwrap()).unwrap();
    said["agents"].as_str().unwrap().parse().unwrap()
}

impl Deployment {
    /// A deployment in a Ceph whose agents are on other hosts of a management network, to which this thread is moved; with a
    /// network for them, the project `lab`, an image `noise` and a node.
    #[must_use]
    pub fn start_for_agents(node_mac: &str) -> (Management, Ceph, Self) {
        let management = Management::enter();
        // Of this test's own: it is where the management network is.
        let ceph = Ceph::start();
        let mut deployment = Self::start_in_ceph(&ceph);
        deployment.agents_configure(ADDRESS, 86_400);
        deployment.api.project("lab");
        deployment.api.network("provisioning", "10.77.0.0/24");
        deployment.noise();
        deployment.api.image_of("lab", "noise", "noise.raw");
        deployment.api.node_of("node-1", node_mac, "lab");
        (management, ceph, deployment)
    }

    /// Lets agents join, at an address of the host; certificates last for so many seconds.
    pub fn agents_configure(&mut self, address: &str, certificate_s: u64) {
        self.control_plane_configure(&format!(
            "[agents]\nlisten = \"{address}:0\"\ntrust_domain = \"{TRUST_DOMAIN}\"\nnames = [\"{address}\"]\n\
             certificate_s = {certificate_s}"
        ));
    }

    /// Lets agents find the control plane where it is when it starts again.
    pub fn agents_stay(&mut self) {
        self.control_plane_restart_at_its_address();
        let text = std::fs::read_to_string(self.config()).unwrap();
        let address = self.agents_address();
        let fixed =
            text.replace(&format!("listen = \"{}:0\"", address.ip()), &format!("listen = \"{address}\""));
        std::fs::write(self.config(), fixed).unwrap();
        self.control_plane_stop();
        self.control_plane_start();
    }

    /// Cables the deployment's namespace to the management network, as another host; gives the control plane's address there.
    #[must_use]
    pub fn agents_cable(&self) -> String {
        Management::cable(&self.namespace, 11);
        ADDRESS.to_owned()
    }

    /// Makes the deployment's agent one of another host, which joins with the token in a file that is given.
    #[must_use]
    pub fn agent_elsewhere(&self) -> std::path::PathBuf {
        let token = self.data.join("join.token");
        let path = self.agent_config();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| match line.strip_prefix("control_plane = ") {
            Some(_) => format!(
                "control_plane = \"https://{}\"\njoin_token_file = \"{}\"",
                self.agents_address(),
                token.display()
            ),
            None => line.to_owned(),
        });
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        token
    }

    /// Where agents dial.
    #[must_use]
    pub fn agents_address(&self) -> SocketAddr {
        agents_address(&self.data.join("control-plane.out"))
    }

    /// Lets somebody join a network; gives who it is, with its key.
    #[must_use]
    pub fn member(&self, network: &str) -> (Member, Value, AgentKey) {
        let key = AgentKey::default();
        let nobody = Member::nobody(self.agents_address(), &self.api.authority_certificates());
        let token = self.api.join_token(network);
        let identity = nobody.enrol(&token, network, None, &key.request()).unwrap().expect(200);
        (Member::identified(self.agents_address(), &identity, &key), identity, key)
    }
}
