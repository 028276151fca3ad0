//! A row whose columns are known at run time only, from either database.
//!
//! Rows that are typed by the compiler would do the same for one table each, and take a minute to compile.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, QueryableByName};
use diesel::pg::Pg;
use diesel::row::{Field, NamedRow};
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::{Sqlite, SqliteType};
use serde::Serialize;
use uuid::Uuid;

use super::table::Table;
use crate::DbError;
use crate::key::{Key, UuidSql};

/// PostgreSQL's numbers for its types `bigint` and `uuid`; all else that there is, is text.
const INT8: u32 = 20;
const UUID: u32 = 2950;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An id: text in SQLite.
    Id,
    /// Text.
    Text,
    /// A number of 64 bits.
    Number,
}

/// What is in one column of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Value {
    /// NULL.
    Nothing,
    /// An id.
    Id(Key),
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
}

/// A row, in the order in which its columns were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row(pub(super) Vec<Value>);

impl QueryableByName<Pg> for Row {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        values(row, |value| match value.get_oid().get() {
            INT8 => Ok(Value::Number(<i64 as FromSql<BigInt, Pg>>::from_sql(value)?)),
            UUID => Ok(Value::Id(<Key as FromSql<UuidSql, Pg>>::from_sql(value)?)),
            _ => Ok(Value::Text(<String as FromSql<Text, Pg>>::from_sql(value)?)),
        })
    }
}

impl QueryableByName<Sqlite> for Row {
    fn build<'a>(row: &impl NamedRow<'a, Sqlite>) -> deserialize::Result<Self> {
        values(row, |value| match value.value_type() {
            Some(SqliteType::Long) => Ok(Value::Number(<i64 as FromSql<BigInt, Sqlite>>::from_sql(value)?)),
            _ => Ok(Value::Text(<String as FromSql<Text, Sqlite>>::from_sql(value)?)),
        })
    }
}

fn values<'a, DB: Backend>(
    row: &impl NamedRow<'a, DB>,
    read: impl Fn(DB::RawValue<'_>) -> deserialize::Result<Value>,
) -> deserialize::Result<Row> {
    let mut values = Vec::with_capacity(row.field_count());
    for index in 0..row.field_count() {
        let field = diesel::row::Row::get(row, index).ok_or("a row is shorter than it says")?;
        values.push(field.value().map_or(Ok(Value::Nothing), &read)?);
    }
    Ok(Row(values))
}

impl Row {
    /// The same row with each value of the kind that its column has.
    pub(super) fn of_kinds(self, table: &Table) -> Result<Self, DbError> {
        let values =
            self.0.into_iter().zip(table.columns).map(|(value, (column, kind))| match (kind, value) {
                (_, Value::Nothing) => Ok(Value::Nothing),
                (Kind::Id, Value::Id(id)) => Ok(Value::Id(id)),
                (Kind::Id, Value::Text(text)) => match Uuid::try_parse(&text) {
                    Ok(id) => Ok(Value::Id(Key(id))),
                    Err(_) => Err(DbError::Unreadable { table: table.name, column, value: text }),
                },
                (Kind::Text, Value::Text(text)) => Ok(Value::Text(text)),
                (Kind::Number, Value::Number(number)) => Ok(Value::Number(number)),
                (_, value) => {
                    Err(DbError::Unreadable { table: table.name, column, value: format!("{value:?}") })
                }
            });
        values.collect::<Result<_, _>>().map(Row)
    }
}

/// Binds values to a statement, each as the type of its column.
macro_rules! bind {
    ($query:expr, $backend:ty, $values:expr) => {{
        use diesel::sql_types::{BigInt, Nullable, Text};
        use $crate::key::{Key, UuidSql};
        use $crate::transfer::value::{Kind, Value};
        let mut query = $query.into_boxed::<$backend>();
        for (value, (_, kind)) in $values {
            query = match (value, kind) {
                (Value::Id(id), _) => query.bind::<UuidSql, _>(id),
                (Value::Number(number), _) => query.bind::<BigInt, _>(number),
                (Value::Text(text), _) => query.bind::<Text, _>(text),
                (Value::Nothing, Kind::Id) => query.bind::<Nullable<UuidSql>, _>(None::<Key>),
                (Value::Nothing, Kind::Number) => query.bind::<Nullable<BigInt>, _>(None::<i64>),
                (Value::Nothing, Kind::Text) => query.bind::<Nullable<Text>, _>(None::<String>),
            };
        }
        query
    }};
}
pub(super) use bind;
