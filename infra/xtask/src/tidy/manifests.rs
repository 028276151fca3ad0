//! Manifests: one version, one licence, one set of lints and one version of each dependency for all.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::Metadata;
use toml::{Table, Value};

use super::dependencies::manifest;
use super::fault::Fault;

/// What every member takes from the workspace.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];
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

fn member_faults(path: &str, text: &str, member: &Table) -> Vec<Fault> {
    let mut faults = Vec::new();
    for key in INHERITED {
        if !is_inherited(get(member, &["package", key])) {
            let what = format!("`{key}` is the member's own; write `{key}.workspace = true`");
            faults.push(Fault::at(path, line_of(text, key), what));
        }
    }
    if !is_inherited(member.get("lints").map(|lints| lints as &Value)) {
        faults.push(Fault::of(
            path,
            "the workspace's lints do not apply; write `[lints]` and `workspace = true`",
        ));
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
        assert_eq!(lines, [3, 1, 9], "{found:?}");
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
