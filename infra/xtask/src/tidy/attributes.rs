//! Attributes: every lint that is switched off says why, and no test is left out.

use super::fault::Fault;
use super::sources::{Source, Tree, code};

/// Checks every Rust file.
pub fn check(tree: &Tree) -> Vec<Fault> {
    tree.rust().flat_map(faults).collect()
}

fn faults(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (line, attribute) in attributes(&source.text) {
        let body = attribute.trim_start_matches(['#', '!', '[']).trim_start();
        let lint = ["allow", "expect"].iter().find(|name| {
            let called = |text: &str| text.strip_prefix(**name).is_some_and(|rest| rest.starts_with('('));
            called(body) || body.starts_with("cfg_attr") && attribute.contains(&format!(" {name}("))
        });
        if let Some(lint) = lint
            && !attribute.contains("reason =")
        {
            let what = format!("`{lint}` without a reason; add `reason = \"…\"` that states the invariant");
            faults.push(Fault::at(&source.path, line, what));
        }
        if body.starts_with("ignore") {
            let what = "a test that is left out looks green; let it fail, or take it out";
            faults.push(Fault::at(&source.path, line, what));
        }
        if attribute.contains("unsafe_code") && !body.starts_with("forbid(") {
            faults.push(Fault::at(&source.path, line, "`unsafe_code` is forbidden everywhere"));
        }
    }
    faults
}

/// Attributes that begin a line, with the number of that line and up to their closing bracket.
fn attributes(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        if !trimmed.starts_with("#[") && !trimmed.starts_with("#![") {
            continue;
        }
        let mut attribute = String::new();
        for line in lines.iter().skip(at) {
            attribute.push_str(code(line).trim());
            attribute.push(' ');
            let count = |letter| attribute.matches(letter).count();
            if count('[') <= count(']') {
                break;
            }
        }
        found.push((at + 1, attribute));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let source = Source { path: "a/src/b.rs".to_owned(), text: text.to_owned() };
        faults(&source).iter().map(|fault| fault.line).collect()
    }

    #[test]
    fn a_lint_is_switched_off_with_a_reason() {
        assert_eq!(lines("#[allow(dead_code)]\nfn f() {}\n"), [1]);
        assert_eq!(lines("#[expect(dead_code, reason = \"x\")]\n"), [] as [usize; 0]);
        assert_eq!(lines("#![expect(\n    clippy::panic,\n    reason = \"x\"\n)]\n"), [] as [usize; 0]);
        assert_eq!(lines("mod a;\n#![allow(\n    clippy::panic,\n)]\n// reason = \"elsewhere\"\n"), [2]);
        assert_eq!(lines("    #[cfg_attr(test, allow(dead_code))]\n"), [1]);
        assert_eq!(lines("let x = y.expect(\"z\");\n#[derive(Debug)]\n#[allowed(x)]\n"), [] as [usize; 0]);
    }

    #[test]
    fn left_out_tests_and_unsafe_code_are_found() {
        assert_eq!(lines(concat!("#[test]\n#[ig", "nore]\nfn f() {}\n")), [2]);
        assert_eq!(lines("#[allow(unsafe_code, reason = \"quick\")]\n"), [1]);
        assert_eq!(lines("#![forbid(unsafe_code)]\n"), [] as [usize; 0]);
    }
}
