//! Who may depend on whom: our own crates, crates of others that belong to one place, and crates that are banned.

use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, Package};

use super::fault::Fault;

/// Which of our crates each of them may name, and why no other. `*` is any.
const OURS: &[(&str, &[&str], &str)] = &[
    ("bmi-types", &[], "it is the foundation: words that everybody shares"),
    ("bmi-iscsi", &[], "the protocol knows nothing of BMI, so that it can be used and fuzzed alone"),
    ("bmi-sandbox", &[], "it is applied by who starts a program, whatever the program is"),
    ("bmi-block", &["bmi-types"], "block devices know nothing of who serves them"),
    ("bmi-rbd", &["bmi-types"], "the only crate with `unsafe` stays small"),
    ("bmi-workflow", &["bmi-types"], "the engine knows no database and no domain"),
    ("bmi-api", &["bmi-types"], "resources are data"),
    ("bmi-agent-api", &["bmi-types"], "messages are data"),
    ("bmi-auth", &["bmi-types", "bmi-api"], "who is calling is known before anything is read"),
    (
        "bmi-drivers",
        &["bmi-types", "bmi-rbd", "bmi-agent-api", "bmi-sandbox"],
        "drivers know no project, request or database",
    ),
    ("bmi-netboot", &["bmi-types", "bmi-agent-api"], "it hears tenants: it holds nothing else"),
    (
        "bmi-target",
        &["bmi-types", "bmi-agent-api", "bmi-block", "bmi-iscsi"],
        "it hears tenants: it holds nothing else",
    ),
    (
        "bmi-broker",
        &["bmi-types", "bmi-agent-api", "bmi-block", "bmi-rbd"],
        "it holds one key and serves one volume",
    ),
    ("bmi-agent", &["bmi-types", "bmi-agent-api", "bmi-sandbox"], "it trusts only the messages"),
    (
        "bmi-db",
        &["bmi-types", "bmi-api", "bmi-workflow", "bmi-auth", "bmi-drivers"],
        "it keeps what those declare, and decides nothing",
    ),
    (
        "bmi-control-plane",
        &[
            "bmi-types",
            "bmi-api",
            "bmi-agent-api",
            "bmi-workflow",
            "bmi-auth",
            "bmi-drivers",
            "bmi-db",
            "bmi-sandbox",
        ],
        "it is never in the data path",
    ),
    ("bmi-cli", &["bmi-types", "bmi-api"], "it can do what the API can, and no more"),
    ("bmi-tests", &["*"], "tests may use anything"),
    ("bmi-fuzz", &["bmi-iscsi"], "what is fuzzed is built alone, and quickly"),
    ("xtask", &["bmi-sandbox"], "tasks of the repository work when little of it compiles"),
];

/// Crates of others (by the beginning of their name) that only some of ours may name, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("actix", &["bmi-control-plane", "bmi-netboot"], "HTTP servers are there only"),
    ("diesel", &["bmi-db"], "SQL is there only"),
    ("libsqlite3-sys", &["bmi-db"], "SQL is there only"),
    ("pq-sys", &["bmi-db"], "SQL is there only"),
    ("rtnetlink", &["bmi-agent"], "wiring is the agent's"),
    ("netlink-", &["bmi-agent"], "wiring is the agent's"),
    ("nftables", &["bmi-agent"], "wiring is the agent's"),
    ("bollard", &["bmi-agent"], "containers are the agent's"),
    ("anyhow", &["bmi-cli", "bmi-tests", "xtask"], "a library's errors have types"),
];

/// Crates that nothing may pull in, directly or not, and why.
const BANNED: &[(&str, &str)] = &[
    (
        "ceph",
        "its monitor commands read what they have freed when they are refused (3.2.5); there is `bmi-rbd`",
    ),
    ("actix-governor", "its licence is the GPL; limits are in our own middleware"),
    ("rustables", "its licence is the GPL; `nftables` speaks the same language through the program `nft`"),
    ("diesel-adapter", "a second schema; policies are read by our own adapter"),
    ("sqlx", "a second way to the database; there is diesel"),
    ("rusqlite", "a second way to the database; there is diesel"),
    ("ring", "a second cryptographic library; there is RustCrypto, and rustls with its default provider"),
    ("openssl", "a second TLS; there is rustls"),
    ("openssl-sys", "a second TLS; there is rustls"),
    ("native-tls", "a second TLS; there is rustls"),
    ("rustls-pemfile", "unmaintained; `rustls-pki-types` reads PEM"),
    ("serde_yaml", "unmaintained; there is `serde_yaml_ng`"),
    ("tokio-uring", "a second runtime; there is tokio"),
];

/// Checks every dependency of the workspace.
pub fn check(metadata: &Metadata, root: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    for package in metadata.workspace_packages() {
        let path = manifest(package, root);
        // Tests may use the harness, wherever they are.
        let named = package
            .dependencies
            .iter()
            .filter(|one| one.kind != DependencyKind::Development || one.name != "bmi-tests")
            .map(|dependency| dependency.name.as_str());
        faults.extend(
            named_faults(package.name.as_str(), named).into_iter().map(|what| Fault::of(&path, what)),
        );
    }
    let names = metadata.packages.iter().map(|package| package.name.as_str());
    let names = names.filter(|name| !BANNED.iter().any(|(banned, _)| banned == name) || is_built(name));
    faults.extend(banned(names).map(|what| Fault::of("Cargo.lock", what)));
    faults
}

/// Whether a package is ever built: one that only an optional part of another would want, and which nothing asks for, is
/// in the metadata as well.
fn is_built(name: &str) -> bool {
    let tree = std::process::Command::new("cargo").args(["tree", "-i", name, "--target", "all"]).output();
    // What cannot be asked counts as built.
    tree.map_or(true, |tree| !tree.stdout.is_empty() || !tree.status.success())
}

/// The path of a member's manifest from the root.
pub fn manifest(package: &Package, root: &Path) -> String {
    let path = package.manifest_path.as_std_path();
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn named_faults<'a>(package: &str, named: impl Iterator<Item = &'a str>) -> Vec<String> {
    let Some((_, allowed, reason)) = OURS.iter().find(|(name, ..)| *name == package) else {
        return vec![format!(
            "`{package}` has no place in the direction of dependencies; add it to {}",
            file!()
        )];
    };
    let mut faults = Vec::new();
    for name in named {
        let ours = OURS.iter().any(|(crate_name, ..)| *crate_name == name);
        if ours && !allowed.contains(&"*") && !allowed.contains(&name) {
            faults.push(format!("`{package}` must not depend on `{name}`: {reason}"));
        }
        for (prefix, users, reason) in RESERVED {
            if name.starts_with(prefix) && !users.contains(&package) && package != "bmi-tests" {
                let users = users.join(", ");
                faults.push(format!("`{package}` must not depend on `{name}`: {reason} ({users})"));
            }
        }
    }
    faults
}

fn banned<'a>(all: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    all.filter_map(|name| BANNED.iter().find(|(banned, _)| *banned == name)).map(|(name, reason)| {
        format!("`{name}` is banned: {reason}; `cargo tree -i {name}` shows who wants it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(package: &str, named: &[&str]) -> Vec<String> {
        named_faults(package, named.iter().copied())
    }

    #[test]
    fn what_points_downwards_is_right() {
        assert!(faults("bmi-control-plane", &["bmi-db", "bmi-types", "actix-web", "tokio"]).is_empty());
        assert!(faults("bmi-tests", &["bmi-iscsi", "bmi-db", "anyhow", "diesel"]).is_empty());
    }

    #[test]
    fn what_points_upwards_or_sideways_is_named() {
        assert_eq!(faults("bmi-types", &["bmi-api"]).len(), 1);
        assert!(faults("bmi-cli", &["bmi-db"])[0].contains("must not depend on `bmi-db`"));
        assert_eq!(faults("bmi-agent", &["bmi-iscsi", "bmi-target"]).len(), 2);
        assert!(faults("bmi-new", &[])[0].contains("no place"));
    }

    #[test]
    fn reserved_and_banned_crates_are_named() {
        assert!(faults("bmi-drivers", &["diesel_migrations"])[0].contains("(bmi-db)"));
        assert_eq!(faults("bmi-types", &["actix-web", "anyhow", "netlink-packet-route"]).len(), 3);
        let found: Vec<String> =
            banned(["ring", "rustls", "openssl-sys", "serde_yaml_ng"].into_iter()).collect();
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn the_table_only_names_crates_that_are_in_it() {
        for (name, allowed, _) in OURS {
            for other in allowed.iter().filter(|other| **other != "*") {
                assert!(OURS.iter().any(|(known, ..)| known == other), "{name}: {other}");
            }
        }
    }
}
