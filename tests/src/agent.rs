//! What an agent says to the control plane, by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::Deployment;

impl Deployment {
    /// Sends one request by the agent's socket, as it stands, and gives the whole answer.
    #[must_use]
    pub fn agent_ask(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.data.join("control-plane/agent.sock")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// POSTs what an agent of this network would: its `status` or `events`.
    #[must_use]
    pub fn agent_post(&self, network: &str, what: &str, body: &str) -> String {
        let length = body.len();
        self.agent_ask(&format!(
            "POST /agent/v1/networks/{network}/{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }
}
