//! What a host lacks for targets in containers.

use std::path::Path;
use std::process::{Command, Stdio};

use bmi_types::chain;

use super::engine::{Engine, EngineError};
use crate::config::ContainerSection;

/// Everything that is wrong with the engine, its images and what it made of this host's network.
pub async fn faults(section: &ContainerSection) -> Vec<String> {
    let mut faults = host_faults();
    match engine_faults(section).await {
        Ok(more) => faults.extend(more),
        Err(error) => faults.push(format!("container.engine: {}", chain(&error))),
    }
    faults
}

async fn engine_faults(section: &ContainerSection) -> Result<Vec<String>, EngineError> {
    let engine = Engine::new(section.engine.clone());
    let (version, can) = (engine.version().await?, engine.abilities().await?);
    let mut faults = Vec::new();
    let mut needs = |is: bool, what: &str| {
        if !is {
            faults.push(format!("container.engine: {} {} {what}", version.name, version.number));
        }
    };
    needs(can.seccomp, "has no seccomp: a container could make any system call");
    needs(can.limits, "cannot limit memory, processes and processor time: are these cgroups mounted?");
    needs(
        can.survives,
        "ends its containers when it ends itself: start it with --live-restore, or nodes lose their disks with it",
    );
    for (name, digest) in [("bmi-target", &section.target_image), ("bmi-netboot", &section.netboot_image)] {
        let file = section.image_dir.as_ref().map(|directory| directory.join(format!("{name}.tar")));
        if !engine.has_image(digest).await? && !file.as_ref().is_some_and(|path| path.is_file()) {
            let place =
                file.map_or("no image_dir is given".to_owned(), |it| format!("{} is missing", it.display()));
            faults.push(format!(
                "container: the engine has no image {digest}, and {place}: run infra/containers/build"
            ));
        }
    }
    Ok(faults)
}

/// What engines do to a host by themselves, and an agent's host must not have.
fn host_faults() -> Vec<String> {
    let mut faults = Vec::new();
    if Path::new("/sys/class/net/docker0").exists() {
        faults.push("there is a bridge docker0: start Docker with --bridge=none and remove it".to_owned());
    }
    let rules = Command::new("nft").args(["list", "ruleset"]).stdin(Stdio::null()).output();
    if rules.is_ok_and(|rules| String::from_utf8_lossy(&rules.stdout).contains("chain DOCKER")) {
        faults.push(
            "there are rules of Docker's: start it with --iptables=false --ip6tables=false and remove them"
                .to_owned(),
        );
    }
    faults
}
