//! `bmi datastore`.

use bmi_api::Datastore;
use clap::Subcommand;

use crate::Session;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists data stores and how full they are.
    List,
}

const COLUMNS: &[Column<Datastore>] = &[
    ("KIND", |store| store.kind.clone()),
    ("USED", |store| store.used.to_string()),
    ("CAPACITY", |store| store.capacity.to_string()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List => session.output.list(&session.client.list("/v1/datastores").await?, COLUMNS),
    }
}
