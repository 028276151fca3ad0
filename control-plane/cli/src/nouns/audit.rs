//! `bmi audit`.

use std::path::PathBuf;

use bmi_api::{AuditChain, AuditHead, AuditRecord};
use clap::Subcommand;

use crate::Session;
use crate::chain::{Known, Verified, Verifier};
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists lines of the log, oldest first: with -p those of one project.
    List {
        /// Only by this subject.
        #[arg(long)]
        actor: Option<String>,
        /// Only this action, such as image:write.
        #[arg(long)]
        action: Option<String>,
        /// Only done, failed or denied.
        #[arg(long)]
        outcome: Option<String>,
    },
    /// Verifies the whole chain here, on this machine: every hash, and the signature of its head.
    ///
    /// A changed or removed line is found. That the end was cut off is found against a head that was seen before: keep
    /// one with --state FILE, and name it again the next time.
    Verify {
        /// The server's public key in base64; may be given several times. Without it the key that the server names is
        /// believed, which finds no chain that was made anew under another key.
        #[arg(long = "key", value_name = "KEY")]
        keys: Vec<String>,
        /// Where the head that was verified last is kept: the chain must still lead through it.
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
    },
}

const COLUMNS: &[Column<AuditRecord>] = &[
    ("AT", |record| record.at.to_string()),
    ("ACTOR", |record| record.actor.clone()),
    ("ACTION", |record| record.action.clone()),
    ("OUTCOME", |record| record.outcome.clone()),
    ("OBJECT", |record| match &record.object {
        Some((kind, _, name)) => format!("{kind} {name}"),
        None => String::new(),
    }),
    ("PROJECT", |record| record.project.map(|id| id.to_string()).unwrap_or_default()),
    ("DETAIL", |record| record.detail.clone()),
    ("PLACE", |record| record.position.map(|position| position.to_string()).unwrap_or_default()),
];

const VERIFIED: &[Column<Verified>] = &[
    ("ROWS", |it| it.rows.to_string()),
    ("FROM", |it| it.from.to_string()),
    ("HEAD", |it| it.position.to_string()),
    ("HASH", |it| it.hash.clone()),
    ("KEY", |it| it.key.clone()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List { actor, action, outcome } => {
            let mut asked = Vec::new();
            asked.extend(session.project.clone().map(|project| ("project", project)));
            asked.extend(actor.map(|actor| ("actor", actor)));
            asked.extend(action.map(|action| ("action", action)));
            asked.extend(outcome.map(|outcome| ("outcome", outcome)));
            let path = client.path_with("/v1/audit", &asked)?;
            output.list(&client.list::<AuditRecord>(&path).await?, COLUMNS)
        }
        Verb::Verify { keys, state } => {
            let known = state.as_deref().map(Known::read).transpose()?.flatten();
            let mut verifier: Option<Verifier> = None;
            let mut after = 0;
            let (head, broken): (Option<AuditHead>, Option<String>) = loop {
                let chain: AuditChain = client.get(&format!("/v1/audit/chain?after={after}")).await?;
                let verifier = match &mut verifier {
                    Some(verifier) => verifier,
                    None => {
                        verifier.insert(Verifier::begin(&keys, chain.checkpoint.as_ref(), known.clone())?)
                    }
                };
                for row in &chain.rows {
                    verifier.row(row)?;
                    after = row.position;
                }
                if chain.rows.is_empty() {
                    break (chain.head, chain.broken);
                }
            };
            let Some(verifier) = verifier else { return Ok(()) };
            let verified = verifier.end(head.as_ref())?;
            if let Some(broken) = broken {
                return Err(Failure::Operation(format!("the server itself says: {broken}")));
            }
            if let Some(state) = &state {
                Known::write(state, &verified)?;
            }
            output.one(&verified, VERIFIED)
        }
    }
}
