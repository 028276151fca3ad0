//! Manifests: one version, one licence, one set of lints and one version of each dependency for all.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::Metadata;
use toml::{Table, Value};

use super::dependencies::manifest;
use super::fault::Fault;

/// What every member takes from the workspace.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];
/// The one crate with `unsafe`. What is forbidden cannot be allowed by a member: it says all of the workspace's lints again.
const UNSAFE: &str = "shared/rbd/Cargo.toml";
/// What that crate needs besides.
const UNSAFE_LINTS: &[&str] = &["undocumented_unsafe_blocks"];
/// The tables of a manifest that name dependencies.
const DEPENDENCIES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// Checks the root manifest and every member's.
pub fn check(metadata: &Metadata, root: &Path) -> anyhow::Result<Vec<Fault>> {
    let read = |path: &str| -> anyhow::Result<(String, Table)> {
        let text = std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        let table = text.parse().with_context(|| format!("cannot parse {path}"))?;
        Ok((text, table))
    };
    let (_, workspace) = read("Cargo.toml")?;
    let mut faults = workspace_faults(&workspace);
    for package in metadata.workspace_packages() {
        let path = manifest(package, root);
        let (text, table) = read(&path)?;
        faults.extend(member_faults(&path, &text, &table));
        faults.extend(lint_faults(&path, &workspace, &table));
    }
    Ok(faults)
}

fn get<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    let mut value = table.get(*first)?;
    for key in rest {
        value = value.get(key)?;
    }
    Some(value)
}

fn workspace_faults(workspace: &Table) -> Vec<Fault> {
    let mut faults = Vec::new();
    let unsafe_code = get(workspace, &["workspace", "lints", "rust", "unsafe_code"]).and_then(Value::as_str);
    if unsafe_code != Some("forbid") {
        faults.push(Fault::of("Cargo.toml", "`unsafe_code` must be `forbid` in [workspace.lints.rust]"));
    }
    let licence = get(workspace, &["workspace", "package", "license"]).and_then(Value::as_str);
    if licence != Some("Apache-2.0") {
        faults.push(Fault::of("Cargo.toml", "`license` must be `Apache-2.0` in [workspace.package]"));
    }
    faults
}

fn is_inherited(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
}

fn line_of(text: &str, beginning: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(beginning)).map_or(1, |index| index + 1)
}

fn lint_faults(path: &str, workspace: &Table, member: &Table) -> Vec<Fault> {
    if path != UNSAFE {
        let inherited = is_inherited(member.get("lints").map(|lints| lints as &Value));
        let what = "the workspace's lints do not apply; write `[lints]` and `workspace = true`";
        return if inherited { Vec::new() } else { vec![Fault::of(path, what)] };
    }
    let mut faults = Vec::new();
    for group in ["rust", "clippy"] {
        let wanted = get(workspace, &["workspace", "lints", group]).and_then(Value::as_table);
        let wanted = wanted.into_iter().flatten().filter(|(lint, _)| *lint != "unsafe_code");
        let of_member = |lint: &str| get(member, &["lints", group, lint]);
        for (lint, level) in wanted.filter(|(lint, level)| of_member(lint) != Some(level)) {
            faults.push(Fault::of(
                path,
                format!("`{lint}` must be {level} in [lints.{group}], as in the workspace"),
            ));
        }
    }
    for lint in UNSAFE_LINTS {
        if get(member, &["lints", "clippy", lint]).and_then(Value::as_str) != Some("deny") {
            faults.push(Fault::of(path, format!("`{lint}` must be `deny` in [lints.clippy]")));
        }
    }
    faults
}

fn member_faults(path: &str, text: &str, member: &Table) -> Vec<Fault> {
    let mut faults = Vec::new();
    for key in INHERITED {
        if !is_inherited(get(member, &["package", key])) {
            let what = format!("`{key}` is the member's own; write `{key}.workspace = true`");
            faults.push(Fault::at(path, line_of(text, key), what));
        }
    }
    for kind in DEPENDENCIES {
        for (name, value) in member.get(*kind).and_then(Value::as_table).into_iter().flatten() {
            if !is_inherited(Some(value)) {
                let what = format!("`{name}` has a version of its own; write `{name}.workspace = true`");
                faults.push(Fault::at(path, line_of(text, name), what));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(text: &str) -> Vec<(usize, String)> {
        let faults = member_faults("x/Cargo.toml", text, &text.parse().unwrap());
        faults.into_iter().map(|fault| (fault.line, fault.what)).collect()
    }

    #[test]
    fn a_member_that_inherits_everything_is_right() {
        let text = "[package]\nname = \"x\"\nversion.workspace = true\nedition.workspace = true\n\
                    rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
                    [lints]\nworkspace = true\n[dependencies]\na.workspace = true\nb = { workspace = true }\n";
        assert_eq!(whats(text), []);
    }

    #[test]
    fn what_is_a_members_own_is_named_with_its_line() {
        let text = "[package]\nname = \"x\"\nversion = \"1\"\nedition.workspace = true\n\
                    rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
                    [dev-dependencies]\nrand = \"1\"\n";
        let found = whats(text);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 9], "{found:?}");
    }

    #[test]
    fn lints_are_inherited_but_by_the_crate_with_unsafe_which_says_all_of_them() {
        let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"warn\"\n\
                         [workspace.lints.clippy]\npanic = \"deny\"\n";
        let faults = |path: &str, member: &str| {
            lint_faults(path, &workspace.parse().unwrap(), &member.parse().unwrap()).len()
        };
        assert_eq!(faults("x/Cargo.toml", "[lints]\nworkspace = true\n"), 0);
        let own = "[lints.rust]\nunsafe_code = \"allow\"\nmissing_docs = \"warn\"\n\
                   [lints.clippy]\npanic = \"deny\"\nundocumented_unsafe_blocks = \"deny\"\n";
        assert_eq!(faults("x/Cargo.toml", own), 1);
        assert_eq!(faults(UNSAFE, own), 0);
        assert_eq!(faults(UNSAFE, &own.replace("panic = \"deny\"", "panic = \"warn\"")), 1);
        assert_eq!(faults(UNSAFE, ""), 3);
    }

    #[test]
    fn the_workspace_forbids_unsafe_code() {
        let good =
            "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n[workspace.package]\nlicense = \"Apache-2.0\"";
        assert!(workspace_faults(&good.parse().unwrap()).is_empty());
        assert_eq!(workspace_faults(&good.replace("forbid", "warn").parse().unwrap()).len(), 1);
        assert_eq!(workspace_faults(&Table::new()).len(), 2);
    }
}
