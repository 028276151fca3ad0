//! Licences of everything that is linked in.

use cargo_metadata::Metadata;

use super::fault::Fault;

/// Licences under which BMI can be given away under Apache-2.0.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    // Or a later version of the same.
    "MPL-2.0+",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];
/// Exceptions that only permit more.
const EXCEPTIONS: &[&str] = &["LLVM-exception"];

/// Checks every package of the graph.
pub fn check(metadata: &Metadata) -> Vec<Fault> {
    let fault = |package: &cargo_metadata::Package| {
        let (name, version) = (&package.name, &package.version);
        let what = match package.license.as_deref() {
            None => format!("{name} {version} names no licence; only those in {} are allowed", file!()),
            Some(licence) if allows(licence) => return None,
            Some(licence) => {
                format!("{name} {version} is under `{licence}`, which is not allowed by {}", file!())
            }
        };
        Some(Fault::of("Cargo.lock", what))
    };
    metadata.packages.iter().filter_map(fault).collect()
}

/// Whether an SPDX expression can be met with allowed licences alone.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    either(&mut rest) == Some(true) && rest.is_empty()
}

/// Takes a token if it is the one.
fn take(rest: &mut &[&str], token: &str) -> bool {
    match rest.split_first() {
        Some((first, tail)) if first.eq_ignore_ascii_case(token) => {
            *rest = tail;
            true
        }
        _ => false,
    }
}

/// `a OR b`: one is enough. Nothing when it is not an expression.
fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut met = both(rest)?;
    while take(rest, "OR") {
        met |= both(rest)?;
    }
    Some(met)
}

/// `a AND b`: both are needed.
fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut met = one(rest)?;
    while take(rest, "AND") {
        met &= one(rest)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let met = either(rest)?;
        return take(rest, ")").then_some(met);
    }
    let (licence, tail) = rest.split_first()?;
    *rest = tail;
    let mut met = ALLOWED.contains(licence);
    if take(rest, "WITH") {
        let (exception, tail) = rest.split_first()?;
        *rest = tail;
        met &= EXCEPTIONS.contains(exception);
    }
    Some(met)
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn expressions_are_read_as_spdx_says() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "(Apache-2.0 OR MIT) AND BSD-3-Clause",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
        ] {
            assert!(allows(good), "{good}");
        }
        for bad in [
            "GPL-3.0-only",
            "MIT AND GPL-2.0",
            "(MIT OR Apache-2.0) AND LGPL-2.1-or-later",
            "AGPL-3.0 OR GPL-3.0",
            "GPL-2.0 WITH Classpath-exception-2.0",
            "MIT WITH Something-new",
            "",
            "(MIT",
            "MIT MIT",
            "MIT OR",
        ] {
            assert!(!allows(bad), "{bad}");
        }
    }
}
