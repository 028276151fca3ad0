//! Scripts: they can be run, and their shell can read them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::fault::Fault;
use super::sources::{Source, Tree};

/// Where scripts are.
const FOLDERS: &[&str] = &["infra/", ".ci/"];

/// Checks every file that begins with `#!`.
pub fn check(tree: &Tree, root: &Path) -> anyhow::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for source in tree.all().filter(|source| FOLDERS.iter().any(|folder| source.path.starts_with(folder))) {
        let path = root.join(&source.path);
        let Some(shell) = interpreter(source) else { continue };
        let mode = std::fs::metadata(&path)?.permissions().mode();
        if mode & 0o111 != 0o111 {
            faults.push(Fault::of(
                &source.path,
                format!("mode {:o}; a script is executable: 755", mode & 0o777),
            ));
        }
        if ["bash", "sh"].contains(&shell) {
            faults.extend(syntax(shell, source, &path)?);
        }
    }
    Ok(faults)
}

/// The program that a script names on its first line.
fn interpreter(source: &Source) -> Option<&str> {
    let line = source.text.lines().next()?.strip_prefix("#!")?;
    // `#![…]` begins a Rust file.
    if line.starts_with('[') {
        return None;
    }
    let mut words = line.split_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    if program == "env" { words.next() } else { Some(program) }
}

/// Lets the shell read it without running it.
fn syntax(shell: &str, source: &Source, path: &Path) -> anyhow::Result<Option<Fault>> {
    let output =
        Command::new(shell).arg("-n").arg(path).output().with_context(|| format!("cannot run {shell}"))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    let number = first.split("line ").nth(1).and_then(|rest| rest.split(':').next()?.parse().ok());
    Ok(Some(Fault::at(&source.path, number.unwrap_or(1), format!("{shell} cannot read it: {first}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "infra/x".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn the_interpreter_is_read() {
        assert_eq!(interpreter(&source("#!/usr/bin/env bash\n")), Some("bash"));
        assert_eq!(interpreter(&source("#!/bin/sh -e\n")), Some("sh"));
        assert_eq!(interpreter(&source("#![forbid(x)]\n")), None);
        assert_eq!(interpreter(&source("[Unit]\n")), None);
    }

    #[test]
    fn a_script_that_cannot_be_read_is_named_with_its_line() {
        let text = "#!/bin/bash\nif true; then\n  echo 'x\n";
        let path = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let fault = syntax("bash", &source(text), &path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(fault.line >= 2 && fault.what.contains("bash cannot read it"), "{fault}");
    }
}
