//! `infra/demo`: the larger deployments on one machine, step by step.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("private") => bmi_tests::demo::private(),
        Some("shared") => bmi_tests::demo::shared(),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
