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
            ("NAME", |who| who.display.clone()),
            ("ROLES", |who| {
                let role = |it: &bmi_api::WhoamiRole| match it.project {
                    Some(project) => format!("{} in {project}", it.role),
                    None => it.role.clone(),
                };
                who.roles.iter().map(role).collect::<Vec<String>>().join(", ")
            }),
            ("GROUPS", |who| who.groups.join(", ")),
        ],
    )
}
