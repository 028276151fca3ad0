//! Tasks of the repository itself: `cargo xtask tidy`.

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
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().task {
        Task::Tidy => tidy::run(&root()?),
    }
}

/// The root of the repository.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.ancestors().nth(2).context("infra/xtask is not two folders below the root")?.to_owned())
}
