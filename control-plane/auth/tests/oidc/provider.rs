//! A provider that does what a test wants: its documents, its keys, and how often it was asked for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// A key pair of the provider.
pub struct Key {
    pub id: String,
    signing: SigningKey,
}

impl Key {
    pub fn new(id: &str, seed: u8) -> Self {
        Self { id: id.to_owned(), signing: SigningKey::from_bytes(&[seed; 32]) }
    }

    pub fn public(&self) -> Vec<u8> {
        self.signing.verifying_key().to_bytes().to_vec()
    }

    fn jwk(&self) -> Value {
        let x = BASE64URL.encode(self.public());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id, "use": "sig", "alg": "EdDSA"})
    }

    /// Signs claims under a header of a type.
    pub fn sign(&self, kind: &str, claims: &Value) -> String {
        // RFC 8410: a PKCS #8 document is this, and the 32 bytes of the key.
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend(self.signing.to_bytes());
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.clone());
        header.typ = Some(kind.to_owned());
        encode(&header, claims, &EncodingKey::from_ed_der(&der)).unwrap()
    }
}

/// A provider on loopback.
#[derive(Clone)]
pub struct Provider {
    pub address: SocketAddr,
    keys: Arc<Mutex<Vec<Value>>>,
    down: Arc<Mutex<bool>>,
    key_requests: Arc<AtomicUsize>,
}

impl Provider {
    pub fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Self {
            address: listener.local_addr().unwrap(),
            keys: Arc::new(Mutex::new(keys.iter().map(|key| key.jwk()).collect())),
            down: Arc::default(),
            key_requests: Arc::default(),
        };
        let serving = provider.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let answer = serving.answer(&request);
                let head = "Content-Type: application/json\r\nConnection: close\r\nContent-Length:";
                write!(stream, "HTTP/1.1 {} X\r\n{head} {}\r\n\r\n{}", answer.0, answer.1.len(), answer.1)
                    .ok();
            }
        });
        provider
    }

    fn answer(&self, request: &str) -> (u16, String) {
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path == "/keys" {
            self.key_requests.fetch_add(1, Ordering::SeqCst);
        }
        if *self.down.lock().unwrap() {
            return (503, String::new());
        }
        let issuer = self.issuer();
        match path {
            "/.well-known/openid-configuration" => (
                200,
                json!({
                    "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
                    "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
                    "response_types_supported": ["code"], "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["EdDSA"],
                })
                .to_string(),
            ),
            "/keys" => (200, json!({"keys": *self.keys.lock().unwrap()}).to_string()),
            _ => (404, String::new()),
        }
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn rotate(&self, keys: &[&Key]) {
        *self.keys.lock().unwrap() = keys.iter().map(|key| key.jwk()).collect();
    }

    pub fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    /// How often the keys were asked for.
    pub fn key_requests(&self) -> usize {
        self.key_requests.load(Ordering::SeqCst)
    }
}
