//! Migrations: both databases get the same tables, columns and indexes under the same names.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::fault::Fault;

/// Where each database's migrations are.
const DIALECTS: [&str; 2] = ["migrations/sqlite", "migrations/postgres"];
/// Words that begin a table's constraint and not a column.
const CONSTRAINTS: &[&str] = &["PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "CONSTRAINT", "EXCLUDE"];

/// What a migration makes, and on which line: `table.column`, `index name`.
type Made = BTreeMap<String, (usize, Column)>;

/// What must be the same of a column in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Column {
    nullable: bool,
}

/// Compares every migration.
pub fn check(root: &Path) -> anyhow::Result<Vec<Fault>> {
    let [sqlite, postgres] = DIALECTS.map(|dialect| names(root, dialect));
    let (sqlite, postgres) = (sqlite?, postgres?);
    let mut faults = Vec::new();
    for (one, own, other, others) in
        [(DIALECTS[0], &sqlite, DIALECTS[1], &postgres), (DIALECTS[1], &postgres, DIALECTS[0], &sqlite)]
    {
        for name in own.iter().filter(|name| !others.contains(*name)) {
            faults.push(Fault::of(format!("{one}/{name}"), format!("there is no {other}/{name}; write it")));
        }
    }
    for name in sqlite.iter().filter(|name| postgres.contains(*name) && name.ends_with("/up.sql")) {
        let [sqlite, postgres] = DIALECTS.map(|dialect| format!("{dialect}/{name}"));
        let read = |path: &str| {
            std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
        };
        let (left, right) = (made(&read(&sqlite)?), made(&read(&postgres)?));
        faults.extend(differences((&sqlite, &left), (&postgres, &right)));
        faults.extend(differences((&postgres, &right), (&sqlite, &left)));
    }
    Ok(faults)
}

/// `<migration>/up.sql` and `<migration>/down.sql`, as they are and as they must be.
fn names(root: &Path, dialect: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join(dialect)).with_context(|| format!("cannot list {dialect}"))? {
        let entry = entry?;
        let migration = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            for file in ["up.sql", "down.sql"] {
                if entry.path().join(file).exists() {
                    names.push(format!("{migration}/{file}"));
                }
            }
        }
    }
    names.sort();
    Ok(names)
}

fn differences((path, own): (&str, &Made), (other, others): (&str, &Made)) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, (line, column)) in own {
        match others.get(name) {
            None => {
                faults.push(Fault::at(
                    path,
                    *line,
                    format!("`{name}` is not in {other}; both have the same"),
                ));
            }
            Some((_, theirs)) if !column.nullable && theirs.nullable => {
                let what = format!("`{name}` is NOT NULL, and nullable in {other}; both are the same");
                faults.push(Fault::at(path, *line, what));
            }
            Some(_) => {}
        }
    }
    faults
}

/// Reads what a migration makes: `CREATE TABLE`, `ALTER TABLE … ADD COLUMN`, `CREATE INDEX`.
fn made(sql: &str) -> Made {
    let mut made = Made::new();
    let mut line = 1;
    // Comments go, lines stay.
    let plain: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    for plain in plain.join("\n").split(';') {
        let begins = line + plain.lines().take_while(|line| line.trim().is_empty()).count();
        let text = plain.trim();
        let words: Vec<&str> = text.split_whitespace().filter(|word| !is_filler(word)).collect();
        let upper: Vec<String> = words.iter().take(5).map(|word| word.to_uppercase()).collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        match upper.as_slice() {
            ["CREATE", "TABLE", ..] => {
                let name = words.get(2).map_or("", |name| name.split('(').next().unwrap_or_default());
                for (offset, column, definition) in columns(text) {
                    let nullable = is_nullable(&definition);
                    made.insert(format!("{name}.{column}"), (begins + offset, Column { nullable }));
                }
            }
            ["ALTER", "TABLE", _, "ADD", "COLUMN"] => {
                let (table, column) = (words.get(2).unwrap_or(&""), words.get(5).unwrap_or(&""));
                let nullable = is_nullable(text);
                made.insert(format!("{table}.{column}"), (begins, Column { nullable }));
            }
            ["CREATE", "INDEX", ..] | ["CREATE", "UNIQUE", "INDEX", ..] => {
                let name = words.get(if upper.get(1) == Some(&"UNIQUE") { 3 } else { 2 }).unwrap_or(&"");
                made.insert(format!("index {name}"), (begins, Column { nullable: false }));
            }
            _ => {}
        }
        line += plain.matches('\n').count();
    }
    made
}

fn is_nullable(definition: &str) -> bool {
    let upper = definition.to_uppercase();
    !upper.contains("NOT NULL") && !upper.contains("PRIMARY KEY")
}

fn is_filler(word: &str) -> bool {
    ["IF", "NOT", "EXISTS"].contains(&word.to_uppercase().as_str())
}

/// The columns of a `CREATE TABLE`: lines after its first, name, definition.
fn columns(statement: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let (mut depth, mut part, mut line, mut begun) = (0_usize, String::new(), 0, 0);
    let mut end = |part: &mut String, begun: usize| {
        let definition = std::mem::take(part);
        let name = definition.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned();
        let word = name.split('(').next().unwrap_or_default().to_uppercase();
        if !name.is_empty() && !CONSTRAINTS.contains(&word.as_str()) {
            found.push((begun, name, definition));
        }
    };
    for letter in statement.chars() {
        match letter {
            '\n' => line += 1,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if (letter == '(' && depth == 1) || (letter == ')' && depth == 0) || (letter == ',' && depth == 1) {
            if letter == '(' {
                part.clear();
            } else {
                end(&mut part, begun);
            }
        } else if depth > 0 {
            if part.trim().is_empty() {
                begun = line;
            }
            part.push(letter);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQLITE: &str = "-- Nodes; and more.\n\nCREATE TABLE nodes (\n    id TEXT NOT NULL PRIMARY KEY,\n    \
                          state TEXT NOT NULL CHECK (state IN ('free', 'in-use')),\n    note TEXT,\n    \
                          UNIQUE (id, state)\n) STRICT;\nCREATE INDEX by_state ON nodes (state);\n\
                          ALTER TABLE nodes ADD COLUMN rack TEXT;\n";

    #[test]
    fn tables_columns_and_indexes_are_read_with_their_lines() {
        let made = made(SQLITE);
        let lines: Vec<(&str, usize)> = made.iter().map(|(name, (line, _))| (name.as_str(), *line)).collect();
        let expected = [
            ("index by_state", 9),
            ("nodes.id", 4),
            ("nodes.note", 6),
            ("nodes.rack", 10),
            ("nodes.state", 5),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_only_one_has_and_what_differs_is_named() {
        let sqlite = made(SQLITE);
        let postgres = made(
            "CREATE TABLE nodes (id uuid, state text NOT NULL, note text);\n\
             CREATE UNIQUE INDEX by_state ON nodes (state);",
        );
        let found = differences(("a", &sqlite), ("b", &postgres));
        let whats: Vec<&str> = found.iter().map(|fault| fault.what.as_str()).collect();
        assert_eq!(whats.len(), 2, "{whats:?}");
        assert!(whats[0].contains("`nodes.id` is NOT NULL") && whats[1].contains("`nodes.rack` is not in b"));
        assert!(differences(("b", &postgres), ("a", &sqlite)).is_empty());
    }
}
