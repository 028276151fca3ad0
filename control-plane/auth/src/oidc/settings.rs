//! A provider as the operator configures it, and what a configuration must keep to.

use std::path::PathBuf;

use bmi_types::Name;
use jsonwebtoken::Algorithm;
use openidconnect::core::CoreJwsSigningAlgorithm;
use openidconnect::url::Url;
use serde::Deserialize;

use crate::Subject;

/// The most clock skew that is forgiven, in seconds.
const LEEWAY_MAX_S: u64 = 60;
/// The most role mappings of one provider: each becomes a binding of the policy.
const ROLES_MAX: usize = 1000;

/// One `[[oidc]]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Its name here: part of every subject, so it never changes.
    pub name: Name,
    /// Its issuer, exactly as it calls itself.
    pub issuer: String,
    /// How it knows this control plane.
    pub client_id: String,
    /// The secret that goes with that; without one the client is a public one.
    pub client_secret_file: Option<PathBuf>,
    /// The audience of access tokens for this API. Without one they are refused.
    pub audience: Option<String>,
    /// The type that an access token must say it has.
    #[serde(default)]
    pub access_token_type: AccessTokenType,
    /// Signatures that are taken.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<SignatureAlgorithm>,
    /// What is asked for at a sign-in, besides `openid`.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The claim with the caller's groups; `a.b` also names `b` inside of `a`.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// Further claims whose values count as groups, called `claim=value`.
    #[serde(default)]
    pub claims: Vec<String>,
    /// Authorities that its certificate may come from, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Clock skew that is forgiven, in seconds.
    #[serde(default = "leeway")]
    pub leeway_s: u64,
    /// Which groups have which roles.
    #[serde(default)]
    pub roles: Vec<GroupRole>,
}

/// A role of everybody in a group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRole {
    /// The group, or `claim=value`.
    pub group: String,
    /// The role.
    pub role: String,
    /// The project where it holds; everywhere when there is none.
    pub project: Option<Name>,
}

/// What the header `typ` of an access token must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum AccessTokenType {
    /// RFC 9068: nothing else has this type.
    #[default]
    #[serde(rename = "at+jwt")]
    AtJwt,
    /// For providers that do not tell access tokens from others.
    #[serde(rename = "JWT")]
    Jwt,
}

/// A signature with a public key. There is none with a shared secret, and no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum SignatureAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl SignatureAlgorithm {
    pub(super) const fn of_token(self) -> Algorithm {
        match self {
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }

    pub(super) const fn of_id_token(self) -> CoreJwsSigningAlgorithm {
        use CoreJwsSigningAlgorithm as Core;
        match self {
            Self::RS256 => Core::RsaSsaPkcs1V15Sha256,
            Self::RS384 => Core::RsaSsaPkcs1V15Sha384,
            Self::RS512 => Core::RsaSsaPkcs1V15Sha512,
            Self::PS256 => Core::RsaSsaPssSha256,
            Self::PS384 => Core::RsaSsaPssSha384,
            Self::PS512 => Core::RsaSsaPssSha512,
            Self::ES256 => Core::EcdsaP256Sha256,
            Self::ES384 => Core::EcdsaP384Sha384,
            Self::EdDSA => Core::EdDsa,
        }
    }
}

fn algorithms() -> Vec<SignatureAlgorithm> {
    vec![SignatureAlgorithm::RS256, SignatureAlgorithm::ES256, SignatureAlgorithm::EdDSA]
}

fn scopes() -> Vec<String> {
    ["profile", "email"].map(str::to_owned).to_vec()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

const fn leeway() -> u64 {
    30
}

/// Whether a URL may be used: https, or http on this machine.
pub fn is_safe(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    url.username().is_empty()
        && url.password().is_none()
        && match url.scheme() {
            "https" => !host.is_empty(),
            "http" => loopback,
            _ => false,
        }
}

impl ProviderSettings {
    /// Whom a group of this provider is, as a subject of the policy.
    #[must_use]
    pub fn group(&self, value: &str) -> Subject {
        Subject::group(self.name.as_str(), value)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// With what is wrong, for the operator.
    pub fn check(&self) -> Result<(), String> {
        let safe = Url::parse(&self.issuer)
            .is_ok_and(|url| is_safe(&url) && url.query().is_none() && url.fragment().is_none());
        let wrong = if !safe {
            format!("issuer must be an https:// URL (http:// only on this machine), not `{}`", self.issuer)
        } else if self.client_id.is_empty() {
            "client_id is empty".to_owned()
        } else if self.algorithms.is_empty() {
            "algorithms is empty".to_owned()
        } else if self.leeway_s > LEEWAY_MAX_S {
            format!("leeway_s is at most {LEEWAY_MAX_S}")
        } else if self.roles.len() > ROLES_MAX {
            format!("there may be at most {ROLES_MAX} roles")
        } else if self.access_token_type == AccessTokenType::Jwt
            && self.audience.as_deref() == Some(self.client_id.as_str())
        {
            "with access_token_type = \"JWT\" the audience must not be the client_id: an ID token would pass as an \
             access token"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(format!("oidc `{}`: {wrong}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let start = "name = 'corp'\nissuer = 'https://id.example.org'\nclient_id = 'bmi'\n";
        let text = if text.contains("issuer") { text.to_owned() } else { format!("{start}{text}") };
        let settings: ProviderSettings = toml::from_str(&text).map_err(|error| error.to_string())?;
        settings.check()
    }

    #[test]
    fn a_configuration_that_would_be_unsafe_is_refused() {
        check("").unwrap();
        let of_issuer = |issuer: &str| check(&format!("name = 'a'\nclient_id = 'b'\nissuer = '{issuer}'"));
        for good in ["http://127.0.0.1:1", "http://localhost:1/realms/a", "http://[::1]:1", "https://a/b/"] {
            of_issuer(good).unwrap();
        }
        for bad in
            ["http://10.0.0.1", "http://id.example.org", "ftp://a", "https://u:p@a", "https://a?b", "a"]
        {
            assert!(of_issuer(bad).unwrap_err().contains("issuer"), "{bad}");
        }
        for bad in ["algorithms = ['HS256']", "algorithms = ['none']", "algorithms = []", "leeway_s = 61"] {
            check(bad).unwrap_err();
        }
        check("access_token_type = 'JWT'\naudience = 'bmi'").unwrap_err();
        check("access_token_type = 'JWT'\naudience = 'https://bmi'").unwrap();
        assert!(check("realm = 'x'").unwrap_err().contains("unknown field"));
    }
}
