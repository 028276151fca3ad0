//! What an agent is told: the whole desired state of its network.

use std::time::Duration;

use bmi_agent_api::desired::{
    Backing, CephAccess, DesiredInstance, DesiredLun, DesiredNetwork, DesiredState, DesiredTarget,
};
use bmi_api::Code;
use bmi_auth::MasterKey;
use bmi_db::DbError;
use bmi_db::instance::Record;
use bmi_drivers::store::{self, DataStore, Place};
use bmi_types::{Architecture, BootKey, DhcpMode, Iqn, NetworkId, Timestamp};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::App;
use super::instance::boot_key_purpose;
use super::network_timeline;
use super::speaker::Speaker;
use crate::error::AppError;

/// The most generations that an agent can have seen and a restored database not: a change a millisecond for a month.
const AHEAD_MAX: i64 = 1 << 32;
/// The longest an agent may wait for a change.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What there is for an agent.
#[derive(Debug)]
pub enum Desired {
    /// A newer state than it knows.
    State(Box<DesiredState>),
    /// It has the network, and knows all that there is.
    Unchanged,
    /// Another agent has the network.
    StandBy,
}

/// The desired state of a speaker's network, as soon as it is newer than `known`, which has this mark (or none, for an agent
/// that knows of none); that it is unchanged when `wait` passes without that. For an agent that stands by, there is none.
///
/// # Errors
/// When the network is not the speaker's, the speaker may not speak or no longer, or the database fails.
pub async fn desired_state(
    app: &App,
    speaker: &Speaker,
    name: &str,
    known: u64,
    mark: &str,
    wait: Duration,
) -> Result<Desired, AppError> {
    let deadline = Instant::now() + wait.min(WAIT_MAX);
    catch_up(app, speaker, name, known, mark).await?;
    let mut bell = app.wake.desired.listen();
    loop {
        let found = read(app, speaker, name, known).await?;
        if matches!(found, Desired::State(_)) || Instant::now() >= deadline {
            return Ok(found);
        }
        bell.wait().await;
    }
}

/// An agent that knows a newer generation than there is, or another state under the same number, has seen the future of
/// a database that was restored from a backup. Its next desired state must be newer than that, or the agent would ignore
/// it.
async fn catch_up(app: &App, speaker: &Speaker, name: &str, known: u64, mark: &str) -> Result<(), AppError> {
    let (speaker, asked, mark) = (speaker.clone(), name.to_owned(), mark.to_owned());
    let known = i64::try_from(known).unwrap_or(i64::MAX);
    let compared = app
        .db
        .system_read(move |tx| {
            let entered = speaker.enter(tx, &asked, Timestamp::now())?;
            if !entered.serves() {
                return Ok(None);
            }
            let network = entered.network.id;
            let ahead = known.saturating_sub(bmi_db::network::generation(tx, network)?);
            let is_compared = ahead == 0 && !mark.is_empty();
            let instances = is_compared.then(|| bmi_db::instance::desired(tx, network)).transpose()?;
            Ok::<_, AppError>(Some((network, ahead, instances.map(|instances| (mark, instances)))))
        })
        .await?;
    let Some((network, ahead, instances)) = compared else { return Ok(()) };
    let another = match instances {
        Some((mark, instances)) => {
            let ports = ports(app, network).await?;
            // What is newer than what was compared is another state as well, and is told a moment later in any case.
            mark != mark_of(network, &instances, &ports)
        }
        None => false,
    };
    match (ahead > 0 || another).then_some((network, ahead)) {
        Some((network, ahead)) if ahead <= AHEAD_MAX => {
            tracing::warn!(
                network.name = name,
                ahead,
                "the agent knows what this database does not; was a backup restored?"
            );
            let raise = move |tx: &mut bmi_db::SystemTx<'_>| {
                if bmi_db::network::generation_raise(tx, network, known)? {
                    let generation = [("generation", known.to_string())];
                    network_timeline::add(tx, network, Timestamp::now(), "desired.ahead", generation)?;
                }
                Ok::<_, AppError>(())
            };
            app.db.system_write(raise).await?;
            Ok(())
        }
        Some((_, ahead)) => {
            tracing::error!(network.name = name, ahead, "the agent claims a generation that cannot be");
            Ok(())
        }
        None => Ok(()),
    }
}

/// The ports that the network's agent is to have in its bridge.
async fn ports(app: &App, network: NetworkId) -> Result<Vec<String>, AppError> {
    let ports = app.isolation.ports(network).await;
    ports.map_err(|error| AppError::refused(Code::Unavailable, bmi_types::chain(&error)))
}

/// What a desired state is known by: the same for the same instances and ports, in every release.
fn mark_of(network: NetworkId, instances: &[(Record, Vec<String>)], ports: &[String]) -> String {
    let lines = instances.iter().map(|(record, macs)| format!("{} {}\n", record.instance.id, macs.join(" ")));
    let ports = ports.iter().map(|port| format!("port {port}\n"));
    let text = format!("{network}\n{}", lines.chain(ports).collect::<String>());
    let digest = Sha256::digest(text);
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

async fn read(app: &App, speaker: &Speaker, name: &str, known: u64) -> Result<Desired, AppError> {
    let (key, store) = (app.master_key.clone(), app.store.clone());
    let (asking, of) = (speaker.clone(), name.to_owned());
    let read = app
        .db
        .system_read(move |tx| {
            let entered = asking.enter(tx, &of, Timestamp::now())?;
            if !entered.serves() {
                return Ok(Err(Desired::StandBy));
            }
            let network = entered.network;
            let generation = bmi_db::network::generation(tx, network.id)?;
            let generation = u64::try_from(generation).unwrap_or(0);
            if generation <= known {
                return Ok(Err(Desired::Unchanged));
            }
            let found = bmi_db::instance::desired(tx, network.id)?;
            let (mut instances, mut boots) = (Vec::new(), Vec::new());
            for (record, macs) in &found {
                let mut wanted = instance(&key, &*store, record, macs)?;
                boots.push(Place { project: record.instance.project, volume: record.boot_volume });
                // What another server gave last is not what it gives next.
                wanted.node_address = wanted.node_address.filter(|_| network.dhcp == DhcpMode::Authoritative);
                instances.push(wanted);
            }
            let state = DesiredState {
                generation,
                mark: String::new(),
                network: DesiredNetwork {
                    id: network.id,
                    name: network.name,
                    plan: network.plan,
                    dhcp: network.dhcp,
                    relays: network.relays,
                    segment: network.segment,
                },
                instances,
                ports: Vec::new(),
            };
            Ok::<_, AppError>(Ok((state, boots, found)))
        })
        .await?;
    let (mut state, boots, found) = match read {
        Ok(read) => read,
        Err(nothing) => return Ok(nothing),
    };
    // What is read after the state is as new as the state, or newer: then a newer state follows.
    state.ports = ports(app, state.network.id).await?;
    state.mark = mark_of(state.network.id, &found, &state.ports);
    let access = app.store.access(&boots).await?;
    for (instance, boot) in state.instances.iter_mut().zip(&boots) {
        instance.ceph = access.get(&boot.volume).map(|access| CephAccess {
            mon_host: access.mon_host.clone(),
            pool: access.pool.clone(),
            user: access.user.clone(),
            key: access.key.clone(),
        });
    }
    // Who was revoked since the state was read must not learn the keys that its fencing has made.
    let (speaker, name) = (speaker.clone(), name.to_owned());
    let serves =
        app.db.system_read(move |tx| Ok::<_, AppError>(speaker.enter(tx, &name, Timestamp::now())?.serves()));
    Ok(if serves.await? { Desired::State(Box::new(state)) } else { Desired::StandBy })
}

fn instance(
    key: &MasterKey,
    store: &dyn DataStore,
    record: &Record,
    macs: &[String],
) -> Result<DesiredInstance, AppError> {
    let instance = &record.instance;
    let hex = key.open(&boot_key_purpose(instance.id), &record.boot_key_sealed)?;
    let unreadable =
        |column, value: &str| DbError::Unreadable { table: "instances", column, value: value.to_owned() };
    let boot_key =
        BootKey::from_hex(hex.expose()).ok_or_else(|| unreadable("boot_key_sealed", "(secret)"))?;
    let macs = macs
        .iter()
        .map(|mac| mac.parse().map_err(|_| unreadable("mac", mac).into()))
        .collect::<Result<_, AppError>>()?;
    let lun = |lun, volume, read_only| {
        let backing = match store.backing(Place { project: instance.project, volume }) {
            store::Backing::File(path) => Backing::File { path },
            store::Backing::Rbd { namespace, image } => Backing::Rbd { namespace, image },
        };
        DesiredLun { lun, backing, read_only }
    };
    Ok(DesiredInstance {
        id: instance.id,
        hostname: instance.name.clone(),
        macs,
        node_address: instance.node_address,
        architecture: Architecture::X86_64,
        initiator: Iqn::node_initiator(instance.node),
        target: DesiredTarget {
            iqn: instance.target.clone(),
            address: instance.target_address,
            luns: vec![lun(0, record.boot_volume, false), lun(1, record.config_volume, true)],
        },
        boot_key,
        boot_floor: record.boot_floor,
        ceph: None,
    })
}
