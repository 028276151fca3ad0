//! Results: tables for people, JSON and YAML for programs.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// The API's JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// A column: its title, and how to fill it.
pub(crate) type Column<T> = (&'static str, fn(&T) -> String);

/// Prints results.
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a list.
    pub(crate) fn list<T: Serialize>(&self, items: &[T], columns: &[Column<T>]) -> Result<(), Failure> {
        self.list_in(&items, items, columns)
    }

    /// Prints the list that something consists of; programs get the whole of it.
    pub(crate) fn list_in<W: Serialize, T>(
        &self,
        whole: &W,
        items: &[T],
        columns: &[Column<T>],
    ) -> Result<(), Failure> {
        if self.format != Format::Table {
            return self.structured(whole);
        }
        let mut table = plain_table();
        table.set_header(columns.iter().map(|(title, _)| *title));
        for item in items {
            table.add_row(columns.iter().map(|(_, fill)| fill(item)));
        }
        write_table(&table)
    }

    /// Prints one thing: a row per column.
    pub(crate) fn one<T: Serialize>(&self, item: &T, columns: &[Column<T>]) -> Result<(), Failure> {
        if self.format != Format::Table {
            return self.structured(item);
        }
        let mut table = plain_table();
        for (title, fill) in columns {
            table.add_row([(*title).to_owned(), fill(item)]);
        }
        write_table(&table)
    }

    /// Prints one thing on a line of its own, as it comes: for programs a JSON text, a YAML document.
    pub(crate) fn line<T: Serialize>(&self, item: &T, columns: &[Column<T>]) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => columns.iter().map(|(_, fill)| fill(item)).collect::<Vec<_>>().join("  "),
            Format::Json => serde_json::to_string(item).map_err(|error| Failure::Usage(error.to_string()))?,
            Format::Yaml => {
                let text =
                    serde_yaml_ng::to_string(item).map_err(|error| Failure::Usage(error.to_string()))?;
                format!("---\n{text}")
            }
        };
        write(&text)
    }

    /// Says what was done, where there is nothing to show.
    pub(crate) fn done(&self, text: &str) -> Result<(), Failure> {
        if self.format == Format::Table { write(text) } else { Ok(()) }
    }

    fn structured<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = match self.format {
            Format::Yaml => serde_yaml_ng::to_string(value).map_err(|error| error.to_string()),
            Format::Json | Format::Table => {
                serde_json::to_string_pretty(value).map_err(|error| error.to_string())
            }
        };
        write(&text.map_err(Failure::Usage)?)
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Prints a table, without the blanks that it puts around its columns.
fn write_table(table: &Table) -> Result<(), Failure> {
    let text = table.to_string();
    let lines: Vec<&str> =
        text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    write(&lines.join("\n"))
}

/// Prints text; a reader that has gone away is no failure of ours.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Usage(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}
