//! The Hardware Isolation Layer, simulated: a real HTTP server with its semantics and its faults.
//!
//! A change is accepted (202), stands in a queue, and is done later by a networking server of its own; one at a time for
//! each NIC (409). A node shows what is done and nothing of what is under way. Order and words of its refusals are those
//! of HIL's own code (`node_connect_network`, `node_detach_network`). Deliberately absent: everything that BMI never asks.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// The project of HIL that BMI's nodes are in.
const PROJECT: &str = "bmi";
/// Who may ask.
pub const HIL_USER: &str = "bmi";
/// With which password.
pub const HIL_PASSWORD: &str = "hil-password-7261";

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HilFault {
    /// A request is answered 500, and nothing is done.
    Error,
    /// A change is accepted, and the answer is lost.
    LostAnswer,
    /// A request is answered after this long.
    Slow(Duration),
    /// An accepted change ends in an error.
    ActionFails,
    /// An accepted change ends as done, and is not.
    ActionLies,
}

#[derive(Debug, Clone)]
struct Nic {
    mac: String,
    networks: BTreeMap<String, String>,
    /// The change under way.
    current: Option<String>,
}

#[derive(Debug, Clone)]
struct Node {
    project: Option<String>,
    nics: BTreeMap<String, Nic>,
}

#[derive(Debug, Clone)]
struct Action {
    node: String,
    nic: String,
    /// Nothing when it detaches.
    network: Option<String>,
    channel: String,
    due: Instant,
    status: &'static str,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    networks: Vec<String>,
    actions: BTreeMap<String, Action>,
    /// Faults to come, each once.
    faults: VecDeque<HilFault>,
    /// How long a change takes.
    delay: Duration,
    /// Whether the networking server stands still.
    frozen: bool,
    /// Whether it says of everything that it is not attached.
    contradicts: bool,
    /// Whether nobody answers.
    down: bool,
    /// What was asked: method and path.
    requests: Vec<String>,
}

/// A running HIL.
#[derive(Clone)]
pub struct SimulatedHil {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl SimulatedHil {
    /// Starts it with networks and no node.
    #[must_use]
    pub fn start(networks: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            networks: networks.iter().map(|&name| name.to_owned()).collect(),
            delay: Duration::from_millis(50),
            ..State::default()
        };
        let hil = Self { address, state: Arc::new(Mutex::new(state)) };
        let (serving, switching) = (hil.clone(), Arc::downgrade(&hil.state));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        std::thread::spawn(move || {
            while let Some(state) = switching.upgrade() {
                State::networking(&mut state.lock().unwrap());
                drop(state);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        hil
    }

    /// Where its API is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v0", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Registers a node in BMI's project: its NICs by label and MAC.
    pub fn node(&self, name: &str, nics: &[(&str, &str)]) {
        let nic = |mac: &str| Nic { mac: mac.to_owned(), networks: BTreeMap::new(), current: None };
        let nics = nics.iter().map(|(label, mac)| ((*label).to_owned(), nic(mac))).collect();
        self.state().nodes.insert(name.to_owned(), Node { project: Some(PROJECT.to_owned()), nics });
    }

    /// Attaches a NIC as somebody else would, at once.
    pub fn attach(&self, node: &str, nic: &str, channel: &str, network: &str) {
        let mut state = self.state();
        let nic = state.nodes.get_mut(node).unwrap().nics.get_mut(nic).unwrap();
        nic.networks.insert(channel.to_owned(), network.to_owned());
    }

    /// Detaches a node from everything, as somebody else would.
    pub fn detach(&self, node: &str) {
        let mut state = self.state();
        state.nodes.get_mut(node).unwrap().nics.values_mut().for_each(|nic| nic.networks.clear());
    }

    /// Everything that a node is attached to: NIC, channel, network.
    #[must_use]
    pub fn attachments(&self, node: &str) -> Vec<(String, String, String)> {
        let state = self.state();
        let nics = state.nodes.get(node).into_iter().flat_map(|node| &node.nics);
        let of = |(label, nic): (&String, &Nic)| {
            let places = nic.networks.iter();
            places
                .map(|(channel, network)| (label.clone(), channel.clone(), network.clone()))
                .collect::<Vec<_>>()
        };
        nics.flat_map(of).collect()
    }

    /// Whether any change is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state().actions.values().any(|action| action.status == "PENDING")
    }

    /// What goes wrong next, one after the other.
    pub fn faults(&self, faults: &[HilFault]) {
        self.state().faults.extend(faults);
    }

    /// How many of the faults have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.state().faults.len()
    }

    /// How long a change takes.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Has the networking server stand still, or go on.
    pub fn freeze(&self, frozen: bool) {
        self.state().frozen = frozen;
    }

    /// Has it say that nothing is attached, whatever it shows.
    pub fn contradict(&self, contradicts: bool) {
        self.state().contradicts = contradicts;
    }

    /// Ends its API, or starts it again. What is under way is in its database.
    pub fn down(&self, down: bool) {
        self.state().down = down;
    }

    /// What was asked so far: method and path.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            let (mut length, mut allowed) = (0, false);
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap_or(0) == 0 {
                    return;
                }
                let Some((name, value)) = header.trim().split_once(':') else { break };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().unwrap(),
                    "authorization" => {
                        let wanted = BASE64_STANDARD.encode(format!("{HIL_USER}:{HIL_PASSWORD}"));
                        allowed = value.trim() == format!("Basic {wanted}");
                    }
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let mut words = first.split_whitespace();
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let Some((status, answer)) = self.answered(method, path, &body, allowed) else { return };
            let text = answer.to_string();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", text.len());
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).is_err() {
                return;
            }
        }
    }

    /// The answer to a request; nothing when its connection breaks.
    fn answered(&self, method: &str, path: &str, body: &[u8], allowed: bool) -> Option<(u16, Value)> {
        let mut state = self.state();
        if state.down {
            return None;
        }
        state.requests.push(format!("{method} {path}"));
        if !allowed {
            return Some(refusal(401, "AuthorizationError", "Authentication failed."));
        }
        match state.faults.front().copied() {
            Some(HilFault::Error) => {
                state.faults.pop_front();
                return Some((500, json!("Internal Server Error")));
            }
            Some(HilFault::Slow(pause)) => {
                state.faults.pop_front();
                let answer = state.answer(method, path, body);
                drop(state);
                std::thread::sleep(pause);
                return Some(answer);
            }
            _ => {}
        }
        let answer = state.answer(method, path, body);
        if answer.0 == 202 && state.faults.front() == Some(&HilFault::LostAnswer) {
            state.faults.pop_front();
            return None;
        }
        Some(answer)
    }
}

fn refusal(status: u16, kind: &str, msg: &str) -> (u16, Value) {
    (status, json!({"type": kind, "msg": msg}))
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["v0", "node", node]) => self.show_node(node),
            ("POST", ["v0", "node", node, "nic", nic, "connect_network"]) => {
                let word = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
                self.connect(node, nic, &word("network"), &word("channel"))
            }
            ("POST", ["v0", "node", node, "nic", nic, "detach_network"]) => {
                let network = body["network"].as_str().unwrap_or_default().to_owned();
                self.disconnect(node, nic, &network)
            }
            ("GET", ["v0", "networking_action", number]) => match self.actions.get(*number) {
                Some(action) => {
                    let shown = json!({
                        "status": action.status, "node": action.node, "nic": action.nic,
                        "type": "modify_port", "channel": action.channel, "new_network": action.network,
                    });
                    (200, shown)
                }
                None => refusal(404, "NotFoundError", "Networking action does not exist."),
            },
            _ => refusal(404, "NotFoundError", "No such call."),
        }
    }

    fn show_node(&self, name: &str) -> (u16, Value) {
        let Some(node) = self.nodes.get(name) else {
            return refusal(404, "NotFoundError", &format!("Node {name} does not exist."));
        };
        let nics = node.nics.iter().map(|(label, nic)| {
            json!({"label": label, "macaddr": nic.mac, "networks": nic.networks, "port": "gi1/0/1", "switch": "s"})
        });
        (
            200,
            json!({"name": name, "project": node.project, "nics": nics.collect::<Vec<_>>(), "metadata": {}}),
        )
    }

    /// What both changes ask first: the NIC, where it may be changed now.
    fn changeable(&self, node: &str, nic: &str, network: &str) -> Result<Nic, (u16, Value)> {
        let absent = |what: &str| refusal(404, "NotFoundError", &format!("{what} does not exist."));
        let node = self.nodes.get(node).ok_or_else(|| absent("Node"))?;
        let nic = node.nics.get(nic).ok_or_else(|| absent("Nic"))?;
        if !self.networks.iter().any(|known| known == network) {
            return Err(absent("Network"));
        }
        if node.project.is_none() {
            return Err(refusal(409, "ProjectMismatchError", "Node not in project"));
        }
        if nic.current.is_some() {
            let msg = "A networking operation is already active on the nic.";
            return Err(refusal(409, "BlockedError", msg));
        }
        Ok(nic.clone())
    }

    fn connect(&mut self, node: &str, nic: &str, network: &str, channel: &str) -> (u16, Value) {
        let found = match self.changeable(node, nic, network) {
            Ok(found) => found,
            Err(refused) => return refused,
        };
        if found.networks.values().any(|attached| attached == network) {
            return refusal(409, "BlockedError", "The network is already attached to the nic.");
        }
        if found.networks.contains_key(channel) {
            return refusal(409, "BlockedError", "The channel is already in use on the nic.");
        }
        if channel != "vlan/native" && !channel.starts_with("vlan/") {
            return refusal(400, "BadArgumentError", "Channel is not legal for this network.");
        }
        self.queue(node, nic, Some(network.to_owned()), channel.to_owned())
    }

    fn disconnect(&mut self, node: &str, nic: &str, network: &str) -> (u16, Value) {
        let found = match self.changeable(node, nic, network) {
            Ok(found) => found,
            Err(refused) => return refused,
        };
        match found.networks.into_iter().find(|(_, attached)| attached == network) {
            Some((channel, _)) if !self.contradicts => self.queue(node, nic, None, channel),
            _ => refusal(400, "BadArgumentError", "The network is not attached to the nic."),
        }
    }

    fn queue(&mut self, node: &str, nic: &str, network: Option<String>, channel: String) -> (u16, Value) {
        let number = uuid::Uuid::new_v4().to_string();
        let action = Action {
            node: node.to_owned(),
            nic: nic.to_owned(),
            network,
            channel,
            due: Instant::now() + self.delay,
            status: "PENDING",
        };
        self.actions.insert(number.clone(), action);
        let nic = self.nodes.get_mut(node).unwrap().nics.get_mut(nic).unwrap();
        nic.current = Some(number.clone());
        (202, json!({"status_id": number}))
    }

    /// One look of the networking server.
    fn networking(&mut self) {
        if self.frozen {
            return;
        }
        for action in self.actions.values_mut() {
            if action.status != "PENDING" || action.due > Instant::now() {
                continue;
            }
            let nic = self.nodes.get_mut(&action.node).unwrap().nics.get_mut(&action.nic).unwrap();
            nic.current = None;
            let fault = self.faults.front().copied();
            if let Some(HilFault::ActionFails | HilFault::ActionLies) = fault {
                self.faults.pop_front();
                action.status = if fault == Some(HilFault::ActionFails) { "ERROR" } else { "DONE" };
                continue;
            }
            action.status = "DONE";
            match &action.network {
                Some(network) => nic.networks.insert(action.channel.clone(), network.clone()),
                None => nic.networks.remove(&action.channel),
            };
        }
    }
}
