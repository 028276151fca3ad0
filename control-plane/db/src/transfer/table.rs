//! Every table with its columns, and how rows are read and written that only these describe.
//!
//! A test compares the list with the tables and columns that the migrations make.

use diesel::connection::DefaultLoadingMode;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::content::Content;
use super::value::{Kind, Row, bind};
use crate::DbError;
use crate::connection::AnyConnection;

/// Rows written at once: the widest table has 25 columns, and PostgreSQL takes 65535 parameters, SQLite 32766.
const BATCH: usize = 500;

/// A table.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

macro_rules! tables {
    ($($table:ident { $($column:ident: $kind:ident),+ $(,)? })+) => {
        /// Every table but `compatibility`, each after those it refers to.
        pub(super) const TABLES: &[Table] = &[$(Table {
            name: stringify!($table),
            columns: &[$((stringify!($column), tables!(@ $kind))),+],
        }),+];
    };
    (@ id) => { Kind::Id };
    (@ text) => { Kind::Text };
    (@ number) => { Kind::Number };
}

#[derive(QueryableByName)]
struct Rows {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

impl Table {
    fn column_names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// How many rows it has.
    pub(super) fn rows(&self, of: &mut AnyConnection) -> Result<i64, DbError> {
        let query = diesel::sql_query(format!("SELECT count(*) AS rows FROM {}", self.name));
        let counted: Rows = match of {
            AnyConnection::Postgres(postgres) => query.get_result(postgres)?,
            AnyConnection::Sqlite(sqlite) => query.get_result(sqlite)?,
        };
        Ok(counted.rows)
    }

    /// Removes all its rows.
    pub(super) fn clear(&self, of: &mut AnyConnection) -> Result<(), DbError> {
        let query = diesel::sql_query(format!("DELETE FROM {}", self.name));
        match of {
            AnyConnection::Postgres(postgres) => query.execute(postgres)?,
            AnyConnection::Sqlite(sqlite) => query.execute(sqlite)?,
        };
        Ok(())
    }

    /// What it holds.
    pub(super) fn content(&self, of: &mut AnyConnection) -> Result<Content, DbError> {
        let mut content = Content::default();
        self.read(of, |row| content.add(&row))?;
        Ok(content)
    }

    /// Writes all its rows into the same table of another database; gives what was read.
    pub(super) fn copy(&self, from: &mut AnyConnection, to: &mut AnyConnection) -> Result<Content, DbError> {
        let (mut content, mut batch) = (Content::default(), Vec::new());
        self.read(from, |row| {
            content.add(&row)?;
            batch.push(row);
            if batch.len() == BATCH { self.write(to, &mut batch) } else { Ok(()) }
        })?;
        if !batch.is_empty() {
            self.write(to, &mut batch)?;
        }
        Ok(content)
    }

    fn read(
        &self,
        of: &mut AnyConnection,
        mut each: impl FnMut(Row) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        let query = diesel::sql_query(format!("SELECT {} FROM {}", self.column_names(), self.name));
        match of {
            AnyConnection::Postgres(postgres) => {
                for row in query.load_iter::<Row, PgRowByRowLoadingMode>(postgres)? {
                    each(row?.of_kinds(self)?)?;
                }
            }
            AnyConnection::Sqlite(sqlite) => {
                for row in query.load_iter::<Row, DefaultLoadingMode>(sqlite)? {
                    each(row?.of_kinds(self)?)?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, to: &mut AnyConnection, rows: &mut Vec<Row>) -> Result<(), DbError> {
        let mark = |number: usize| match to {
            AnyConnection::Postgres(_) => format!("${number}"),
            AnyConnection::Sqlite(_) => "?".to_owned(),
        };
        let width = self.columns.len();
        let tuples: Vec<String> = (0..rows.len())
            .map(|row| {
                let marks: Vec<String> = (1..=width).map(|column| mark(row * width + column)).collect();
                format!("({})", marks.join(", "))
            })
            .collect();
        let (table, names) = (self.name, self.column_names());
        let query = diesel::sql_query(format!("INSERT INTO {table} ({names}) VALUES {}", tuples.join(", ")));
        let values = rows.drain(..).flat_map(|row| row.0).zip(self.columns.iter().cycle());
        match to {
            AnyConnection::Postgres(postgres) => bind!(query, diesel::pg::Pg, values).execute(postgres)?,
            AnyConnection::Sqlite(sqlite) => bind!(query, diesel::sqlite::Sqlite, values).execute(sqlite)?,
        };
        Ok(())
    }
}

tables! {
    projects { id: id, name: text, description: text, created_at: number, version: number }
    networks {
        id: id, name: text, plan: text, first_address: number, last_address: number, dhcp: text,
        segment: text, generation: number, created_at: number, version: number, relays: text, access: text,
    }
    agents {
        network_id: id, agent_version: text, generation_observed: number, netboot_state: text,
        netboot_reason: text, last_seen: number, dropped: text,
    }
    authorities {
        id: id, certificate: text, key_sealed: text, spki_sha256: text, created_at: number,
        expires_at: number,
    }
    enrolled_agents {
        id: id, network_id: id, state: text, key_sha256: text, previous_key_sha256: text,
        previous_until: number, pending_key_sha256: text, authority_id: id, certificate_until: number,
        agent_version: text, clock_ahead_ms: number, enrolled_at: number, last_seen: number, version: number,
    }
    join_tokens {
        id: id, network_id: id, sha256: text, created_by: text, created_at: number, expires_at: number,
        agent_id: id, used_key_sha256: text, used_at: number, certificate: text, answer_until: number,
    }
    nodes {
        id: id, name: text, architecture: text, power: text, state: text, project_id: id,
        created_at: number, version: number,
    }
    nics { mac: text, node_id: id, position: number }
    images {
        id: id, project_id: id, name: text, state: text, virtual_size: number, sha256: text,
        upload_offset: number, import_file: text, created_at: number, version: number, format: text,
        file_size: number, visibility: text, used_bytes: number, upload_holder: text,
        upload_until: number, import_stored: text,
    }
    image_shares { image_id: id, project_id: id, created_at: number }
    network_projects { network_id: id, project_id: id }
    quotas {
        project_id: id, instances: number, nodes: number, images: number,
        virtual_bytes: number, used_bytes: number, version: number,
    }
    instances {
        id: id, project_id: id, name: text, node_id: id, image_id: id, network_id: id, state: text,
        node_address: number, target_address: number, boot_volume: id, config_volume: id,
        boot_key_sealed: text, user_data_sealed: text, published_generation: number,
        withdrawn_generation: number, target_state: text, target_reason: text,
        read_bytes: number, written_bytes: number, created_at: number, version: number, address_giver: text,
        address_seen: number, boot_condition: text, used_bytes: number, boot_floor: number,
    }
    sessions { instance_id: id, began_at: number, statistics: text }
    ceph_keys { volume_id: id, user_name: text, key_sealed: text, caps: text, image: text, header: text }
    ceph_fences { address: text, volume_id: id, fenced_at: number }
    ceph_owner { position: number, id: id }
    bridge_ports {
        node_id: id, interface: text, network_id: id, wanted: number, generation: number, state: text,
        reason: text, reported_generation: number,
    }
    operations {
        id: id, kind: text, state: text, project_id: id, subject_kind: text, subject_id: id,
        subject_name: text, error: text, progress_done: number,
        progress_total: number, requested_by: text, lease_owner: text, lease_until: number,
        epoch: number, due_at: number, created_at: number, updated_at: number, code: text,
    }
    journal { operation_id: id, position: number, at: number, entry: text }
    stages { id: id, instance_id: id, at: number, stage: text, detail: text }
    network_events { id: id, network_id: id, at: number, event: text, detail: text }
    idempotency {
        id: id, caller: text, method: text, path: text, key: text, body_sha256: text,
        answer: text, created_at: number, running_until: number, decisions: text,
    }
    roles { name: text, description: text, permissions: text, created_at: number, version: number }
    bindings {
        id: id, subject: text, role: text, project_id: id, created_at: number,
        created_by: text,
    }
    policy_version { id: number, version: number }
    service_accounts {
        id: id, project_id: id, name: text, description: text, scopes: text, created_at: number,
        created_by: text, version: number,
    }
    service_tokens {
        id: id, account_id: id, sha256: text, created_at: number, expires_at: number,
        last_used_at: number,
    }
    sign_ins {
        id: id, kind: text, provider: text, handle_sha256: text, browser_sha256: text,
        secrets_sealed: text, return_to: text, poll_after: number, created_at: number,
        expires_at: number,
    }
    logins {
        id: id, kind: text, sha256: text, provider: text, subject: text, display: text,
        grants: text, created_at: number, last_seen_at: number, expires_at: number,
    }
    revoked_tokens { sha256: text, expires_at: number }
    audit {
        id: id, at: number, actor: text, project_id: id, action: text, outcome: text,
        text: text, position: number, hash: text,
    }
    audit_heads {
        position: number, kind: text, hash: text, signed_at: number, public_key: text, signature: text,
    }
    leases { name: text, holder: text, held_until: number }
}
