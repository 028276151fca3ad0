//! Every table, as typed rows: read as a stream, written in batches.
//!
//! A test compares the list with the tables and columns that the migrations make.

use diesel::connection::DefaultLoadingMode;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use serde::Serialize;

use super::content::Content;
use crate::DbError;
use crate::connection::AnyConnection;
use crate::key::Key;

/// Rows written at once: the widest table has 25 columns, and PostgreSQL takes 65535 parameters.
const BATCH: usize = 500;

/// What can be done with a whole table.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [&'static str],
    pub(super) rows: fn(&mut AnyConnection) -> Result<i64, DbError>,
    pub(super) content: fn(&mut AnyConnection) -> Result<Content, DbError>,
    pub(super) copy: fn(&mut AnyConnection, &mut AnyConnection) -> Result<Content, DbError>,
    pub(super) clear: fn(&mut AnyConnection) -> Result<(), DbError>,
}

macro_rules! tables {
    ($($table:ident { $($column:ident: $type:ty),+ $(,)? })+) => {
        /// Every table but `compatibility`, each after those it refers to.
        pub(super) const TABLES: &[Table] = &[$(Table {
            name: stringify!($table),
            columns: &[$(stringify!($column)),+],
            rows: $table::rows,
            content: $table::content,
            copy: $table::copy,
            clear: $table::clear,
        }),+];

        $(mod $table {
            use super::*;
            use crate::schema::$table::table;

            #[derive(Queryable, Selectable, Insertable, Serialize)]
            #[diesel(table_name = crate::schema::$table)]
            struct Row { $($column: $type),+ }

            fn read(
                of: &mut AnyConnection,
                mut each: impl FnMut(Row) -> Result<(), DbError>,
            ) -> Result<(), DbError> {
                match of {
                    AnyConnection::Postgres(postgres) => {
                        let query = table.select(Row::as_select());
                        for row in query.load_iter::<Row, PgRowByRowLoadingMode>(postgres)? {
                            each(row?)?;
                        }
                    }
                    AnyConnection::Sqlite(sqlite) => {
                        let query = table.select(Row::as_select());
                        for row in query.load_iter::<Row, DefaultLoadingMode>(sqlite)? {
                            each(row?)?;
                        }
                    }
                }
                Ok(())
            }

            fn write(to: &mut AnyConnection, rows: &mut Vec<Row>) -> Result<(), DbError> {
                let written = diesel::insert_into(table).values(&*rows);
                match to {
                    AnyConnection::Postgres(postgres) => written.execute(postgres)?,
                    AnyConnection::Sqlite(sqlite) => written.execute(sqlite)?,
                };
                rows.clear();
                Ok(())
            }

            pub(super) fn rows(of: &mut AnyConnection) -> Result<i64, DbError> {
                Ok(table.count().get_result(of)?)
            }

            pub(super) fn clear(of: &mut AnyConnection) -> Result<(), DbError> {
                diesel::delete(table).execute(of)?;
                Ok(())
            }

            pub(super) fn content(of: &mut AnyConnection) -> Result<Content, DbError> {
                let mut content = Content::default();
                read(of, |row| content.add(&row))?;
                Ok(content)
            }

            pub(super) fn copy(from: &mut AnyConnection, to: &mut AnyConnection) -> Result<Content, DbError> {
                let (mut content, mut batch) = (Content::default(), Vec::new());
                read(from, |row| {
                    content.add(&row)?;
                    batch.push(row);
                    if batch.len() == BATCH { write(to, &mut batch) } else { Ok(()) }
                })?;
                if !batch.is_empty() {
                    write(to, &mut batch)?;
                }
                Ok(content)
            }
        })+
    };
}

tables! {
    projects { id: Key, name: String, description: String, created_at: i64, version: i64 }
    networks {
        id: Key, name: String, plan: String, first_address: i64, last_address: i64, dhcp: String,
        segment: String, generation: i64, created_at: i64, version: i64, relays: String, access: String,
    }
    agents {
        network_id: Key, agent_version: String, generation_observed: i64, netboot_state: String,
        netboot_reason: Option<String>, last_seen: i64,
    }
    nodes {
        id: Key, name: String, architecture: String, power: String, state: String, project_id: Option<Key>,
        created_at: i64, version: i64,
    }
    nics { mac: String, node_id: Key, position: i64 }
    images {
        id: Key, project_id: Key, name: String, state: String, virtual_size: i64, sha256: Option<String>,
        upload_offset: i64, import_file: Option<String>, created_at: i64, version: i64, format: String,
        file_size: i64, visibility: String, used_bytes: i64, upload_holder: Option<String>,
        upload_until: i64,
    }
    image_shares { image_id: Key, project_id: Key, created_at: i64 }
    network_projects { network_id: Key, project_id: Key }
    quotas {
        project_id: Key, instances: Option<i64>, nodes: Option<i64>, images: Option<i64>,
        virtual_bytes: Option<i64>, used_bytes: Option<i64>, version: i64,
    }
    instances {
        id: Key, project_id: Key, name: String, node_id: Key, image_id: Key, network_id: Key, state: String,
        node_address: i64, target_address: i64, boot_volume: Key, config_volume: Key,
        boot_key_sealed: String, user_data_sealed: String, published_generation: Option<i64>,
        withdrawn_generation: Option<i64>, target_state: String, target_reason: Option<String>,
        read_bytes: i64, written_bytes: i64, created_at: i64, version: i64, address_giver: String,
        address_seen: Option<i64>, boot_condition: Option<String>, used_bytes: i64,
    }
    sessions { instance_id: Key, began_at: i64, statistics: String }
    operations {
        id: Key, kind: String, state: String, project_id: Key, subject_kind: String, subject_id: Key,
        subject_name: String, error: Option<String>, progress_done: Option<i64>,
        progress_total: Option<i64>, requested_by: String, lease_owner: Option<String>, lease_until: i64,
        epoch: i64, due_at: Option<i64>, created_at: i64, updated_at: i64,
    }
    journal { operation_id: Key, position: i64, at: i64, entry: String }
    stages { id: Key, instance_id: Key, at: i64, stage: String, detail: String }
    idempotency {
        id: Key, caller: String, method: String, path: String, key: String, body_sha256: String,
        answer: Option<String>, created_at: i64, running_until: i64, decisions: String,
    }
    roles { name: String, description: String, permissions: String, created_at: i64, version: i64 }
    bindings {
        id: Key, subject: String, role: String, project_id: Option<Key>, created_at: i64,
        created_by: String,
    }
    policy_version { id: i64, version: i64 }
    service_accounts {
        id: Key, project_id: Key, name: String, description: String, scopes: String, created_at: i64,
        created_by: String, version: i64,
    }
    service_tokens {
        id: Key, account_id: Key, sha256: String, created_at: i64, expires_at: i64,
        last_used_at: Option<i64>,
    }
    sign_ins {
        id: Key, kind: String, provider: String, handle_sha256: String, browser_sha256: Option<String>,
        secrets_sealed: String, return_to: Option<String>, poll_after: i64, created_at: i64,
        expires_at: i64,
    }
    logins {
        id: Key, kind: String, sha256: String, provider: String, subject: String, display: String,
        grants: String, created_at: i64, last_seen_at: i64, expires_at: i64,
    }
    revoked_tokens { sha256: String, expires_at: i64 }
    audit {
        id: Key, at: i64, actor: String, project_id: Option<Key>, action: String, outcome: String,
        text: String, position: Option<i64>, hash: Option<String>,
    }
    audit_heads {
        position: i64, kind: String, hash: String, signed_at: i64, public_key: String, signature: String,
    }
    leases { name: String, holder: String, held_until: i64 }
}
