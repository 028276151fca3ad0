//! `bmi quota`.

use bmi_api::{Quota, QuotaBytes, QuotaCount, QuotaPatch};
use bmi_types::ByteSize;
use clap::{Args, Subcommand};

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Shows what a project may have, and has.
    Show,
    /// Sets limits; what is not named stays. `default` goes back to the server's default.
    Set(Limits),
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Limits {
    /// Instances.
    #[arg(long, value_name = "N|default")]
    instances: Option<String>,
    /// Nodes that are assigned.
    #[arg(long, value_name = "N|default")]
    nodes: Option<String>,
    /// Images.
    #[arg(long, value_name = "N|default")]
    images: Option<String>,
    /// Size of images and boot volumes, such as 500G.
    #[arg(long, value_name = "SIZE|default")]
    virtual_bytes: Option<String>,
    /// What they really take, such as 100G.
    #[arg(long, value_name = "SIZE|default")]
    used_bytes: Option<String>,
}

fn limit<T: std::str::FromStr<Err: std::fmt::Display>>(
    flag: &str,
    text: Option<String>,
) -> Result<Option<Option<T>>, Failure> {
    match text.as_deref() {
        None => Ok(None),
        Some("default") => Ok(Some(None)),
        Some(text) => match text.parse() {
            Ok(value) => Ok(Some(Some(value))),
            Err(error) => Err(Failure::usage(format!("--{flag}: {error}"))),
        },
    }
}

fn count(count: QuotaCount) -> String {
    let limit = count.limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    format!("{} of {limit}{}", count.used, if count.own { "" } else { " (default)" })
}

fn bytes(bytes: QuotaBytes) -> String {
    let limit = bytes.limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    format!("{} of {limit}{}", bytes.used, if bytes.own { "" } else { " (default)" })
}

const COLUMNS: &[Column<Quota>] = &[
    ("INSTANCES", |quota| count(quota.instances)),
    ("NODES", |quota| count(quota.nodes)),
    ("IMAGES", |quota| count(quota.images)),
    ("VIRTUAL BYTES", |quota| bytes(quota.virtual_bytes)),
    ("USED BYTES", |quota| bytes(quota.used_bytes)),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    let path = format!("/v1/projects/{}/quota", part(session.project()?)?);
    match verb {
        Verb::Show => output.one(&client.get(&path).await?, COLUMNS),
        Verb::Set(limits) => {
            let patch = QuotaPatch {
                instances: limit("instances", limits.instances)?,
                nodes: limit("nodes", limits.nodes)?,
                images: limit("images", limits.images)?,
                virtual_bytes: limit::<ByteSize>("virtual-bytes", limits.virtual_bytes)?,
                used_bytes: limit::<ByteSize>("used-bytes", limits.used_bytes)?,
            };
            output.one(&client.patch(&path, &patch, None).await?, COLUMNS)
        }
    }
}
