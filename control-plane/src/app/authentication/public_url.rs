//! Where browsers reach this server.

use bmi_auth::oidc::is_safe;

/// The path that providers send browsers back to.
const CALLBACK: &str = "/v1/sign-in/callback";

/// The scheme, host and port of this server, as browsers write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Reads `https://host[:port]`; `http://` only for this machine.
    ///
    /// # Errors
    /// With what is wrong, for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("must be https://HOST[:PORT], http:// only for this machine, not `{text}`");
        let url: bmi_auth::oidc::Url = text.parse().map_err(|_| wrong())?;
        if !is_safe(&url) || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        Ok(Self(url.origin().ascii_serialization()))
    }

    /// The value of a browser's `Origin`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.0
    }

    /// Where providers send browsers back to.
    #[must_use]
    pub fn callback(&self) -> String {
        format!("{}{CALLBACK}", self.0)
    }

    /// Whether browsers come over TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https://")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_and_nothing_else() {
        let origin = |text| PublicUrl::parse(text).map(|url| url.origin().to_owned());
        assert_eq!(origin("https://BMI.example.org:443/").unwrap(), "https://bmi.example.org");
        assert_eq!(origin("http://127.0.0.1:8440").unwrap(), "http://127.0.0.1:8440");
        for bad in
            ["http://bmi.example.org", "https://a/b", "https://a?b", "https://u@a", "bmi.example.org", ""]
        {
            origin(bad).unwrap_err();
        }
    }
}
