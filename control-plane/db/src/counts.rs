//! How much there is of everything, for the metrics.

use bmi_types::{InstanceId, NetworkId, ProjectId, Timestamp};
use diesel::dsl::count_star;
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::{agents, images, instances, networks, nodes, operations, projects, sessions};
use crate::{DbError, SystemTx};

/// How many of something are in each state.
pub type ByState = Vec<(String, i64)>;

/// A network and its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCount {
    /// The network.
    pub network: NetworkId,
    /// Its newest generation.
    pub generation: i64,
    /// The generation that was carried out, the state of the boot services and when the agent last reported, once one
    /// has.
    pub reported: Option<(i64, String, Timestamp)>,
    /// What its firewalls dropped, as it was written.
    pub dropped: Option<String>,
}

/// One instance's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetCount {
    /// The instance.
    pub instance: InstanceId,
    /// Its project.
    pub project: ProjectId,
    /// Its network.
    pub network: NetworkId,
    /// What the agent says of the target.
    pub state: String,
    /// Bytes read since the target started.
    pub read_bytes: i64,
    /// Bytes written since the target started.
    pub written_bytes: i64,
    /// Its last session, once there was one.
    pub session: Option<SessionCount>,
}

/// The session that began last at an instance's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCount {
    /// When it began.
    pub began_at: Timestamp,
    /// What it asked of the disk, as it was written.
    pub statistics: String,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Projects.
    pub projects: i64,
    /// Nodes by state.
    pub nodes: ByState,
    /// Images by state.
    pub images: ByState,
    /// Instances by state.
    pub instances: ByState,
    /// Operations by kind and state.
    pub operations: Vec<(String, String, i64)>,
    /// Networks and their agents.
    pub agents: Vec<AgentCount>,
    /// Targets.
    pub targets: Vec<TargetCount>,
}

/// Counts everything.
pub fn all(tx: &mut SystemTx<'_>) -> Result<Counts, DbError> {
    type Reported = (i64, String, i64, String);
    let agents: Vec<(Key, i64, Option<Reported>)> = networks::table
        .left_join(agents::table.on(agents::network_id.eq(networks::id)))
        .select((
            networks::id,
            networks::generation,
            (agents::generation_observed, agents::netboot_state, agents::last_seen, agents::dropped)
                .nullable(),
        ))
        .load(tx.sql())?;
    type Target = (Key, Key, Key, String, i64, i64, Option<(i64, String)>);
    let targets: Vec<Target> = instances::table
        .left_join(sessions::table.on(sessions::instance_id.eq(instances::id)))
        .order(instances::id.asc())
        .select((
            instances::id,
            instances::project_id,
            instances::network_id,
            instances::target_state,
            instances::read_bytes,
            instances::written_bytes,
            (sessions::began_at, sessions::statistics).nullable(),
        ))
        .load(tx.sql())?;
    Ok(Counts {
        projects: projects::table.count().get_result(tx.sql())?,
        nodes: nodes::table.group_by(nodes::state).select((nodes::state, count_star())).load(tx.sql())?,
        images: images::table.group_by(images::state).select((images::state, count_star())).load(tx.sql())?,
        instances: instances::table
            .group_by(instances::state)
            .select((instances::state, count_star()))
            .load(tx.sql())?,
        operations: operations::table
            .group_by((operations::kind, operations::state))
            .select((operations::kind, operations::state, count_star()))
            .load(tx.sql())?,
        agents: agents
            .into_iter()
            .map(|(network, generation, reported)| AgentCount {
                network: network.into(),
                generation,
                dropped: reported.as_ref().map(|(.., dropped)| dropped.clone()),
                reported: reported
                    .map(|(observed, netboot, seen, _)| (observed, netboot, Timestamp::from_micros(seen))),
            })
            .collect(),
        targets: targets
            .into_iter()
            .map(|(instance, project, network, state, read_bytes, written_bytes, session)| TargetCount {
                instance: instance.into(),
                project: project.into(),
                network: network.into(),
                state,
                read_bytes,
                written_bytes,
                session: session.map(|(began_at, statistics)| SessionCount {
                    began_at: Timestamp::from_micros(began_at),
                    statistics,
                }),
            })
            .collect(),
    })
}
