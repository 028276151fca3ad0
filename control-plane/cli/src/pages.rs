//! Completions and manual pages, made from the same description as `--help`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Arguments;
use crate::failure::Failure;

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "bmi", &mut script);
    crate::output::write(String::from_utf8_lossy(&script).trim_end())
}

/// Writes `bmi.1`, and a page for each noun and verb.
pub(crate) fn man(directory: &Path) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::usage(format!("{}: {error}", directory.display()));
    clap_mangen::generate_to(Arguments::command(), directory).map_err(fail)
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use crate::Arguments;

    /// The help of a command and of all below it.
    fn help(command: &mut Command, path: &str, all: &mut String) {
        let width = command.clone().term_width(100);
        all.push_str(&format!("$ {path} --help\n{}\n", width.clone().render_long_help()));
        let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        for verb in verbs.into_iter().filter(|verb| verb != "help") {
            if let Some(below) = command.find_subcommand_mut(&verb) {
                help(below, &format!("{path} {verb}"), all);
            }
        }
    }

    #[test]
    fn every_help_text_is_as_reviewed() {
        // The environment of whoever runs the tests must not show in the texts.
        let mut command =
            Arguments::command().term_width(100).mut_args(|argument| argument.hide_env_values(true));
        command.build();
        let mut all = String::new();
        help(&mut command, "bmi", &mut all);
        let all: String = all.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli/help.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &all).unwrap();
        }
        let expected = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; make it with UPDATE_GOLDEN=1", path.display()));
        assert!(all == expected, "{}: if this is meant, run with UPDATE_GOLDEN=1", path.display());
    }

    #[test]
    fn every_verb_has_a_manual_page() {
        let directory = std::env::temp_dir().join(format!("bmi-man-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        super::man(&directory).unwrap();
        let pages = std::fs::read_dir(&directory).unwrap().count();
        assert!(directory.join("bmi-instance-provision.1").exists() && pages > 30, "{pages} pages");
        std::fs::remove_dir_all(directory).unwrap();
        assert!(super::man(std::path::Path::new("/nonexistent")).is_err());
    }
}
