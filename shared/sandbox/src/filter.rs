//! A profile as a filter of the kernel: seccomp.
//!
//! Two programs, since one of them has one answer: the first answers the calls that are refused with their error, the
//! second ends the process at whatever is not allowed. The kernel takes the strictest answer.

use std::collections::HashMap;

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

use crate::profile::{Allowed, Argument, Profile};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Of which architecture this is, nobody knows.
    #[error("there is no filter for this machine's architecture")]
    Architecture(#[source] seccompiler::BackendError),
    /// A call that is not one, or a comparison that cannot be made.
    #[error("the profile `{program}` cannot be compiled")]
    Compile {
        /// Of which program.
        program: String,
        /// Why.
        #[source]
        source: seccompiler::Error,
    },
    /// The kernel.
    #[error("the kernel does not take the filter")]
    Apply(#[source] seccompiler::Error),
}

/// Filters that are ready.
#[derive(Debug)]
pub struct Filters(Vec<BpfProgram>);

fn condition(argument: &Argument) -> Value {
    let operator = argument.mask.map_or_else(|| json!("eq"), |mask| json!({ "masked_eq": mask }));
    let width = if argument.wide { "qword" } else { "dword" };
    json!({ "index": argument.index, "type": width, "op": operator, "val": argument.equals })
}

fn rule(allowed: &Allowed) -> Value {
    match allowed.args.as_slice() {
        [] => json!({ "syscall": allowed.syscall }),
        args => json!({ "syscall": allowed.syscall, "args": args.iter().map(condition).collect::<Vec<_>>() }),
    }
}

/// Compiles a profile for this machine.
///
/// # Errors
/// When it names a call that does not exist here.
pub fn compile(profile: &Profile) -> Result<Filters, FilterError> {
    compile_for(profile, std::env::consts::ARCH)
}

fn compile_for(profile: &Profile, arch: &str) -> Result<Filters, FilterError> {
    let target = TargetArch::try_from(arch).map_err(FilterError::Architecture)?;
    let mut programs = Vec::new();
    for refused in &profile.refuse {
        programs.push(json!({ "only": {
            "mismatch_action": "allow",
            "match_action": { "errno": refused.errno },
            "filter": [{ "syscall": refused.syscall }],
        }}));
    }
    let refused = profile.refuse.iter().map(|refused| json!({ "syscall": refused.syscall }));
    let rules: Vec<Value> = profile.allowed_on(arch).map(rule).chain(refused).collect();
    programs.push(json!({ "only": {
        "mismatch_action": "kill_process",
        "match_action": "allow",
        "filter": rules,
    }}));
    let compiled = programs.iter().map(|program| {
        let compiled: HashMap<String, BpfProgram> =
            compile_from_json(program.to_string().as_bytes(), target)?;
        Ok(compiled.into_values().next().unwrap_or_default())
    });
    compiled
        .collect::<Result<_, _>>()
        .map(Filters)
        .map_err(|source| FilterError::Compile { program: profile.program.clone(), source })
}

impl Filters {
    /// Puts the filters in force for the calling thread and what it becomes. The one that ends the process is the
    /// last, since it forbids to add another.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(&self) -> Result<(), FilterError> {
        self.0.iter().try_for_each(|program| apply_filter(program)).map_err(FilterError::Apply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_compiles_for_both_architectures() {
        for name in Profile::names() {
            let profile = Profile::of(name).unwrap();
            assert_eq!(profile.program, name);
            for arch in ["x86_64", "aarch64"] {
                let filters = compile_for(&profile, arch).unwrap();
                assert_eq!(filters.0.len(), profile.refuse.len() + 1, "{name} {arch}");
                assert!(filters.0.iter().all(|program| (5..4096).contains(&program.len())), "{name} {arch}");
            }
        }
    }

    #[test]
    fn a_call_that_does_not_exist_is_told() {
        let text =
            r#"{"program": "x", "what": "", "refuse": [], "allow": [{"syscall": "nosuch", "why": ""}]}"#;
        let error = compile(&Profile::read("x", text).unwrap()).unwrap_err();
        assert!(matches!(error, FilterError::Compile { program, .. } if program == "x"));
    }
}
