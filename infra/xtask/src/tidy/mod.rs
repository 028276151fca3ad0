//! `cargo xtask tidy`: rules that hold for the whole repository and that no compiler checks.
//!
//! Each check answers faults, all of them; nothing stops at the first. A check is a pure function over text where it
//! can be, so that its own tests need no repository.

mod attributes;
mod dependencies;
mod fault;
mod licences;
mod manifests;
mod migrations;
mod scopes;
mod scripts;
mod seccomp;
mod sizes;
mod sources;

use std::path::Path;
use std::process::ExitCode;

use cargo_metadata::MetadataCommand;

use fault::Fault;
use sources::Tree;

/// Runs every check.
#[expect(clippy::print_stdout, reason = "what a person runs this for")]
pub fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()?;
    let tree = Tree::read(root)?;
    let sizes = sizes::Sizes::of(&tree);
    let mut faults: Vec<Fault> = Vec::new();
    faults.extend(dependencies::check(&metadata, root));
    faults.extend(licences::check(&metadata));
    faults.extend(manifests::check(&metadata, root)?);
    faults.extend(sizes.check());
    faults.extend(sources::check(&tree));
    faults.extend(attributes::check(&tree));
    faults.extend(migrations::check(root)?);
    faults.extend(scripts::check(&tree, root)?);
    faults.extend(scopes::check(&tree));
    faults.extend(seccomp::check(&tree));
    faults.sort();
    for fault in &faults {
        println!("{fault}");
    }
    println!("tidy: {sizes}; {} packages", metadata.packages.len());
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} faults", faults.len());
    Ok(ExitCode::FAILURE)
}
