//! Keys: ids as both databases hold them, references as callers write them, and where a page begins.

use std::io::Write;

use bmi_types::Name;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{HasSqlType, SqlType, Text};
use uuid::Uuid;

use crate::connection::MultiBackend;

/// `uuid` in PostgreSQL, text in SQLite.
#[derive(Copy, Clone, Debug, SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "uuid"))]
#[diesel(sqlite_type(name = "Text"))]
pub struct UuidSql;

/// An id in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = UuidSql)]
pub struct Key(pub Uuid);

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

macro_rules! from_ids {
    ($($id:ident),+) => {$(
        impl From<bmi_types::$id> for Key {
            fn from(id: bmi_types::$id) -> Self {
                Self(id.uuid())
            }
        }
        impl From<Key> for bmi_types::$id {
            fn from(key: Key) -> Self {
                key.0.into()
            }
        }
    )+};
}
from_ids!(
    AgentId,
    AuthorityId,
    ImageId,
    InstanceId,
    JoinTokenId,
    NetworkId,
    NodeId,
    OperationId,
    ProjectId,
    ServiceAccountId,
    ServiceTokenId,
    VolumeId
);

impl HasSqlType<UuidSql> for MultiBackend {
    fn metadata(lookup: &mut Self::MetadataLookup) -> Self::TypeMetadata {
        Self::lookup_sql_type::<UuidSql>(lookup)
    }
}

impl FromSql<UuidSql, MultiBackend> for Key {
    fn from_sql(bytes: <MultiBackend as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        bytes.from_sql::<Self, UuidSql>()
    }
}

impl ToSql<UuidSql, MultiBackend> for Key {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, MultiBackend>) -> serialize::Result {
        out.set_value((UuidSql, self));
        Ok(IsNull::No)
    }
}

impl ToSql<UuidSql, diesel::pg::Pg> for Key {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, diesel::pg::Pg>) -> serialize::Result {
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<UuidSql, diesel::pg::Pg> for Key {
    fn from_sql(bytes: diesel::pg::PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(bytes.as_bytes())?))
    }
}

impl ToSql<UuidSql, diesel::sqlite::Sqlite> for Key {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, diesel::sqlite::Sqlite>) -> serialize::Result {
        out.set_value(self.0.hyphenated().to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<UuidSql, diesel::sqlite::Sqlite> for Key {
    fn from_sql(bytes: diesel::sqlite::SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, diesel::sqlite::Sqlite>>::from_sql(bytes)?;
        Ok(Self(Uuid::try_parse(&text)?))
    }
}

/// How a caller refers to something: by id or by name. A name is never a UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By id.
    Id(Uuid),
    /// By name.
    Name(Name),
}

impl Reference {
    /// Reads a reference; nothing can be found by a text that is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(name) = text.parse() {
            return Some(Self::Name(name));
        }
        Uuid::try_parse(text).ok().map(Self::Id)
    }
}

/// Where a page begins: after an id, with at most so many items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// The last id of the page before; the smallest UUID for the first page.
    pub id: Uuid,
    /// How many items at most.
    pub limit: i64,
}

/// Reads a word column.
macro_rules! word {
    ($table:literal, $column:literal, $type:ty, $value:expr) => {
        <$type>::from_word(&$value).ok_or_else(|| crate::DbError::Unreadable {
            table: $table,
            column: $column,
            value: $value.clone(),
        })
    };
}
pub(crate) use word;

/// Reads a JSON or parsed text column.
pub(crate) fn readable<T, E>(
    table: &'static str,
    column: &'static str,
    value: &str,
    parsed: Result<T, E>,
) -> Result<T, crate::DbError> {
    parsed.map_err(|_| crate::DbError::Unreadable { table, column, value: value.to_owned() })
}

/// A size or count as the databases hold it. Values beyond 2^63 do not exist here.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The other way round.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
