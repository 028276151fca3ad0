//! The authorities that issue the certificates of agents.
//!
//! One is made at the first start with `[agents]`, in the database, so that all replicas have the same. A rotation makes
//! another one beside it: both are trusted by both sides until the old one is retired. It issues nothing until every
//! replica's listener has seen it. Its key is sealed like every
//! secret, and opened only to issue.

use std::time::Duration;

use bmi_agent_api::enrol::Authorities;
use bmi_api::{Authority, Blocker, Code, NewAuthority};
use bmi_auth::{Action, Caller, MasterKey, authority as issuing};
use bmi_db::sealed::authority_key_purpose;
use bmi_db::{Tx, authority as db, enrolled_agent};
use bmi_types::{AuthorityId, Timestamp};
use sha2::{Digest, Sha256};

use super::App;
use super::access::Access;
use crate::error::AppError;

/// The most that are trusted at once: one more than a rotation needs.
const AUTHORITIES_MAX: usize = 3;

/// How old an authority must be before it issues: several looks of every replica's listener.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// How agents are known here.
#[derive(Debug, Clone)]
pub struct Enrolling {
    /// What every identity begins with.
    pub trust_domain: String,
    /// How long a certificate lasts.
    pub certificate_life: Duration,
}

/// An authority cannot be opened or has failed.
fn failed(error: &issuing::AuthorityError) -> AppError {
    AppError::Defect(format!("an authority: {}", bmi_types::chain(error)))
}

/// Opens an authority to issue with it.
pub(crate) fn open(key: &MasterKey, record: &db::Record) -> Result<bmi_auth::Authority, AppError> {
    let secret = key.open(&authority_key_purpose(record.id), &record.key_sealed)?;
    bmi_auth::Authority::open(&record.certificate, &secret).map_err(|error| failed(&error))
}

/// Those that every listener trusts by now: the oldest in any case. The newest of them issues, and agents are told of them.
pub(crate) fn settled(mut records: Vec<db::Record>, now: Timestamp) -> Vec<db::Record> {
    let first = records.first().map(|record| record.id);
    records.retain(|record| Some(record.id) == first || record.created_at.plus(SETTLED_AFTER) <= now);
    records
}

/// What is told of those that are trusted.
pub(crate) fn told(records: &[db::Record]) -> Authorities {
    let ids: String = records.iter().map(|record| format!("{}\n", record.id)).collect();
    Authorities {
        authorities: records.iter().map(|record| record.certificate.clone()).collect(),
        authorities_mark: Sha256::digest(ids).iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Makes one and writes it.
pub(crate) fn make(
    tx: &mut Tx<'_>,
    key: &MasterKey,
    trust_domain: &str,
    now: Timestamp,
) -> Result<db::Record, AppError> {
    let made = issuing::NewAuthority::generate(trust_domain, now).map_err(|error| failed(&error))?;
    let id = AuthorityId::generate();
    let record = db::Record {
        id,
        certificate: made.certificate,
        key_sealed: key.seal(&authority_key_purpose(id), &made.key)?,
        spki_sha256: made.spki_sha256,
        created_at: now,
        expires_at: made.expires_at,
    };
    db::insert(tx, &record)?;
    Ok(record)
}

fn shown(tx: &mut Tx<'_>, record: db::Record, issues: bool, now: Timestamp) -> Result<Authority, AppError> {
    let agents = enrolled_agent::count_of_authority(tx, record.id, now)?;
    Ok(Authority {
        id: record.id,
        certificate: record.certificate,
        spki_sha256: record.spki_sha256,
        issuing: issues,
        agents: u64::try_from(agents).unwrap_or(0),
        created_at: record.created_at,
        expires_at: record.expires_at,
    })
}

fn all(access: &mut Access<'_, '_>) -> Result<Vec<Authority>, AppError> {
    let records = db::list(access)?;
    let newest = records.last().map(|record| record.id);
    let now = Timestamp::now();
    records
        .into_iter()
        .map(|record| {
            let issues = Some(record.id) == newest;
            shown(access, record, issues, now)
        })
        .collect()
}

/// Lists the authorities, oldest first.
pub async fn authority_list(app: &App, caller: &Caller) -> Result<Vec<Authority>, AppError> {
    app.reading(caller, |access| {
        access.permit_everywhere(Action::AgentRead)?;
        all(access)
    })
    .await
}

/// Makes a new authority, which issues from now on. Those before it stay trusted.
pub async fn authority_rotate(app: &App, caller: &Caller, new: NewAuthority) -> Result<Authority, AppError> {
    let (enrolling, key) = (app.enrolling.clone(), app.master_key.clone());
    app.changing(caller, move |access| {
        access.permit_everywhere(Action::AuthorityWrite)?;
        let enrolling = enrolling.ok_or_else(no_agents)?;
        let records = db::list(access)?;
        if new.after.is_some() && new.after != records.last().map(|record| record.id) {
            return Err(AppError::refused(Code::WrongState, "another authority is the newest"));
        }
        if records.len() >= AUTHORITIES_MAX {
            let detail =
                format!("{} authorities are trusted already; retire the oldest first", records.len());
            return Err(AppError::refused(Code::WrongState, detail));
        }
        let now = Timestamp::now();
        let made = make(access, &key, &enrolling.trust_domain, now)?;
        access.did("authority", made.id, &made.spki_sha256);
        shown(access, made, true, now)
    })
    .await
}

/// Removes an authority: nobody trusts it any more. Not the newest, and not while an agent needs it.
pub async fn authority_retire(app: &App, caller: &Caller, authority: String) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        access.permit_everywhere(Action::AuthorityWrite)?;
        let all = all(access)?;
        let found = all.into_iter().find(|it| it.id.to_string() == authority);
        let found = found.ok_or_else(AppError::not_found)?;
        if found.issuing {
            let detail = "this authority issues certificates; rotate first";
            return Err(AppError::refused(Code::WrongState, detail));
        }
        if found.agents > 0 {
            let detail = format!(
                "{} agents have a certificate of this authority, and do not know the newer one yet; wait until they \
                 have renewed it, or revoke them",
                found.agents
            );
            let name = format!("{} agents", found.agents);
            let blocker = Blocker { kind: "agent".to_owned(), id: String::new(), name };
            return Err(AppError::blocked(detail, vec![blocker]));
        }
        db::delete(access, found.id)?;
        access.did("authority", found.id, &found.spki_sha256);
        Ok(())
    })
    .await
}

/// The refusal of what needs agents that join, where none can.
pub(crate) fn no_agents() -> AppError {
    let detail = "no agent can join here: the control plane's configuration has no [agents]";
    AppError::refused(Code::WrongState, detail)
}
