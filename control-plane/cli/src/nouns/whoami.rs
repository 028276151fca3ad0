//! `bmi whoami`.

use bmi_api::Whoami;

use crate::Session;
use crate::failure::Failure;

pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    let whoami: Whoami = session.client.get("/v1/whoami").await?;
    session.output.one(
        &whoami,
        &[
            ("SUBJECT", |who| who.subject.clone()),
            ("KIND", |who| who.kind.to_string()),
            ("ROLES", |who| who.roles.join(", ")),
        ],
    )
}
