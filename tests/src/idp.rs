//! Identity providers on loopback, of other people's making: the certified `oidc-provider`, and canaille.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::browser::{Browser, attribute, parameter};
use crate::deployment::Deployment;
use crate::host::{command, end, repository, until};

/// Where `infra/packages test` puts it.
const OIDC_PROVIDER: &str = "/opt/bmi-test-tools/oidc-provider";
/// The other one.
const CANAILLE: &str = "/opt/bmi-test-tools/canaille/bin/python";
/// How long a provider may take to start.
const START: Duration = Duration::from_secs(30);
/// Where a program's sign-in would end; nothing listens there.
const APP: &str = "http://127.0.0.1:9/callback";
/// The audience of access tokens.
pub const AUDIENCE: &str = "https://bmi.example.org";

/// An identity provider that everybody can sign in at.
#[derive(Debug)]
pub struct OidcProvider {
    /// Where it is.
    pub address: SocketAddr,
    directory: PathBuf,
    callback: String,
    /// Certificate and key, when it speaks HTTPS.
    tls: Option<(PathBuf, PathBuf)>,
    keys: u32,
    child: Option<Child>,
}

/// Ports that no connection is given by the kernel, by default (`net.ipv4.ip_local_port_range` begins at 32768): one of them
/// is still free when whoever it is for listens.
const PORTS: u32 = 20_000;
const PORTS_COUNT: u32 = 10_000;

/// A port of loopback that nobody has.
#[must_use]
pub fn free_port() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < PORTS_COUNT, "no port is free");
        // Other programs of tests begin elsewhere.
        let port = PORTS + (std::process::id().wrapping_mul(97) + given) % PORTS_COUNT;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())) {
            return listener.local_addr().unwrap();
        }
    }
}

impl OidcProvider {
    /// Starts one for a deployment.
    #[must_use]
    pub fn start(deployment: &Deployment) -> Self {
        Self::start_by(deployment, None)
    }

    /// Starts one that speaks HTTPS with this certificate and key, for a deployment that does.
    #[must_use]
    pub fn start_https(deployment: &Deployment, certificate: &Path, key: &Path) -> Self {
        Self::start_by(deployment, Some((certificate.to_owned(), key.to_owned())))
    }

    fn start_by(deployment: &Deployment, tls: Option<(PathBuf, PathBuf)>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut provider = Self {
            address: free_port(),
            directory: deployment.data.clone(),
            callback: format!("{scheme}://{}/v1/sign-in/callback", deployment.api.address()),
            tls,
            keys: 0,
            child: None,
        };
        provider.go_on();
        provider
    }

    /// Starts it again, with the keys it had.
    pub fn go_on(&mut self) {
        let home = Path::new(OIDC_PROVIDER);
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let child = command(&home.join("node"))
            .arg(repository().join("tests/idp/oidc-provider.mjs"))
            .arg(home)
            .arg(self.address.port().to_string())
            .arg(self.directory.join(format!("idp-keys-{}.json", self.keys)))
            .args([&self.callback, APP])
            .envs(self.tls.iter().flat_map(|(certificate, key)| {
                [("TLS_CERTIFICATE", certificate.clone()), ("TLS_KEY", key.clone())]
            }))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        until("the identity provider listens", START, || TcpStream::connect(self.address).ok().map(drop));
    }

    /// Ends it.
    pub fn stop(&mut self) {
        assert!(end(&mut self.child.take().unwrap()), "the identity provider did not end on SIGTERM");
    }

    /// Gives it new keys, and no old ones.
    pub fn rotate(&mut self) {
        self.stop();
        self.keys += 1;
        self.go_on();
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log/oidc-provider.log")
    }

    /// How often its keys were asked for.
    #[must_use]
    pub fn key_requests(&self) -> usize {
        fs::read_to_string(self.log()).unwrap().lines().filter(|line| *line == "GET /jwks").count()
    }

    /// Its public keys.
    #[must_use]
    pub fn keys(&self) -> Value {
        Browser::of("").get(&format!("{}/jwks", self.issuer())).expect(200)
    }

    /// How it calls itself.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Its part of the configuration. `ops` rules, `lab` is in the project `lab`.
    #[must_use]
    pub fn settings(&self, deployment: &Deployment) -> String {
        let secret = deployment.data.join("client-secret");
        fs::write(&secret, "the-secret-of-bmi\n").unwrap();
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        format!(
            "[[oidc]]\nname = \"corp\"\nissuer = \"{}\"\nclient_id = \"bmi\"\nclient_secret_file = \"{}\"\n\
             audience = \"{AUDIENCE}\"\nscopes = [\"profile\", \"groups\"]\n\
             [[oidc.roles]]\ngroup = \"ops\"\nrole = \"platform-admin\"\n\
             [[oidc.roles]]\ngroup = \"lab\"\nrole = \"project-member\"\nproject = \"lab\"\n",
            self.issuer(),
            secret.display()
        )
    }

    /// The tokens that a program of somebody gets: an access token for an audience, and an ID token.
    #[must_use]
    pub fn tokens(&self, user: &str, audience: &str) -> Value {
        let verifier = "a verifier of a program of the tests, long enough".replace([' ', ','], "-");
        let challenge = BASE64URL.encode(Sha256::digest(verifier.as_bytes()));
        let mut browser = Browser::of(user);
        let url = format!(
            "{}/auth?client_id=app&response_type=code&redirect_uri={APP}&scope=openid%20groups&state=s&nonce=n\
             &resource={audience}&code_challenge={challenge}&code_challenge_method=S256",
            self.issuer()
        );
        let (url, answer) = browser.visit(&url, APP);
        let code = parameter(&url, "code").unwrap_or_else(|| panic!("{url} {answer:?}"));
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", "app"),
            ("code", code.as_str()),
            ("redirect_uri", APP),
            ("code_verifier", verifier.as_str()),
            ("resource", audience),
        ];
        browser.submit(&format!("{}/token", self.issuer()), &fields).expect(200)
    }

    /// An access token of somebody for the API.
    #[must_use]
    pub fn access_token(&self, user: &str) -> String {
        self.tokens(user, AUDIENCE)["access_token"].as_str().unwrap().to_owned()
    }

    /// Lets a person enter a code that a device shows, or abort there.
    pub fn device_decide(&self, user: &str, code: &str, decision: &str) {
        let mut browser = Browser::of(user);
        let url = format!("{}/device", self.issuer());
        let page = browser.get(&url);
        let page = String::from_utf8(page.body).unwrap();
        let xsrf = attribute(&page, "name=\"xsrf\"", "value").unwrap_or_else(|| panic!("{page}"));
        let answer = browser.submit(&url, &[("xsrf", &xsrf), ("user_code", code), (decision, "yes")]);
        let (url, answer) = browser.follow(&url, answer, "none");
        assert_eq!(answer.status, 200, "{url}: {}", String::from_utf8_lossy(&answer.body));
    }
}

/// canaille: written by other people in another language.
#[derive(Debug)]
pub struct Canaille {
    address: SocketAddr,
    child: Child,
}

impl Canaille {
    /// Starts it for a deployment.
    #[must_use]
    pub fn start(deployment: &Deployment) -> Self {
        let address = free_port();
        let log = File::create(deployment.data.join("log/canaille.log")).unwrap();
        let child = command(Path::new(CANAILLE))
            .arg(repository().join("tests/idp/second_provider.py"))
            .arg(address.port().to_string())
            .arg(format!("http://{}/v1/sign-in/callback", deployment.api.address()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let provider = Self { address, child: child.unwrap() };
        until("the second identity provider listens", START, || TcpStream::connect(address).ok().map(drop));
        provider
    }

    /// How it calls itself.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its part of the configuration, under the name `campus`.
    #[must_use]
    pub fn settings(&self, deployment: &Deployment) -> String {
        let secret = deployment.data.join("client-secret");
        format!(
            "[[oidc]]\nname = \"campus\"\nissuer = \"{}\"\nclient_id = \"bmi\"\nclient_secret_file = \"{}\"\n\
             scopes = [\"profile\", \"groups\"]\n\
             [[oidc.roles]]\ngroup = \"ops\"\nrole = \"platform-auditor\"\n",
            self.issuer(),
            secret.display()
        )
    }
}

impl Drop for Canaille {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
        if std::thread::panicking() {
            eprintln!("--- identity provider\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}
