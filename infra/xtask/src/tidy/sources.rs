//! The text of the repository: headers, names of files, crates that may only be used in some places, words.

use std::path::Path;

use anyhow::Context;

use super::fault::Fault;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "data"];
/// The largest file that is read: a text is smaller.
const TEXT_MAX: u64 = 1 << 20;

/// What only some folders may use, and why. A path is in a folder when it begins with its name.
const USES: &[(&[&str], &[&str], &str)] = &[
    (
        &["rtnetlink", "nftables", "netlink_packet_route", "bollard"],
        &["tenant-agent/src/drivers/"],
        "links, rules and containers are made behind the drivers' traits",
    ),
    (
        &["actix_web", "actix_http", "actix_rt"],
        &["control-plane/src/http/", "control-plane/src/main.rs", "tenant-agent/netboot/"],
        "the application layer knows no HTTP",
    ),
    (&["diesel"], &["control-plane/db/"], "SQL is in one crate"),
];
/// Names that say nothing of what a file holds.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "manager", "misc"];
/// What the root holds, apart from what begins with a dot.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "control-plane",
    "docs",
    "infra",
    "migrations",
    "policies",
    "rustfmt.toml",
    "shared",
    "tenant-agent",
    "tests",
];
/// Words that mark something unfinished, taken apart so that this file does not contain them.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// A file of the repository.
pub struct Source {
    /// From the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// Every text of the repository.
pub struct Tree {
    sources: Vec<Source>,
}

impl Tree {
    /// Reads the repository.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut sources = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
            for entry in entries {
                let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
                if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                    folders.push(path);
                } else if kind.is_file() && path.metadata()?.len() <= TEXT_MAX {
                    // What is not a text is not read.
                    if let Ok(text) = String::from_utf8(std::fs::read(&path)?) {
                        sources.push(Source { path: name, text });
                    }
                }
            }
        }
        Ok(Self { sources })
    }

    /// Every file.
    pub fn all(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    /// Every Rust file.
    pub fn rust(&self) -> impl Iterator<Item = &Source> {
        self.all().filter(|source| source.path.ends_with(".rs"))
    }
}

/// Checks every file.
pub fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for source in tree.rust() {
        faults.extend(header(source));
        faults.extend(uses(source));
    }
    for source in tree.all() {
        faults.extend(empty_name(source));
        faults.extend(unfinished(source));
        faults.extend(stray(source));
    }
    faults
}

fn header(source: &Source) -> Option<Fault> {
    let is_module = source.path.contains("/src/");
    let begins = source.text.trim_start().starts_with("//!");
    let what = "the file does not say what it is; begin with a `//!` header";
    (is_module && !begins).then(|| Fault::of(&source.path, what))
}

/// The code of a line: without what follows `//`. A string with `//` is cut short, which no use of a crate needs.
pub fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// Whether a line of code uses a crate by its path.
fn uses_crate(line: &str, name: &str) -> bool {
    let code = code(line);
    let path = format!("{name}::");
    let at_word = |at: usize| {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        !before
            .is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':' || letter == '"')
    };
    code.match_indices(&path).any(|(at, _)| at_word(at)) || code.trim() == format!("use {name};")
}

fn uses(source: &Source) -> Vec<Fault> {
    // A test may look at anything with any tool; the tests of this file hold what it looks for.
    if source.path.starts_with("tests/") || source.path.contains("/tests/") || source.path.ends_with(file!())
    {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (crates, folders, reason) in USES {
        if folders.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        for (line, text) in (1..).zip(source.text.lines()) {
            for name in crates.iter().filter(|name| uses_crate(text, name)) {
                let places = folders.join(", ");
                faults.push(Fault::at(
                    &source.path,
                    line,
                    format!("`{name}` belongs into {places}: {reason}"),
                ));
            }
        }
    }
    faults
}

fn empty_name(source: &Source) -> Option<Fault> {
    let said = source.path.split('/').find(|part| {
        let stem = part.split_once('.').map_or(*part, |(stem, _)| stem);
        EMPTY_NAMES.contains(&stem)
    })?;
    Some(Fault::of(&source.path, format!("`{said}` says nothing; name the noun or the verb it holds")))
}

/// What a program left behind and somebody took for a file of the repository.
fn stray(source: &Source) -> Option<Fault> {
    let top = source.path.split('/').next()?;
    if !top.starts_with('.') && !TOP.contains(&top) {
        let what = format!("`{top}` is no part of the root: {}", TOP.join(", "));
        return Some(Fault::of(&source.path, what));
    }
    source.text.is_empty().then(|| Fault::of(&source.path, "the file is empty; remove it"))
}

fn unfinished(source: &Source) -> Vec<Fault> {
    let is_word = |text: &str, word: &str| {
        text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part == word)
    };
    let mut faults = Vec::new();
    for (line, text) in (1..).zip(source.text.lines()) {
        for word in UNFINISHED.iter().filter(|word| is_word(text, word)) {
            let what = format!("`{word}`: do it, or write an issue and say what is so today");
            faults.push(Fault::at(&source.path, line, what));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_module_begins_with_a_header() {
        assert_eq!(header(&source("a/src/b.rs", "//! What it is.\n")), None);
        assert_eq!(header(&source("a/build.rs", "fn main() {}\n")), None);
        assert!(header(&source("a/src/b.rs", "use std::fmt;\n//! late\n")).is_some());
    }

    #[test]
    fn crates_are_used_where_they_belong() {
        let text =
            "//! x\nuse nftables::batch::Batch;\n// nftables::x in a comment\nlet a = my_nftables::x;\n";
        let found = uses(&source("tenant-agent/src/check.rs", text));
        assert_eq!(found.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2]);
        assert!(uses(&source("tenant-agent/src/drivers/firewall/mod.rs", text)).is_empty());
        assert!(uses(&source("tenant-agent/tests/agent.rs", text)).is_empty());
        let http = "fn f(x: actix_web::HttpRequest) {}\n";
        assert_eq!(uses(&source("control-plane/src/app/node.rs", http)).len(), 1);
        assert!(uses(&source("control-plane/src/http/node.rs", http)).is_empty());
        assert_eq!(uses(&source("control-plane/src/app/node.rs", "use diesel::prelude::*;")).len(), 1);
        assert!(uses(&source("control-plane/src/app/node.rs", "use bmi_db::diesel_x::y;")).is_empty());
    }

    #[test]
    fn what_was_left_behind_is_found() {
        assert!(stray(&source("oom", "")).is_some());
        assert!(stray(&source("notes.txt", "text")).is_some());
        assert!(stray(&source("tenant-agent/oom", "")).is_some());
        assert_eq!(stray(&source("docs/api.md", "text")), None);
        assert_eq!(stray(&source(".ci/run", "text")), None);
    }

    #[test]
    fn empty_names_and_unfinished_work_are_found() {
        assert!(empty_name(&source("a/src/utils.rs", "")).is_some());
        assert!(empty_name(&source("a/common/x.rs", "")).is_some());
        assert!(empty_name(&source("a/src/communication.rs", "")).is_none());
        let text = format!("ok\n// {}: later\nto{}s\n", UNFINISHED[0], UNFINISHED[0]);
        assert_eq!(
            unfinished(&source("README.md", &text)).iter().map(|fault| fault.line).collect::<Vec<_>>(),
            [2]
        );
    }
}
