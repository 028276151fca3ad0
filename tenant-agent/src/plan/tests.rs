//! Properties of the plan against a model of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bmi_agent_api::desired::{
    Backing, CephAccess, DesiredInstance, DesiredLun, DesiredNetwork, DesiredState, DesiredTarget,
};
use bmi_types::{
    Architecture, BootKey, BootNumber, CephKey, DhcpMode, InstanceId, Iqn, MacAddr, NetworkId, NetworkPlan,
    NodeId, Segment,
};
use proptest::prelude::*;

use super::names::ProcessId;
use super::spec::{Kept, Wanted};
use super::{Action, Health, Observed, ObservedProcess, plan};

fn instance_id(number: u8) -> InstanceId {
    format!("0190163d-8694-739b-aea5-0000000000{number:02x}").parse().unwrap()
}

fn instance(number: u8, node: u8) -> DesiredInstance {
    let id = instance_id(number);
    DesiredInstance {
        id,
        hostname: format!("node-{node}").parse().unwrap(),
        macs: vec![MacAddr::from_octets([0x52, 0x54, 0, 0, 0, node]).unwrap()],
        node_address: Some(Ipv4Addr::new(10, 20, 0, 65 + node)),
        architecture: Architecture::X86_64,
        initiator: Iqn::node_initiator("0190163d-8694-739b-aea5-966c26f8ad92".parse::<NodeId>().unwrap()),
        target: DesiredTarget {
            iqn: Iqn::instance_target(id),
            address: Ipv4Addr::new(10, 20, 0, 8 + number),
            luns: vec![DesiredLun {
                lun: 0,
                backing: Backing::File { path: format!("/volumes/{number}.raw").into() },
                read_only: false,
            }],
        },
        boot_key: BootKey::from_hex(&"07".repeat(32)).unwrap(),
        boot_floor: BootNumber::default(),
        ceph: None,
    }
}

/// An instance whose volume is in Ceph.
fn in_ceph(number: u8, node: u8, key: &str) -> DesiredInstance {
    let mut instance = instance(number, node);
    let backing = Backing::Rbd { namespace: "a".to_owned(), image: format!("volume-{number}") };
    instance.target.luns = vec![DesiredLun { lun: 0, backing, read_only: false }];
    instance.ceph = Some(CephAccess {
        mon_host: "127.0.0.1:3300".to_owned(),
        pool: "bmi".to_owned(),
        user: format!("volume-{number}"),
        key: CephKey::parse(key).unwrap(),
    });
    instance
}

fn desired(generation: u64, instances: Vec<DesiredInstance>) -> DesiredState {
    DesiredState {
        generation,
        mark: String::new(),
        network: DesiredNetwork {
            id: "0190163d-8694-739b-aea5-966c26f8ad00".parse::<NetworkId>().unwrap(),
            name: "lab".parse().unwrap(),
            plan: NetworkPlan::lay_out("10.20.0.0/24".parse().unwrap(), None, None, None, None).unwrap(),
            dhcp: DhcpMode::Authoritative,
            relays: Vec::new(),
            segment: Segment::None,
        },
        instances,
        ports: Vec::new(),
    }
}

/// A world in which every action works, and a started process listens by the next look.
#[derive(Default)]
struct World {
    kept: Kept,
    observed: Observed,
    /// Brokers that this plan has stopped.
    stopped: Vec<InstanceId>,
}

impl World {
    fn wanted(&mut self, desired: &DesiredState) -> Wanted {
        let present: BTreeSet<ProcessId> = self.observed.processes.keys().copied().collect();
        self.kept.settle(desired, &present);
        Wanted::from_desired(desired, &self.kept, "/loaders".into())
    }

    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::NetbootConfigure(config) => {
                    assert!(self.observed.processes.contains_key(&ProcessId::Netboot));
                    self.observed.netboot = Some(config);
                }
                Action::ProcessStop(id) => {
                    let booting = self.observed.netboot.as_ref().is_some_and(|config| {
                        config.instances.iter().any(|boot| ProcessId::Target(boot.id) == id)
                    });
                    let netboot = self.observed.processes.get(&ProcessId::Netboot);
                    let serving = netboot.is_some_and(|netboot| netboot.health == Health::Listening);
                    assert!(!(booting && serving), "{id} is stopped while its node can still boot");
                    if let ProcessId::Broker(instance) = id {
                        self.stopped.push(instance);
                    }
                    if let ProcessId::Target(instance) = id {
                        assert!(!self.stopped.contains(&instance), "a target is stopped before its broker");
                    }
                    assert!(self.observed.processes.remove(&id).is_some(), "{id} is not there");
                }
                Action::NetworkEnsure(network) => self.observed.network = Some(network),
                Action::NetbootStart(spec, config) => {
                    assert!(
                        config.instances.iter().all(|boot| {
                            self.observed.processes.contains_key(&ProcessId::Target(boot.id))
                        })
                    );
                    self.observed.netboot = Some(config);
                    self.start(spec);
                }
                Action::TargetStart(spec, gate) => {
                    assert_eq!(spec.id(), ProcessId::Target(gate.instance));
                    let broker = self.observed.processes.get(&ProcessId::Broker(gate.instance));
                    let super::spec::ProcessSpec::Target(target) = &spec else { panic!("{spec:?}") };
                    assert!(
                        target.remote.is_empty() || broker.unwrap().health == Health::Listening,
                        "a target is started when its broker listens"
                    );
                    let network = self.observed.network.as_ref().expect("the bridge comes first");
                    assert!(network.targets.iter().any(|port| port.instance == gate.instance));
                    self.start(spec);
                }
                Action::BrokerStart(spec) => self.start(spec),
            }
        }
        self.stopped.clear();
    }

    fn start(&mut self, spec: super::spec::ProcessSpec) {
        let process = ObservedProcess { spec: Some(spec.clone()), health: Health::Starting, lun: 0 };
        assert!(self.observed.processes.insert(spec.id(), process).is_none(), "started twice");
        let slots: Vec<u32> = self
            .observed
            .processes
            .values()
            .filter_map(|process| Some(process.spec.as_ref()?.slot()))
            .collect();
        assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), slots.len(), "a user id of its own");
    }

    fn come_to_listen(&mut self) {
        for process in self.observed.processes.values_mut() {
            if process.health == Health::Starting {
                process.health = Health::Listening;
            }
        }
    }

    /// Repeats until nothing is left to do; says how many rounds it took.
    fn converge(&mut self, desired: &DesiredState) -> usize {
        for round in 0..6 {
            let wanted = self.wanted(desired);
            let actions = plan(&wanted, &self.observed);
            if actions.is_empty() {
                return round;
            }
            self.apply(actions);
            self.come_to_listen();
        }
        panic!("no end: {:?}", self.observed);
    }
}

#[test]
fn a_boot_entry_comes_last_and_goes_first() {
    let mut world = World::default();
    let state = desired(1, vec![instance(1, 1)]);
    let wanted = world.wanted(&state);
    let first = plan(&wanted, &world.observed);
    assert!(matches!(
        first.as_slice(),
        [Action::NetworkEnsure(_), Action::NetbootStart(_, config), Action::TargetStart(..)]
            if config.instances.is_empty() && config.waiting.len() == 1
    ));
    world.apply(first);
    assert_eq!(plan(&wanted, &world.observed), [], "nothing to do while they start");
    world.come_to_listen();
    let second = plan(&wanted, &world.observed);
    assert!(matches!(second.as_slice(), [Action::NetbootConfigure(config)] if config.instances.len() == 1));
    world.apply(second);

    let wanted = world.wanted(&desired(2, Vec::new()));
    let removal = plan(&wanted, &world.observed);
    assert!(matches!(
        removal.as_slice(),
        [Action::NetbootConfigure(config), Action::ProcessStop(ProcessId::Target(_)), Action::NetworkEnsure(_)]
            if config.instances.is_empty() && config.waiting.is_empty()
    ));
}

#[test]
fn a_held_process_is_cleaned_up_but_not_started() {
    let mut world = World::default();
    let state = desired(1, vec![instance(1, 1)]);
    world.converge(&state);
    let id = ProcessId::Target(instance_id(1));
    world.observed.processes.get_mut(&id).unwrap().health = Health::Broken;
    world.observed.held.insert(id);
    let wanted = world.wanted(&state);
    let actions = plan(&wanted, &world.observed);
    assert!(
        matches!(actions.as_slice(), [Action::NetbootConfigure(_), Action::ProcessStop(stopped)] if *stopped == id)
    );
    world.apply(actions);
    assert_eq!(plan(&wanted, &world.observed), []);
    world.observed.held.clear();
    assert!(world.converge(&state) > 0);
}

#[test]
fn a_slot_is_not_given_away_while_anything_of_its_owner_is_left() {
    let mut kept = Kept::default();
    let present = BTreeSet::from([ProcessId::Target(instance_id(1))]);
    kept.settle(&desired(1, vec![instance(1, 1)]), &BTreeSet::new());
    kept.settle(&desired(2, vec![instance(2, 2)]), &present);
    assert_eq!(kept.slots, BTreeMap::from([(instance_id(1), 1), (instance_id(2), 2)]));
    kept.settle(&desired(3, vec![instance(3, 3)]), &BTreeSet::new());
    assert_eq!(kept.slots, BTreeMap::from([(instance_id(3), 1)]));
}

#[test]
fn a_boot_that_logged_in_on_another_host_counts_here_and_none_is_forgotten() {
    let mut kept = Kept::default();
    let (id, nothing) = (instance_id(1), BTreeSet::new());
    let at = |floor| DesiredInstance { boot_floor: BootNumber(floor), ..instance(1, 1) };
    kept.settle(&desired(1, vec![at(0)]), &nothing);
    assert!(kept.floors.is_empty());
    for (told, floor) in [(7, 7), (3, 7), (9, 9)] {
        kept.settle(&desired(1, vec![at(told)]), &nothing);
        let wanted = Wanted::from_desired(&desired(1, vec![at(told)]), &kept, "/loaders".into());
        assert_eq!(kept.floors[&id], BootNumber(floor));
        assert_eq!(wanted.gates[&id].floor, BootNumber(floor));
    }
}

#[test]
fn a_target_waits_for_its_broker_and_outlives_it() {
    let mut world = World::default();
    let state = desired(1, vec![in_ceph(1, 1, "QUJD")]);
    world.converge(&state);
    let (broker, target) = (ProcessId::Broker(instance_id(1)), ProcessId::Target(instance_id(1)));
    assert_eq!(world.observed.processes.len(), 3);

    // The broker alone is started again, whether it broke or its key is another.
    world.observed.processes.get_mut(&broker).unwrap().health = Health::Broken;
    let another_key = desired(1, vec![in_ceph(1, 1, "REVG")]);
    for state in [&state, &another_key] {
        let wanted = world.wanted(state);
        let actions = plan(&wanted, &world.observed);
        assert!(
            matches!(actions.as_slice(), [Action::ProcessStop(stopped), Action::BrokerStart(_)] if *stopped == broker),
            "{actions:?}"
        );
        world.apply(actions);
        world.come_to_listen();
        assert_eq!(plan(&wanted, &world.observed), []);
    }

    // Without its broker a target is not started.
    world.observed.processes.get_mut(&target).unwrap().health = Health::Broken;
    world.observed.processes.get_mut(&broker).unwrap().health = Health::Broken;
    world.observed.held.insert(broker);
    let wanted = world.wanted(&another_key);
    let actions = plan(&wanted, &world.observed);
    assert!(!actions.iter().any(|action| matches!(action, Action::TargetStart(..))), "{actions:?}");
    world.apply(actions);
    assert_eq!(plan(&wanted, &world.observed), []);
    world.observed.held.clear();
    world.converge(&another_key);
    assert_eq!(world.observed.processes.len(), 3);

    // The target goes first.
    let wanted = world.wanted(&desired(3, Vec::new()));
    let stops: Vec<ProcessId> = plan(&wanted, &world.observed)
        .into_iter()
        .filter_map(|action| if let Action::ProcessStop(id) = action { Some(id) } else { None })
        .collect();
    assert_eq!(stops, [target, broker]);
}

#[test]
fn what_is_not_done_yet_is_not_begun_again_and_keeps_its_broker() {
    let mut world = World::default();
    let state = desired(1, vec![in_ceph(1, 1, "QUJD")]);
    world.converge(&state);
    let target = ProcessId::Target(instance_id(1));
    // Somebody still waits for the engine: nobody knows how it is.
    let before = world.observed.processes.remove(&target);
    world.observed.pending.insert(target);
    let actions = plan(&world.wanted(&state), &world.observed);
    assert!(!actions.iter().any(|action| action.process() == Some(target)), "{actions:?}");
    // Also when it is wanted no more: what it uses goes after it.
    let nothing = desired(2, Vec::new());
    let stops = |world: &mut World| {
        let wanted = world.wanted(&nothing);
        let actions = plan(&wanted, &world.observed).into_iter();
        actions.filter(|action| matches!(action, Action::ProcessStop(_))).count()
    };
    assert_eq!(stops(&mut world), 0);
    world.observed.pending.clear();
    world.observed.processes.extend(before.map(|before| (target, before)));
    assert_eq!(stops(&mut world), 2);
}

#[test]
fn without_a_way_to_ceph_nothing_is_started() {
    let mut world = World::default();
    let mut lost = in_ceph(1, 1, "QUJD");
    lost.ceph = None;
    world.converge(&desired(1, vec![lost]));
    assert_eq!(world.observed.processes.len(), 1, "only the boot services");
}

/// Which of eight instances exist, on which node, and which processes break before the plan is made.
fn generations() -> impl Strategy<Value = Vec<(BTreeMap<u8, u8>, BTreeSet<u8>)>> {
    let instances = proptest::collection::btree_map(0_u8..8, 0_u8..16, 0..8);
    let broken = proptest::collection::btree_set(0_u8..17, 0..6);
    proptest::collection::vec((instances, broken), 1..8)
}

proptest! {
    #[test]
    fn every_change_converges_and_leaves_nothing_behind(generations in generations()) {
        let mut world = World::default();
        for (number, (instances, broken)) in generations.into_iter().enumerate() {
            for number in broken {
                let id = match number {
                    0..8 => ProcessId::Target(instance_id(number)),
                    8 => ProcessId::Netboot,
                    _ => ProcessId::Broker(instance_id(number - 9)),
                };
                if let Some(process) = world.observed.processes.get_mut(&id) {
                    process.health = Health::Broken;
                }
            }
            // Every other instance is in Ceph; one that moves to another node has another key.
            let of = |number: u8, node: u8| match (number % 2, node % 2) {
                (0, _) => instance(number, node),
                (_, 0) => in_ceph(number, node, "QUJD"),
                _ => in_ceph(number, node, "REVG"),
            };
            let list = instances.iter().map(|(number, node)| of(*number, *node)).collect();
            let state = desired(u64::try_from(number).unwrap() + 1, list);
            let rounds = world.converge(&state);
            prop_assert!(rounds <= 4, "{rounds} rounds");
            let expected: BTreeSet<ProcessId> = instances
                .keys()
                .map(|number| ProcessId::Target(instance_id(*number)))
                .chain([ProcessId::Netboot])
                .chain(instances.keys().filter(|it| *it % 2 == 1).map(|it| ProcessId::Broker(instance_id(*it))))
                .collect();
            prop_assert_eq!(world.observed.processes.keys().copied().collect::<BTreeSet<_>>(), expected);
            prop_assert_eq!(world.observed.netboot.as_ref().unwrap().instances.len(), instances.len());
            prop_assert_eq!(world.observed.network.as_ref().unwrap().targets.len(), instances.len());
        }
        world.converge(&desired(99, Vec::new()));
        prop_assert_eq!(world.observed.processes.len(), 1, "only the boot services stay");
        world.wanted(&desired(99, Vec::new()));
        prop_assert!(world.kept.slots.is_empty() && world.kept.floors.is_empty());
        prop_assert!(world.kept.broker_slots.is_empty());
    }
}
