//! Many nodes and bindings, put straight into a database: through the API they would take hours.

use bmi_tests::{Deployment, Postgres};

/// Bindings: of 1 000 users, ten each.
pub(crate) const BINDINGS: usize = 10_000;
/// Projects besides `lab`.
pub(crate) const PROJECTS: usize = 100;
/// The project that has half of the nodes.
pub(crate) const LARGE: &str = "project-000";
/// The project that has a hundred of them; those that are left are free.
pub(crate) const SMALL: &str = "project-001";

/// The name of a project.
pub(crate) fn project(number: usize) -> String {
    format!("project-{number:03}")
}

/// What differs between the two.
struct Dialect {
    /// Numbers from 0 on, below a bound, as a table `numbers (n)`.
    numbers: fn(usize) -> String,
    /// `n` as hexadecimal digits.
    hex: &'static str,
    /// `n` modulo [`PROJECTS`] as three digits.
    three: &'static str,
    /// A text as an id.
    id: fn(&str) -> String,
}

const SQLITE: Dialect = Dialect {
    numbers: |count| {
        format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {count})"
        )
    },
    hex: "printf('%012x', n)",
    three: "printf('%03d', n % 100)",
    id: str::to_owned,
};

const POSTGRES: Dialect = Dialect {
    numbers: |count| format!("WITH numbers AS (SELECT generate_series(0, {count} - 1) AS n)"),
    hex: "lpad(to_hex(n), 12, '0')",
    three: "lpad((n % 100)::text, 3, '0')",
    id: |text| format!("({text})::uuid"),
};

/// The statements, in their order.
fn statements(dialect: &Dialect, nodes: usize) -> Vec<String> {
    let hex = dialect.hex;
    let id = |prefix: &str| (dialect.id)(&format!("'{prefix}-0000-7000-8000-' || {hex}"));
    let named = |name: &str| format!("(SELECT id FROM projects WHERE name = '{name}')");
    // Nodes of the large project are spread over the list, and so are the others.
    let (large, small) = (named(LARGE), named(SMALL));
    let rare = (nodes / 100).max(1);
    let owner = format!("CASE WHEN n % 2 = 0 THEN {large} WHEN n % {rare} = 1 THEN {small} END");
    let state = format!("CASE WHEN n % 2 = 0 OR n % {rare} = 1 THEN 'assigned' ELSE 'free' END");
    let digits = |from: usize| format!("substr({hex}, {from}, 2)");
    let mac = format!("'02:00:' || {}", [5, 7, 9, 11].map(digits).join(" || ':' || "));
    let (numbers, node) = (dialect.numbers, id("0193d3a0"));
    vec![
        format!(
            "INSERT INTO nodes (id, name, architecture, power, state, project_id, created_at, version) {} \
             SELECT {node}, 'n-' || {hex}, 'x86_64', 'manual', {state}, {owner}, 1, 1 FROM numbers",
            numbers(nodes)
        ),
        format!(
            "INSERT INTO nics (mac, node_id, position) {} SELECT {mac}, {node}, 0 FROM numbers",
            numbers(nodes)
        ),
        format!(
            "INSERT INTO bindings (id, subject, role, project_id, created_at, created_by) {} \
             SELECT {}, 'user:corp:' || (n / 10), 'project-member', \
             (SELECT id FROM projects WHERE name = 'project-' || {}), 1, 'bench' FROM numbers",
            numbers(BINDINGS),
            id("0193d3a1"),
            dialect.three
        ),
        "UPDATE policy_version SET version = version + 1".to_owned(),
    ]
}

/// Fills the database of a deployment whose control plane is stopped.
pub(crate) fn sqlite(deployment: &Deployment, nodes: usize) {
    for statement in statements(&SQLITE, nodes) {
        let _ = deployment.sql(&statement);
    }
}

/// The same in PostgreSQL. As any server that runs for a while, it has looked at its tables.
pub(crate) fn postgres(database: &str, nodes: usize) {
    for statement in statements(&POSTGRES, nodes) {
        let _ = Postgres::sql(database, &statement);
    }
    let _ = Postgres::sql(database, "ANALYZE");
}
