//! The audit log: read by those who may, chained and signed by one replica at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmi_api::{AuditChain, AuditHead, AuditRecord, AuditRow, Code};
use bmi_auth::audit::{BEGINNING, Head, HeadKind, Object, Outcome, Record, link};
use bmi_auth::{Action, AuditKey, Caller};
use bmi_db::audit::{Filter, Stored};
use bmi_db::{After, DbError, SystemTx};
use bmi_types::Timestamp;
use uuid::Uuid;

use super::App;
use crate::error::AppError;

/// How often rows are chained: well within the second that is promised.
const EVERY: Duration = Duration::from_millis(300);
/// How long a replica that ended keeps the others from chaining.
const LEASE: Duration = Duration::from_secs(3);
/// Rows that are chained in one transaction.
const ROWS: i64 = 500;
/// How often old rows are removed.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);
/// The lease's name.
const LEASE_NAME: &str = "audit";

/// What chains and signs.
#[derive(Debug)]
pub struct Chain {
    key: AuditKey,
    /// Where the head that was signed last is kept, outside of the database.
    head_file: PathBuf,
    /// How long rows are kept; for ever when there is none.
    keep: Option<Duration>,
    holder: String,
    broken: Mutex<Option<String>>,
}

impl Chain {
    /// A chain under a key.
    #[must_use]
    pub fn new(key: AuditKey, head_file: PathBuf, keep: Option<Duration>) -> Self {
        Self { key, head_file, keep, holder: Uuid::new_v4().to_string(), broken: Mutex::new(None) }
    }

    fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The place and the hash that this replica signed last.
    fn signed(&self) -> Option<(i64, String)> {
        let text = std::fs::read_to_string(&self.head_file).ok()?;
        let (position, hash) = text.trim().split_once(' ')?;
        Some((position.parse().ok()?, hash.to_owned()))
    }

    fn remember(&self, position: i64, hash: &str) -> std::io::Result<()> {
        let temporary = self.head_file.with_extension("new");
        std::fs::write(&temporary, format!("{position} {hash}\n"))?;
        std::fs::rename(&temporary, &self.head_file)
    }
}

/// Who did what the server does by itself.
const SYSTEM: &str = "system";

fn system_record(action: &str, outcome: Outcome, detail: String, now: Timestamp) -> Record {
    let object = Object { kind: "audit".to_owned(), id: String::new(), name: "audit log".to_owned() };
    Record {
        id: Uuid::now_v7(),
        at: now,
        actor: SYSTEM.to_owned(),
        project: None,
        action: action.to_owned(),
        object: Some(object),
        outcome,
        request: String::new(),
        detail,
    }
}

/// Whether the database still leads through a place that was signed.
fn leads_through(tx: &mut SystemTx<'_>, position: i64, hash: &str) -> Result<bool, DbError> {
    if position == 0 {
        return Ok(true);
    }
    let checkpoint = bmi_db::audit::head(tx, HeadKind::Checkpoint)?;
    if checkpoint.is_some_and(|checkpoint| checkpoint.position >= position) {
        return Ok(true);
    }
    let row = bmi_db::audit::chain(tx, position - 1, 1)?.pop();
    Ok(row.is_some_and(|row| row.position == Some(position) && row.hash.as_deref() == Some(hash)))
}

/// Chains what is new. Gives the place that was signed, or nothing while another replica does it or nothing is new.
async fn chain(app: &Arc<App>, now: Timestamp) -> Result<Option<Head>, AppError> {
    let shared = Arc::clone(app);
    let signed = app.audit.signed();
    let waiting = app.db.system_read(|tx| Ok::<_, DbError>(!bmi_db::audit::not_chained(tx, 1)?.is_empty()));
    if !waiting.await? {
        return Ok(None);
    }
    app.db
        .system_write(move |tx| {
            let audit = &shared.audit;
            if !bmi_db::lease::hold(tx, LEASE_NAME, &audit.holder, now, LEASE)? {
                return Ok(None);
            }
            if let Some((position, hash)) = signed
                && !leads_through(tx, position, &hash)?
            {
                let text = format!("the chain no longer leads through position {position}, which was signed");
                let mut broken = audit.broken.lock().unwrap_or_else(PoisonError::into_inner);
                if broken.is_none() {
                    tracing::error!(position, "the audit log was changed, or an older backup was restored");
                }
                *broken = Some(text);
            }
            let start = match bmi_db::audit::last(tx)? {
                Some(last) => last,
                None => match bmi_db::audit::head(tx, HeadKind::Checkpoint)? {
                    Some(checkpoint) => (checkpoint.position, checkpoint.hash),
                    None => (0, BEGINNING.to_owned()),
                },
            };
            let mut last = start;
            for row in bmi_db::audit::not_chained(tx, ROWS)? {
                last = (last.0 + 1, link(&last.1, &row.text));
                bmi_db::audit::place(tx, row.id, last.0, &last.1)?;
            }
            let head = audit.key.sign(HeadKind::Head, last.0, &last.1, now);
            bmi_db::audit::head_write(tx, &head)?;
            Ok::<_, AppError>(Some(head))
        })
        .await
}

/// Removes what is older than it is kept, behind a signed checkpoint.
async fn retain(app: &Arc<App>, now: Timestamp) -> Result<(), AppError> {
    let Some(keep) = app.audit.keep else { return Ok(()) };
    let shared = Arc::clone(app);
    let before = Timestamp::from_micros(now.micros() - i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
    app.db
        .system_write(move |tx| {
            let audit = &shared.audit;
            if !bmi_db::lease::hold(tx, LEASE_NAME, &audit.holder, now, LEASE)? {
                return Ok(());
            }
            let Some((position, hash)) = bmi_db::audit::last_before(tx, before)? else { return Ok(()) };
            bmi_db::audit::head_write(tx, &audit.key.sign(HeadKind::Checkpoint, position, &hash, now))?;
            let removed = bmi_db::audit::remove_to(tx, position)?;
            let detail = format!("{removed} rows down to position {position}");
            let record = system_record("audit:retention", Outcome::Done, detail, now);
            Ok::<_, AppError>(bmi_db::audit::insert(tx, &record)?)
        })
        .await
}

/// Chains and removes, for ever.
pub async fn watch(app: Arc<App>) {
    let mut failing = false;
    let mut retained: Option<tokio::time::Instant> = None;
    loop {
        let result = async {
            if let Some(head) = chain(&app, Timestamp::now()).await? {
                let kept = app.audit.remember(head.position, &head.hash);
                kept.map_err(|error| AppError::Defect(format!("cannot keep the audit head: {error}")))?;
            }
            if retained.is_none_or(|at| at.elapsed() >= RETENTION_EVERY) {
                retain(&app, Timestamp::now()).await?;
                retained = Some(tokio::time::Instant::now());
            }
            Ok::<_, AppError>(())
        };
        match result.await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(error = bmi_types::chain(&error), "the audit log cannot be chained");
            }
            Err(_) => {}
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn shown(stored: &Stored) -> Result<AuditRecord, AppError> {
    let unreadable = || AppError::Defect(format!("audit row {} cannot be read", stored.id));
    let record = Record::read(&stored.text).ok_or_else(unreadable)?;
    Ok(AuditRecord {
        id: record.id,
        at: record.at,
        actor: record.actor,
        project: record.project,
        action: record.action,
        object: record.object.map(|object| (object.kind, object.id, object.name)),
        outcome: record.outcome.as_str().to_owned(),
        request: record.request,
        detail: record.detail,
        position: stored.position,
    })
}

/// What is looked for in the log.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Of which project; all when there is none.
    pub project: Option<String>,
    /// By whom.
    pub actor: Option<String>,
    /// Which action.
    pub action: Option<String>,
    /// With which outcome.
    pub outcome: Option<String>,
}

/// Lists lines of the log, oldest first: of all, or of one project.
pub async fn audit_list(
    app: &App,
    caller: &Caller,
    search: Search,
    after: After,
) -> Result<Vec<AuditRecord>, AppError> {
    if search.outcome.as_deref().is_some_and(|word| Outcome::from_word(word).is_none()) {
        return Err(AppError::refused(Code::BadRequest, "outcome must be `done`, `failed` or `denied`"));
    }
    app.reading(caller, move |access| {
        let project = match search.project {
            Some(text) => Some(access.enter(&text, Action::AuditRead)?),
            None => {
                access.permit_everywhere(Action::AuditRead)?;
                None
            }
        };
        let filter = Filter { project, actor: search.actor, action: search.action, outcome: search.outcome };
        bmi_db::audit::list(access, filter, after)?.iter().map(shown).collect()
    })
    .await
}

fn shown_head(head: Head) -> AuditHead {
    AuditHead {
        kind: head.kind.as_str().to_owned(),
        position: head.position,
        hash: head.hash,
        signed_at: head.signed_at,
        public_key: head.public_key,
        signature: head.signature,
    }
}

/// A piece of the chain behind a place, for those who verify it.
pub async fn audit_chain(app: &App, caller: &Caller, after: i64, limit: i64) -> Result<AuditChain, AppError> {
    app.permit(caller, Action::AuditRead, bmi_auth::Domain::Everywhere).await?;
    let broken = app.audit.broken();
    app.db
        .system_read(move |tx| {
            let rows = bmi_db::audit::chain(tx, after, limit)?;
            let head = bmi_db::audit::head(tx, HeadKind::Head)?.map(shown_head);
            let checkpoint = bmi_db::audit::head(tx, HeadKind::Checkpoint)?.map(shown_head);
            let rows = rows.into_iter().map(|row| AuditRow {
                position: row.position.unwrap_or_default(),
                hash: row.hash.unwrap_or_default(),
                consistent: row.consistent,
                text: row.text,
            });
            Ok(AuditChain { rows: rows.collect(), head, checkpoint, broken })
        })
        .await
}
