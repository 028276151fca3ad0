//! Profiles of system calls: sorted, each call once or with different arguments, each with its reason, and each used.

use bmi_sandbox::Profile;

use super::fault::Fault;
use super::sources::{Source, Tree};

/// Where they are.
const FOLDER: &str = "infra/seccomp/";

/// Checks every profile.
pub fn check(tree: &Tree) -> Vec<Fault> {
    tree.all().filter(|source| source.path.starts_with(FOLDER)).flat_map(faults).collect()
}

fn faults(source: &Source) -> Vec<Fault> {
    let fault = |what: String| Fault::of(&source.path, what);
    let name = source.path.trim_start_matches(FOLDER).trim_end_matches(".json");
    let profile = match Profile::read(name, &source.text) {
        Ok(profile) => profile,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            return vec![fault(format!("{error}{}", cause.unwrap_or_default()))];
        }
    };
    let mut faults = Vec::new();
    if profile.program != name || !Profile::names().any(|known| known == name) {
        faults.push(fault(format!("`{}` is not compiled in under the name of this file", profile.program)));
    }
    for pair in profile.allow.windows(2) {
        let [one, next] = pair else { continue };
        if one.syscall > next.syscall {
            faults.push(fault(format!("`{}` comes before `{}`: sort them", next.syscall, one.syscall)));
        }
        let same_arch = one.arch.is_none() || next.arch.is_none() || one.arch == next.arch;
        let conditions = |args: &[bmi_sandbox::profile::Argument]| {
            args.iter().map(|it| (it.index, it.mask, it.equals)).collect::<Vec<_>>()
        };
        let free = one.args.is_empty() || next.args.is_empty();
        if one.syscall == next.syscall
            && same_arch
            && (free || conditions(&one.args) == conditions(&next.args))
        {
            faults.push(fault(format!("`{}` is there twice", one.syscall)));
        }
    }
    let reasons = profile.allow.iter().map(|it| (&it.syscall, &it.why));
    for (syscall, why) in reasons.chain(profile.refuse.iter().map(|it| (&it.syscall, &it.why))) {
        if why.trim().is_empty() {
            faults.push(fault(format!("`{syscall}` has no `why`: say what an honest program needs it for")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(allow: &str) -> usize {
        let text = format!(r#"{{"program": "bmi-target", "what": "x", "refuse": [], "allow": [{allow}]}}"#);
        faults(&Source { path: "infra/seccomp/bmi-target.json".to_owned(), text }).len()
    }

    #[test]
    fn profiles_are_sorted_unique_and_explained() {
        let read = r#"{"syscall": "read", "why": "x"}"#;
        let write = r#"{"syscall": "write", "why": "x"}"#;
        let argument = |value: u32| {
            format!(
                r#"{{"syscall": "read", "args": [{{"index": 0, "equals": {value}, "is": "x"}}], "why": "x"}}"#
            )
        };
        assert_eq!(count(&format!("{read}, {write}")), 0);
        assert_eq!(count(&format!("{}, {}", argument(1), argument(2))), 0);
        assert_eq!(count(&format!("{write}, {read}")), 1);
        assert_eq!(count(&format!("{read}, {read}")), 1);
        assert_eq!(count(&format!("{read}, {}", argument(1))), 1);
        assert_eq!(count(&format!("{}, {}", argument(1), argument(1))), 1);
        assert_eq!(count(r#"{"syscall": "read", "why": " "}"#), 1);
        assert_eq!(count("nonsense"), 1);
        let unknown = r#"{"program": "other", "what": "x", "refuse": [], "allow": []}"#.to_owned();
        assert_eq!(faults(&Source { path: "infra/seccomp/other.json".to_owned(), text: unknown }).len(), 1);
    }
}
