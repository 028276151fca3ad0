//! iSCSI names (RFC 7143 section 4.2.7).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{InstanceId, NodeId};

/// Longest iSCSI name in octets (RFC 7143 section 4.2.7.1).
const LONGEST: usize = 223;

/// The naming authority of names that BMI makes: a private-use domain (`.internal`), so no registration is claimed.
const AUTHORITY: &str = "iqn.2026-11.internal.bmi";

/// An iSCSI qualified name, lower case: `iqn.2026-11.internal.bmi:instance:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Iqn(String);

/// Why a text is not an iSCSI name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an iSCSI name such as iqn.2026-11.com.example:disk1")]
pub struct IqnError(pub String);

impl Iqn {
    /// The name of an instance's target. It stays the same when the instance moves to another node.
    #[must_use]
    pub fn instance_target(instance: InstanceId) -> Self {
        Self(format!("{AUTHORITY}:instance:{instance}"))
    }

    /// The name a node calls itself by.
    #[must_use]
    pub fn node_initiator(node: NodeId) -> Self {
        Self(format!("{AUTHORITY}:node:{node}"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Iqn {
    type Err = IqnError;

    /// Accepts `iqn.`, `eui.` and `naa.` names; upper-case letters are folded (RFC 3722 section 2).
    fn from_str(text: &str) -> Result<Self, IqnError> {
        let folded = text.to_ascii_lowercase();
        let known = ["iqn.", "eui.", "naa."].iter().any(|kind| folded.len() > 4 && folded.starts_with(kind));
        let clean = folded.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b':'));
        if !known || !clean || folded.len() > LONGEST {
            return Err(IqnError(text.chars().take(LONGEST).collect()));
        }
        Ok(Self(folded))
    }
}

impl TryFrom<String> for Iqn {
    type Error = IqnError;

    fn try_from(text: String) -> Result<Self, IqnError> {
        text.parse()
    }
}

impl From<Iqn> for String {
    fn from(iqn: Iqn) -> Self {
        iqn.0
    }
}

impl fmt::Display for Iqn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}
