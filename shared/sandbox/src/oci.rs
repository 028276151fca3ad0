//! A profile as container engines read it: `docker run --security-opt seccomp=FILE`, and `linux.seccomp` of the OCI
//! runtime specification.

use serde_json::{Value, json};

use crate::profile::{Allowed, Argument, Profile};

/// The architectures a profile is written for: theirs and ours.
const ARCHITECTURES: [(&str, &str); 2] = [("SCMP_ARCH_X86_64", "x86_64"), ("SCMP_ARCH_AARCH64", "aarch64")];

fn condition(argument: &Argument) -> Value {
    match argument.mask {
        None => json!({ "index": argument.index, "value": argument.equals, "op": "SCMP_CMP_EQ" }),
        Some(mask) => json!({
            "index": argument.index, "value": mask, "valueTwo": argument.equals, "op": "SCMP_CMP_MASKED_EQ",
        }),
    }
}

fn call(allowed: &Allowed) -> Value {
    let args: Vec<Value> = allowed.args.iter().map(condition).collect();
    json!({ "names": [allowed.syscall], "action": "SCMP_ACT_ALLOW", "args": args, "comment": allowed.why })
}

/// The profile for one architecture, as text. Calls without conditions are one entry.
#[must_use]
pub fn render(profile: &Profile, arch: &str) -> String {
    let theirs = ARCHITECTURES.iter().find(|(_, ours)| *ours == arch).map(|(theirs, _)| *theirs);
    let (free, bound): (Vec<&Allowed>, Vec<&Allowed>) =
        profile.allowed_on(arch).partition(|allowed| allowed.args.is_empty());
    let names: Vec<&str> = free.iter().map(|allowed| allowed.syscall.as_str()).collect();
    let mut calls = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    calls.extend(bound.into_iter().map(call));
    calls.extend(profile.refuse.iter().map(|refused| {
        json!({
            "names": [refused.syscall], "action": "SCMP_ACT_ERRNO", "errnoRet": refused.errno, "comment": refused.why,
        })
    }));
    let profile = json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "architectures": theirs.into_iter().collect::<Vec<_>>(),
        "syscalls": calls,
    });
    format!("{profile:#}\n")
}
