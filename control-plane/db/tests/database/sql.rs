//! SQL of the tests' own, past everything that is tested.

use bmi_api::NewProject;
use bmi_db::DbError;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;

/// Whether a URL is one of PostgreSQL.
pub fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://")
}

/// Runs statements.
pub fn execute(url: &str, statements: &str) {
    if is_postgres(url) {
        diesel::PgConnection::establish(url).unwrap().batch_execute(statements).unwrap();
    } else {
        let mut connection = diesel::SqliteConnection::establish(url).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        connection.batch_execute(statements).unwrap();
    }
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// The rows of a query with one text column, `line`.
pub fn lines(url: &str, query: &str) -> Vec<String> {
    let query = diesel::sql_query(query);
    let rows: Vec<Line> = if is_postgres(url) {
        query.load(&mut diesel::PgConnection::establish(url).unwrap()).unwrap()
    } else {
        let mut connection = diesel::SqliteConnection::establish(url).unwrap();
        // Whoever closes a file last empties its log.
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        query.load(&mut connection).unwrap()
    };
    rows.into_iter().map(|row| row.line).collect()
}

#[derive(QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

/// How SQLite would answer a query, step by step.
pub fn plan(file: &str, query: &str) -> Vec<String> {
    let mut connection = diesel::SqliteConnection::establish(file).unwrap();
    let steps: Vec<Step> =
        diesel::sql_query(format!("EXPLAIN QUERY PLAN {query}")).load(&mut connection).unwrap();
    steps.into_iter().map(|step| step.detail).collect()
}

/// What a transaction of a test answered.
pub fn good<T>(result: Result<T, DbError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// A project to make.
pub fn new_project(name: &str) -> NewProject {
    NewProject { name: name.parse().unwrap(), description: String::new() }
}
