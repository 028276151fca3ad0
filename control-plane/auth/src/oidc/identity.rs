//! Who somebody is, from claims whose signature was checked.

use serde_json::{Map, Value};

use super::settings::ProviderSettings;
use crate::Subject;

/// The longest `sub` (OpenID Connect Core section 2).
const SUB_MAX: usize = 255;
/// The longest name for people that is kept, in characters.
const DISPLAY_MAX: usize = 128;
/// The most groups that count: a session is read with each request.
const GROUPS_MAX: usize = 256;
/// The longest group that counts, in bytes.
const GROUP_MAX: usize = 256;

/// Claims by name.
pub(super) type Claims = Map<String, Value>;

/// Somebody whom a provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's name.
    pub provider: String,
    /// Who.
    pub subject: Subject,
    /// A name for people.
    pub display: String,
    /// The groups.
    pub groups: Vec<Subject>,
}

impl Identity {
    /// Reads claims. Answers nothing without a `sub` that can be used.
    pub(super) fn of(settings: &ProviderSettings, claims: &Claims) -> Option<Self> {
        let sub = claims.get("sub")?.as_str()?;
        if sub.is_empty() || sub.len() > SUB_MAX || sub.chars().any(char::is_control) {
            return None;
        }
        let display = ["name", "preferred_username", "email"]
            .into_iter()
            .find_map(|claim| claims.get(claim)?.as_str())
            .unwrap_or(sub);
        let display = display.chars().filter(|c| !c.is_control()).take(DISPLAY_MAX).collect();
        let mut groups: Vec<Subject> = values(settings, claims).map(|value| settings.group(&value)).collect();
        groups.sort();
        groups.dedup();
        if groups.len() > GROUPS_MAX {
            tracing::warn!(provider = %settings.name, "somebody is in more than {GROUPS_MAX} groups; the rest do not count");
            groups.truncate(GROUPS_MAX);
        }
        let provider = settings.name.to_string();
        let subject = Subject::user(&provider, sub);
        Some(Self { provider, subject, display, groups })
    }
}

/// Whether claims say anything of groups.
pub(super) fn says_groups(settings: &ProviderSettings, claims: &Claims) -> bool {
    std::iter::once(&settings.groups_claim).chain(&settings.claims).all(|name| find(claims, name).is_some())
}

/// Every group, as roles are bound to it.
fn values(settings: &ProviderSettings, claims: &Claims) -> impl Iterator<Item = String> {
    // A group whose own name has the form of another claim's value would be taken for that.
    let forged = |group: &str| settings.claims.iter().any(|claim| group.starts_with(&format!("{claim}=")));
    let groups =
        texts(find(claims, &settings.groups_claim)).filter(move |group| !forged(group)).map(str::to_owned);
    let others = settings
        .claims
        .iter()
        .flat_map(|name| texts(find(claims, name)).map(move |value| format!("{name}={value}")));
    let usable = |group: &String| {
        !group.is_empty() && group.len() <= GROUP_MAX && !group.chars().any(char::is_control)
    };
    groups.chain(others).filter(usable)
}

/// A claim by its name, or inside of others by a path of names.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (outer, rest) = name.split_once('.')?;
        find(claims.get(outer)?.as_object()?, rest)
    })
}

/// A text, or the texts of a list.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match value {
        Some(Value::Array(many)) => (None, many.as_slice()),
        one => (one, [].as_slice()),
    };
    one.into_iter().chain(many).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(more: &str) -> ProviderSettings {
        let text = format!("name = 'corp'\nissuer = 'https://id.example.org'\nclient_id = 'bmi'\n{more}");
        toml::from_str(&text).unwrap()
    }

    fn of(settings: &ProviderSettings, claims: &Value) -> Option<Identity> {
        Identity::of(settings, claims.as_object().unwrap())
    }

    #[test]
    fn groups_and_other_claims_become_subjects() {
        let settings = settings("groups_claim = 'realm.roles'\nclaims = ['team']");
        let claims = json!({"sub": "1", "name": "Ada\nL", "realm": {"roles": ["ops", "team=kernel", 7, ""]}, "team": "net"});
        let identity = of(&settings, &claims).unwrap();
        assert_eq!(identity.subject.as_str(), "user:corp:1");
        assert_eq!(identity.display, "AdaL");
        let groups: Vec<&str> = identity.groups.iter().map(Subject::as_str).collect();
        assert_eq!(
            groups,
            ["group:corp:ops", "group:corp:team=net"],
            "a group cannot stand for another claim"
        );
        assert!(says_groups(&settings, claims.as_object().unwrap()));
        assert!(!says_groups(&settings, json!({"sub": "1"}).as_object().unwrap()));
    }

    #[test]
    fn without_a_usable_sub_there_is_nobody() {
        let settings = settings("");
        let long = "x".repeat(256);
        for claims in
            [json!({}), json!({"sub": ""}), json!({"sub": 1}), json!({"sub": "a\nb"}), json!({"sub": long})]
        {
            assert_eq!(of(&settings, &claims), None, "{claims}");
        }
        let many: Vec<String> = (0..300).map(|n| format!("g{n}")).collect();
        assert_eq!(of(&settings, &json!({"sub": "a", "groups": many})).unwrap().groups.len(), GROUPS_MAX);
    }
}
