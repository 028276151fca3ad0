//! Instances, with what only the control plane knows of them.

use std::net::Ipv4Addr;

use bmi_api::{BootCondition, Instance, InstanceState, TargetState, Traffic};
use bmi_types::{
    BootNumber, ByteSize, ImageId, InstanceId, Iqn, Name, NetworkId, NodeId, ProjectId, Timestamp, VolumeId,
};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable, signed, unsigned, word};
use crate::schema::{instances, nics, stages};
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = instances)]
struct Row {
    id: Key,
    project_id: Key,
    name: String,
    node_id: Key,
    image_id: Key,
    network_id: Key,
    state: String,
    node_address: i64,
    target_address: i64,
    boot_volume: Key,
    config_volume: Key,
    boot_key_sealed: String,
    user_data_sealed: String,
    published_generation: Option<i64>,
    withdrawn_generation: Option<i64>,
    target_state: String,
    target_reason: Option<String>,
    read_bytes: i64,
    written_bytes: i64,
    created_at: i64,
    version: i64,
    address_giver: String,
    address_seen: Option<i64>,
    boot_condition: Option<String>,
    used_bytes: i64,
    boot_floor: i64,
}

/// Who gives the node its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressGiver {
    /// The boot services, always the same one.
    Bmi,
    /// Another DHCP server: the one in `node_address` is only kept free.
    Other,
}

impl AddressGiver {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bmi => "bmi",
            Self::Other => "other",
        }
    }
}

/// An instance with what only the control plane knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the API shows.
    pub instance: Instance,
    /// Its boot volume.
    pub boot_volume: VolumeId,
    /// Its config volume.
    pub config_volume: VolumeId,
    /// The boot key, sealed.
    pub boot_key_sealed: String,
    /// SSH keys and user data, sealed.
    pub user_data_sealed: String,
    /// The generation in which its target was first desired.
    pub published_generation: Option<i64>,
    /// The generation in which its target was no longer desired.
    pub withdrawn_generation: Option<i64>,
    /// Why its target failed.
    pub target_reason: Option<String>,
    /// The highest boot number that has logged in.
    pub boot_floor: BootNumber,
}

/// What a new instance begins as.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Its id.
    pub id: InstanceId,
    /// Its project.
    pub project: ProjectId,
    /// Its name.
    pub name: Name,
    /// Its node.
    pub node: NodeId,
    /// Its golden image.
    pub image: ImageId,
    /// Its network.
    pub network: NetworkId,
    /// The node's address.
    pub node_address: Ipv4Addr,
    /// Who gives it.
    pub address_giver: AddressGiver,
    /// The target's address.
    pub target_address: Ipv4Addr,
    /// The boot key, sealed.
    pub boot_key_sealed: String,
    /// SSH keys and user data, sealed.
    pub user_data_sealed: String,
}

fn address(column: &'static str, value: i64) -> Result<Ipv4Addr, DbError> {
    let parsed = u32::try_from(value).map(Ipv4Addr::from);
    readable("instances", column, &value.to_string(), parsed)
}

impl Row {
    fn read(self) -> Result<Record, DbError> {
        let id: InstanceId = self.id.into();
        let node_address = if self.address_giver == AddressGiver::Bmi.as_str() {
            Some(self.node_address)
        } else {
            self.address_seen
        };
        let condition = match self.boot_condition {
            Some(word) => Some(word!("instances", "boot_condition", BootCondition, word)?),
            None => None,
        };
        Ok(Record {
            instance: Instance {
                id,
                name: readable("instances", "name", &self.name, self.name.parse())?,
                project: self.project_id.into(),
                node: self.node_id.into(),
                image: self.image_id.into(),
                network: self.network_id.into(),
                state: word!("instances", "state", InstanceState, self.state)?,
                node_address: node_address.map(|value| address("node_address", value)).transpose()?,
                condition,
                target_address: address("target_address", self.target_address)?,
                target: Iqn::instance_target(id),
                target_state: word!("instances", "target_state", TargetState, self.target_state)?,
                traffic: Traffic {
                    read: ByteSize::new(unsigned(self.read_bytes)),
                    written: ByteSize::new(unsigned(self.written_bytes)),
                },
                created_at: Timestamp::from_micros(self.created_at),
                version: self.version,
            },
            boot_volume: self.boot_volume.into(),
            config_volume: self.config_volume.into(),
            boot_key_sealed: self.boot_key_sealed,
            user_data_sealed: self.user_data_sealed,
            published_generation: self.published_generation,
            withdrawn_generation: self.withdrawn_generation,
            target_reason: self.target_reason,
            boot_floor: BootNumber(unsigned(self.boot_floor)),
        })
    }
}

/// Writes a new instance.
pub fn insert(tx: &mut Tx<'_>, new: &Beginning, now: Timestamp) -> Result<Record, DbError> {
    let row = Row {
        id: new.id.into(),
        project_id: new.project.into(),
        name: new.name.to_string(),
        node_id: new.node.into(),
        image_id: new.image.into(),
        network_id: new.network.into(),
        state: InstanceState::Provisioning.to_string(),
        node_address: u32::from(new.node_address).into(),
        target_address: u32::from(new.target_address).into(),
        boot_volume: VolumeId::generate().into(),
        config_volume: VolumeId::generate().into(),
        boot_key_sealed: new.boot_key_sealed.clone(),
        user_data_sealed: new.user_data_sealed.clone(),
        published_generation: None,
        withdrawn_generation: None,
        target_state: TargetState::Absent.to_string(),
        target_reason: None,
        read_bytes: 0,
        written_bytes: 0,
        created_at: now.micros(),
        version: 1,
        address_giver: new.address_giver.as_str().to_owned(),
        address_seen: None,
        boot_condition: None,
        used_bytes: 0,
        boot_floor: 0,
    };
    diesel::insert_into(instances::table).values(&row).execute(tx.sql())?;
    row.read()
}

/// Finds one instance of a project.
pub fn find(tx: &mut Tx<'_>, project: InProject, reference: &Reference) -> Result<Option<Record>, DbError> {
    let query = instances::table.filter(instances::project_id.eq(project.key()));
    let row: Option<Row> = match reference {
        Reference::Id(id) => query.filter(instances::id.eq(Key(*id))).first(tx.sql()).optional()?,
        Reference::Name(name) => {
            query.filter(instances::name.eq(name.as_str())).first(tx.sql()).optional()?
        }
    };
    row.map(Row::read).transpose()
}

/// The instance an operation or a network's agent speaks of.
pub fn by_id(tx: &mut SystemTx<'_>, id: InstanceId) -> Result<Option<Record>, DbError> {
    let row: Option<Row> =
        instances::table.filter(instances::id.eq(Key::from(id))).first(tx.sql()).optional()?;
    row.map(Row::read).transpose()
}

/// One page of a project's instances.
pub fn list(tx: &mut Tx<'_>, project: InProject, after: After) -> Result<Vec<Instance>, DbError> {
    let rows: Vec<Row> = instances::table
        .filter(instances::project_id.eq(project.key()))
        .filter(instances::id.gt(Key(after.id)))
        .order(instances::id.asc())
        .limit(after.limit)
        .load(tx.sql())?;
    rows.into_iter().map(|row| row.read().map(|record| record.instance)).collect()
}

/// Which instances stand in the way of removing something.
#[derive(Debug, Clone, Copy)]
pub enum Using {
    /// Clones of an image.
    Image(ImageId),
    /// Instances on a network.
    Network(NetworkId),
    /// The instance on a node.
    Node(NodeId),
}

/// Instances that use something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// At most 100 in the transaction's scope, oldest first.
    pub seen: Vec<Instance>,
    /// How many there are out of it.
    pub others: i64,
}

impl Users {
    /// Whether there is any.
    #[must_use]
    pub const fn any(&self) -> bool {
        !self.seen.is_empty() || self.others > 0
    }
}

/// Which instances use something.
pub fn using(tx: &mut Tx<'_>, what: Using) -> Result<Users, DbError> {
    let filtered = || {
        let query = instances::table.into_boxed();
        match what {
            Using::Image(id) => query.filter(instances::image_id.eq(Key::from(id))),
            Using::Network(id) => query.filter(instances::network_id.eq(Key::from(id))),
            Using::Node(id) => query.filter(instances::node_id.eq(Key::from(id))),
        }
    };
    let all: i64 = filtered().count().get_result(tx.sql())?;
    let (mut seen, mut counted) = (filtered(), filtered());
    if let Some(only) = tx.only() {
        seen = seen.filter(instances::project_id.eq_any(only.clone()));
        counted = counted.filter(instances::project_id.eq_any(only));
    }
    let seen_count: i64 = counted.count().get_result(tx.sql())?;
    let rows: Vec<Row> = seen.order(instances::id.asc()).limit(100).load(tx.sql())?;
    let seen = rows.into_iter().map(|row| row.read().map(|record| record.instance));
    Ok(Users { seen: seen.collect::<Result<_, _>>()?, others: all - seen_count })
}

/// Every address in use on a network: nodes' and targets'.
pub fn addresses(tx: &mut Tx<'_>, network: NetworkId) -> Result<Vec<Ipv4Addr>, DbError> {
    let rows: Vec<(i64, i64)> = instances::table
        .filter(instances::network_id.eq(Key::from(network)))
        .select((instances::node_address, instances::target_address))
        .load(tx.sql())?;
    rows.into_iter()
        .flat_map(|(node, target)| [address("node_address", node), address("target_address", target)])
        .collect()
}

/// Every instance of a network whose target is desired, with its node's NICs.
pub fn desired(tx: &mut SystemTx<'_>, network: NetworkId) -> Result<Vec<(Record, Vec<String>)>, DbError> {
    let rows: Vec<Row> = instances::table
        .filter(instances::network_id.eq(Key::from(network)))
        .filter(instances::published_generation.is_not_null())
        .filter(instances::withdrawn_generation.is_null())
        .order(instances::id.asc())
        .load(tx.sql())?;
    rows.into_iter()
        .map(|row| {
            let macs = nics::table
                .filter(nics::node_id.eq(row.node_id))
                .order(nics::position.asc())
                .select(nics::mac)
                .load(tx.sql())?;
            Ok((row.read()?, macs))
        })
        .collect()
}

/// The instance on the node with a NIC, on one network.
pub fn of_mac(tx: &mut SystemTx<'_>, network: NetworkId, mac: &str) -> Result<Option<InstanceId>, DbError> {
    let id: Option<Key> = instances::table
        .inner_join(nics::table.on(nics::node_id.eq(instances::node_id)))
        .filter(nics::mac.eq(mac))
        .filter(instances::network_id.eq(Key::from(network)))
        .select(instances::id)
        .first(tx.sql())
        .optional()?;
    Ok(id.map(Into::into))
}

/// Moves an instance from one of some states to another; answers false when it was in none of them.
pub fn state_change(
    tx: &mut Tx<'_>,
    project: InProject,
    id: InstanceId,
    from: &[InstanceState],
    to: InstanceState,
) -> Result<bool, DbError> {
    let words: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let changed = diesel::update(
        instances::table
            .filter(instances::id.eq(Key::from(id)))
            .filter(instances::project_id.eq(project.key()))
            .filter(instances::state.eq_any(words)),
    )
    .set((instances::state.eq(to.as_str()), instances::version.eq(instances::version + 1)))
    .execute(tx.sql())?;
    Ok(changed == 1)
}

/// Writes in which generation the target is desired, or no longer.
pub fn publish(
    tx: &mut SystemTx<'_>,
    id: InstanceId,
    published: Option<i64>,
    withdrawn: Option<i64>,
) -> Result<(), DbError> {
    diesel::update(instances::table.filter(instances::id.eq(Key::from(id))))
        .set((instances::published_generation.eq(published), instances::withdrawn_generation.eq(withdrawn)))
        .execute(tx.sql())?;
    Ok(())
}

/// Writes what the agent says of one target.
pub fn target_report(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    id: InstanceId,
    state: TargetState,
    reason: Option<&str>,
) -> Result<(), DbError> {
    diesel::update(
        instances::table
            .filter(instances::id.eq(Key::from(id)))
            .filter(instances::network_id.eq(Key::from(network))),
    )
    .set((instances::target_state.eq(state.as_str()), instances::target_reason.eq(reason)))
    .execute(tx.sql())?;
    Ok(())
}

/// Writes that nothing exists of any target of a network except some.
pub fn targets_absent_except(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    except: &[InstanceId],
) -> Result<(), DbError> {
    let except: Vec<Key> = except.iter().map(|id| Key::from(*id)).collect();
    diesel::update(
        instances::table
            .filter(instances::network_id.eq(Key::from(network)))
            .filter(instances::id.ne_all(except)),
    )
    .set((
        instances::target_state.eq(TargetState::Absent.as_str()),
        instances::target_reason.eq(None::<String>),
    ))
    .execute(tx.sql())?;
    Ok(())
}

/// Writes from which address a node boots that another server gives it.
pub fn address_seen(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    id: InstanceId,
    address: Ipv4Addr,
) -> Result<(), DbError> {
    diesel::update(
        instances::table
            .filter(instances::id.eq(Key::from(id)))
            .filter(instances::network_id.eq(Key::from(network))),
    )
    .set(instances::address_seen.eq(i64::from(u32::from(address))))
    .execute(tx.sql())?;
    Ok(())
}

/// Notes that a boot has logged in: no lower number may any more, whichever agent serves the network.
pub fn boot_floor_raise(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    id: InstanceId,
    boot: BootNumber,
) -> Result<(), DbError> {
    let boot = i64::try_from(boot.0).unwrap_or(i64::MAX);
    let lower = instances::table
        .filter(instances::id.eq(Key::from(id)))
        .filter(instances::network_id.eq(Key::from(network)))
        .filter(instances::boot_floor.lt(boot));
    diesel::update(lower).set(instances::boot_floor.eq(boot)).execute(tx.sql())?;
    Ok(())
}

/// Writes what is wrong with an instance's boot, or that nothing is.
pub fn condition(
    tx: &mut SystemTx<'_>,
    id: InstanceId,
    condition: Option<BootCondition>,
) -> Result<(), DbError> {
    diesel::update(instances::table.filter(instances::id.eq(Key::from(id))))
        .set((
            instances::boot_condition.eq(condition.map(BootCondition::as_str)),
            instances::version.eq(instances::version + 1),
        ))
        .execute(tx.sql())?;
    Ok(())
}

/// Instances whose boot is to be looked at: something happened to them since, or something is wrong.
pub fn booting(tx: &mut SystemTx<'_>, since: Timestamp) -> Result<Vec<InstanceId>, DbError> {
    let recent = stages::table.filter(stages::at.ge(since.micros())).select(stages::instance_id);
    let ids: Vec<Key> = instances::table
        .filter(instances::id.eq_any(recent).or(instances::boot_condition.is_not_null()))
        .select(instances::id)
        .load(tx.sql())?;
    Ok(ids.into_iter().map(Into::into).collect())
}

/// Writes a target's totals.
pub fn traffic(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    id: InstanceId,
    traffic: Traffic,
) -> Result<(), DbError> {
    diesel::update(
        instances::table
            .filter(instances::id.eq(Key::from(id)))
            .filter(instances::network_id.eq(Key::from(network))),
    )
    .set((
        instances::read_bytes.eq(signed(traffic.read.bytes())),
        instances::written_bytes.eq(signed(traffic.written.bytes())),
    ))
    .execute(tx.sql())?;
    Ok(())
}

/// Removes an instance.
pub fn delete(tx: &mut SystemTx<'_>, id: InstanceId) -> Result<(), DbError> {
    diesel::delete(instances::table.filter(instances::id.eq(Key::from(id)))).execute(tx.sql())?;
    Ok(())
}
