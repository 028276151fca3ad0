//! Who reads and writes the database without a caller's scope: a list that people review, and nobody else.

use super::fault::Fault;
use super::sources::{Source, Tree, code};

/// How a transaction of the system itself is begun.
const BEGINS: &[&str] = &[".system_read", ".system_write"];
/// Where requests are answered: everything there is done for a caller.
const OF_CALLERS: &[&str] = &["control-plane/src/http/", "control-plane/src/app/"];
/// What there has no caller, and why.
const OF_THE_SYSTEM: &[(&str, &str)] = &[
    ("control-plane/src/app/access.rs", "it begins the scopes of callers, and writes what was refused"),
    ("control-plane/src/app/agent.rs", "an agent speaks for its network"),
    (
        "control-plane/src/app/agent_replace.rs",
        "it fences every volume of a network, once its caller may give it away",
    ),
    ("control-plane/src/app/audit.rs", "the chain is of everybody's lines; who reads it is decided before"),
    ("control-plane/src/app/authentication/mod.rs", "it finds out who calls"),
    ("control-plane/src/app/boot_watch.rs", "it judges every boot"),
    ("control-plane/src/app/desired.rs", "an agent speaks for its network"),
    ("control-plane/src/app/enrolment.rs", "nobody has joined yet, or an agent speaks for itself"),
    ("control-plane/src/app/metrics.rs", "it counts everything; who reads it is decided before"),
    ("control-plane/src/app/policies.rs", "it loads what decides"),
    ("control-plane/src/app/sign_in.rs", "nobody has signed in yet"),
    ("control-plane/src/app/upload.rs", "it keeps the lease of an upload that was allowed"),
    ("control-plane/src/http/health.rs", "it looks whether the database answers"),
    ("control-plane/src/http/idempotency.rs", "a key belongs to its caller"),
];

/// Checks every Rust file.
pub fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults: Vec<Fault> = tree.rust().flat_map(faults).collect();
    for (path, _) in OF_THE_SYSTEM {
        let begins = tree.rust().any(|source| source.path == *path && lines(source).next().is_some());
        if !begins {
            faults.push(Fault::of(*path, "it needs no scope of the system any more: take it off the list"));
        }
    }
    faults
}

fn lines(source: &Source) -> impl Iterator<Item = usize> {
    let begins = |line: &&str| BEGINS.iter().any(|begin| code(line).contains(begin));
    (1..).zip(source.text.lines()).filter(move |(_, line)| begins(line)).map(|(number, _)| number)
}

fn faults(source: &Source) -> Vec<Fault> {
    let of_callers = OF_CALLERS.iter().any(|folder| source.path.starts_with(folder));
    if !of_callers || OF_THE_SYSTEM.iter().any(|(path, _)| source.path == *path) {
        return Vec::new();
    }
    let what = "a request reads and writes as its caller: `App::reading`, `App::changing`";
    lines(source).map(|line| Fault::at(&source.path, line, what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> usize {
        let text = "//! x\napp.db\n    .system_read(read)\n// .system_write(\n".to_owned();
        faults(&Source { path: path.to_owned(), text }).len()
    }

    #[test]
    fn a_request_without_a_caller_is_found() {
        assert_eq!(found("control-plane/src/app/image.rs"), 1);
        assert_eq!(found("control-plane/src/http/image.rs"), 1);
        assert_eq!(found("control-plane/src/app/desired.rs"), 0);
        assert_eq!(found("control-plane/src/workflows/image.rs"), 0);
    }
}
