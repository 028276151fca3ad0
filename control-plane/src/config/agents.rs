//! `[agents]`: the listener that agents on other hosts dial.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use crate::app::Enrolling;

/// The listener that agents on other hosts dial, by mutual TLS. Its certificate and theirs come from an authority of the
/// server's own, which is made at the first start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What identities begin with, after `spiffe://`. It never changes: another one makes every agent unknown.
    pub trust_domain: String,
    /// The DNS names and addresses at which agents reach it.
    pub names: Vec<String>,
    /// Seconds that a certificate lasts, 3 to 2 592 000. An agent that is off for longer must join again.
    #[serde(default = "certificate_s")]
    pub certificate_s: u64,
}

/// A day.
const fn certificate_s() -> u64 {
    24 * 60 * 60
}

impl Agents {
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { trust_domain, names, certificate_s, .. } = self;
        // As SPIFFE has it (SPIFFE-ID section 2.1), without the dots at the ends.
        let plain =
            |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        if trust_domain.is_empty() || trust_domain.len() > 200 || !plain(trust_domain) {
            return Err(format!(
                "agents.trust_domain must be lower-case letters, digits, `-` and `.`, not `{trust_domain}`"
            ));
        }
        let dns = |name: &str| !name.is_empty() && name.len() <= 253 && plain(&name.to_lowercase());
        if names.is_empty() || names.iter().any(|name| name.parse::<IpAddr>().is_err() && !dns(name)) {
            return Err("agents.names must be the DNS names or addresses at which agents reach it".to_owned());
        }
        if !(3..=30 * 24 * 60 * 60).contains(certificate_s) {
            return Err("agents.certificate_s must be 3 to 2592000".to_owned());
        }
        Ok(())
    }

    /// How agents are known here.
    #[must_use]
    pub fn enrolling(&self) -> Enrolling {
        let certificate_life = Duration::from_secs(self.certificate_s);
        Enrolling { trust_domain: self.trust_domain.clone(), certificate_life }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &str) -> Result<(), String> {
        let text = format!("listen = '0.0.0.0:8441'\n{more}");
        toml::from_str::<Agents>(&text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn what_no_certificate_can_be_issued_for_is_refused() {
        assert_eq!(
            check("trust_domain = 'bmi.example'\nnames = ['bmi.example', '192.0.2.1', '::1']"),
            Ok(())
        );
        for (wrong, field) in [
            ("trust_domain = 'BMI'\nnames = ['a']", "trust_domain"),
            ("trust_domain = 'a/b'\nnames = ['a']", "trust_domain"),
            ("trust_domain = ''\nnames = ['a']", "trust_domain"),
            ("trust_domain = 'a'\nnames = []", "names"),
            ("trust_domain = 'a'\nnames = ['https://a']", "names"),
            ("trust_domain = 'a'\nnames = ['a']\ncertificate_s = 0", "certificate_s"),
            ("trust_domain = 'a'\nnames = ['a']\nclient_ca = 'x'", "client_ca"),
        ] {
            assert!(check(wrong).unwrap_err().contains(field), "{wrong}");
        }
    }
}
