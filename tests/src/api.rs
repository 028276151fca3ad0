//! Requests over plain HTTP/1.1, one connection each, so that a test decides about every header and byte.
//!
//! Deliberately absent: retries, redirects, and any knowledge of what an answer means.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// The longest that an answer may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The API as one caller uses it.
#[derive(Debug, Clone)]
pub struct Api {
    address: SocketAddr,
    authorization: Option<String>,
}

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The problem's code, or nothing.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The fields that the problem finds fault with, in its order.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|fault| fault["field"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The body of an answer that must have this status.
    #[expect(clippy::must_use_candidate, reason = "often only the status matters")]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

impl Api {
    /// The API at an address, with a bearer token.
    #[must_use]
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, authorization: Some(format!("Bearer {token}")) }
    }

    /// The same with another `Authorization` header, or none.
    #[must_use]
    pub fn authorized(&self, authorization: Option<&str>) -> Self {
        Self { address: self.address, authorization: authorization.map(str::to_owned) }
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The head of a request.
    #[must_use]
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if let Some(authorization) = &self.authorization {
            head.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    /// Sends a request with exactly these headers and this body.
    #[must_use]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut head = self.head(method, path, headers);
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.exchange(head.as_bytes(), body.unwrap_or_default(), method == "HEAD")
    }

    /// Sends a body in chunks, without saying how long it is.
    #[must_use]
    pub fn send_chunked(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", self.head(method, path, headers));
        let mut framed = Vec::new();
        for chunk in body.chunks(64 << 10) {
            framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        framed.extend_from_slice(b"0\r\n\r\n");
        self.exchange(head.as_bytes(), &framed, false)
    }

    /// Opens a connection and sends some bytes of a request: what follows is the test's.
    #[must_use]
    pub fn open(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    fn exchange(&self, head: &[u8], body: &[u8], bare: bool) -> Answer {
        let mut stream = self.open(head);
        // A server may refuse by the head alone and not read on: its answer is what counts.
        let mut sending = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || sending.write_all(body).ok());
            let mut bytes = Vec::new();
            let mut buffer = vec![0; 64 << 10];
            loop {
                let read = stream.read(&mut buffer);
                bytes.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
                if let Some(answer) = parse(&bytes, bare) {
                    // A refused body may still be on its way, and nobody reads it any more.
                    stream.shutdown(std::net::Shutdown::Both).ok();
                    return answer;
                }
                assert!(matches!(read, Ok(1..)), "no answer to {}: {read:?}", String::from_utf8_lossy(head));
            }
        })
    }

    /// GET.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    /// A request with a JSON body.
    #[must_use]
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.send(method, path, &[("Content-Type", "application/json")], Some(body.as_bytes()))
    }

    /// Every sample of `/metrics`: name with labels, and value. The form is checked on the way.
    #[must_use]
    pub fn samples(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200);
        let kind = answer.header("content-type").unwrap();
        assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.ends_with("# EOF\n"), "an OpenMetrics text says where it ends");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    /// POST of JSON.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.json("POST", path, body)
    }

    /// POST of JSON with an `Idempotency-Key`.
    #[must_use]
    pub fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        self.send("POST", path, &headers, Some(body.to_string().as_bytes()))
    }

    /// DELETE.
    #[must_use]
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }
}

/// Reads an answer when it is whole. One without a length has no body: the server always says it.
fn parse(bytes: &[u8], bare: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let answer = Answer { status, headers, body: Vec::new() };
    if status == 100 {
        return parse(&bytes[end + 4..], bare);
    }
    let rest = &bytes[end + 4..];
    let body = match (answer.header("content-length"), answer.header("transfer-encoding")) {
        (Some(length), _) if !bare => rest.get(..length.parse().ok()?)?.to_vec(),
        (None, Some("chunked")) if !bare => chunks(rest)?,
        _ => Vec::new(),
    };
    Some(Answer { body, ..answer })
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + length)?);
        rest = rest.get(end + 4 + length..)?;
    }
}
