//! A control plane in a hundred lines: HTTP over a unix socket, one thread a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bmi_agent_api::desired::DesiredState;
use bmi_agent_api::event::{AgentEvent, EventBatch};
use bmi_agent_api::status::StatusReport;

#[derive(Default)]
struct Memory {
    desired: Option<DesiredState>,
    status: Option<StatusReport>,
    events: Vec<AgentEvent>,
    /// Answers 503 to everything.
    away: bool,
    /// Answers that to whoever asks for the desired state.
    said: Option<String>,
    /// How often it did.
    heard: usize,
    /// How often there was nothing new.
    quiet: usize,
}

/// What the agent talks to.
#[derive(Clone)]
pub struct ControlPlane(Arc<(Mutex<Memory>, Condvar)>);

impl ControlPlane {
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let control_plane = Self(Arc::default());
        let serving = control_plane.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(connection));
            }
        });
        control_plane
    }

    pub fn want(&self, desired: DesiredState) {
        self.0.0.lock().unwrap().desired = Some(desired);
        self.0.1.notify_all();
    }

    /// Answers something else than a desired state to whoever asks for one, until the agent has asked again after it; and
    /// then nothing new, until it has heard that.
    pub fn say(&self, text: &str) {
        let patience = Duration::from_secs(30);
        let (memory, changed) = &*self.0;
        let mut memory = memory.lock().unwrap();
        (memory.said, memory.heard) = (Some(text.to_owned()), 0);
        changed.notify_all();
        let (mut memory, waited) = changed.wait_timeout_while(memory, patience, |it| it.heard < 2).unwrap();
        assert!(!waited.timed_out(), "the agent did not ask: {text:.60}");
        (memory.said, memory.quiet) = (None, 0);
        let (_memory, waited) = changed.wait_timeout_while(memory, patience, |it| it.quiet < 1).unwrap();
        assert!(!waited.timed_out(), "the agent did not ask again: {text:.60}");
    }

    pub fn go_away(&self, away: bool) {
        let mut memory = self.0.0.lock().unwrap();
        memory.away = away;
        if away {
            memory.status = None;
        }
        self.0.1.notify_all();
    }

    /// Forgets what was reported.
    pub fn forget(&self) {
        self.0.0.lock().unwrap().status = None;
    }

    pub fn status(&self) -> Option<StatusReport> {
        self.0.0.lock().unwrap().status.clone()
    }

    pub fn events(&self) -> Vec<AgentEvent> {
        self.0.0.lock().unwrap().events.clone()
    }

    fn serve(&self, connection: UnixStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut writer = connection;
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                let header = header.trim().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (status, answer) = self.answer(&first, &body);
            let head =
                if status == 304 { String::new() } else { format!("content-length: {}\r\n", answer.len()) };
            let answer = format!("HTTP/1.1 {status} X\r\n{head}\r\n{answer}");
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, first: &str, body: &[u8]) -> (u16, String) {
        let (memory, changed) = &*self.0;
        let mut memory = memory.lock().unwrap();
        if memory.away {
            return (503, String::new());
        }
        let mut words = first.split_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match (method, path.strip_prefix("/agent/v1/networks/lab/")) {
            ("GET", Some("desired")) => {
                let have: u64 = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("generation="))
                    .unwrap()
                    .parse()
                    .unwrap();
                let newer = |memory: &mut Memory| {
                    memory.said.is_none()
                        && !memory.away
                        && memory.desired.as_ref().is_none_or(|desired| desired.generation <= have)
                };
                memory = changed.wait_timeout_while(memory, Duration::from_secs(2), newer).unwrap().0;
                if let Some(said) = memory.said.clone() {
                    memory.heard += 1;
                    changed.notify_all();
                    return (200, said);
                }
                match &memory.desired {
                    Some(desired) if desired.generation > have => {
                        (200, serde_json::to_string(desired).unwrap())
                    }
                    _ => {
                        memory.quiet += 1;
                        changed.notify_all();
                        (304, String::new())
                    }
                }
            }
            ("POST", Some("status")) => {
                memory.status = Some(serde_json::from_slice(body).unwrap());
                (204, String::new())
            }
            ("POST", Some("events")) => {
                let batch: EventBatch = serde_json::from_slice(body).unwrap();
                memory.events.extend(batch.events);
                (204, String::new())
            }
            _ => (404, String::new()),
        }
    }
}
