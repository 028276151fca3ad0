//! Tasks of the repository itself: `cargo xtask tidy`, `cargo xtask seccomp`.

mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Tasks of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks what the compiler does not: layers, sizes, headers, licences, migrations, scripts.
    Tidy,
    /// Prints a profile of infra/seccomp as container engines read it.
    Seccomp {
        /// The name of the profile: that of its program.
        #[arg(long, value_name = "NAME")]
        docker: String,
        /// For which architecture.
        #[arg(long, default_value = std::env::consts::ARCH)]
        arch: String,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().task {
        Task::Tidy => tidy::run(&root()?),
        Task::Seccomp { docker, arch } => seccomp(&docker, &arch),
    }
}

#[expect(clippy::print_stdout, reason = "what a person runs this for")]
fn seccomp(name: &str, arch: &str) -> anyhow::Result<ExitCode> {
    print!("{}", bmi_sandbox::oci::render(&bmi_sandbox::Profile::of(name)?, arch));
    Ok(ExitCode::SUCCESS)
}

/// The root of the repository.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("infra/xtask is not two folders below the root")?.to_owned())
}
