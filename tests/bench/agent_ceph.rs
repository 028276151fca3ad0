//! Containers with volumes in Ceph: request to portal, step by step, and what a target takes with its broker and its holder.
//!
//! The `process` driver is the peer, in turns; each driver has the same brokers, which are sandboxed processes of the agent's host
//! whatever the targets are. Each has a one-machine Ceph of its own, since a pool belongs to one database. Those that are not asked just
//! then have nothing to do.

use bmi_tests::{Ceph, Deployment};

use crate::agent::{
    AT_ONCE, DRIVERS, Effort, PROJECT, REPEATS, furnished, instances, memory, parent, running, targets,
};
use crate::provision::{Order, Round, round};
use crate::{Figure, median};

/// What of a process is its own when what it shares is divided among those that share it, in MiB.
fn proportional(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// A median of each driver, beside the first's.
fn beside(what: &str, unit: &'static str, values: [f64; DRIVERS.len()]) -> Vec<Figure> {
    let [process, engines @ ..] = values;
    let figure = |((engine, _), ours): (&(&str, _), f64)| Figure {
        what: format!("ceph: {what}, {engine}"),
        ours,
        peer: Some(("process", process)),
        unit,
    };
    DRIVERS[1..].iter().zip(engines).map(figure).collect()
}

/// Request to portal, in all and until the last had done each step before; and deprovision.
fn provision(deployments: &[Deployment; DRIVERS.len()], most: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (count, repeats) in [1, most].into_iter().zip(REPEATS) {
        let mut rounds: [Vec<Round>; DRIVERS.len()] = Default::default();
        for _ in 0..repeats {
            for (deployment, rounds) in deployments.iter().zip(&mut rounds) {
                rounds.push(round(deployment, &Order::of_lab("small", count)));
            }
        }
        let of =
            |value: &dyn Fn(&Round) -> f64| rounds.each_ref().map(|rounds| median(rounds.iter().map(value)));
        let mut add = |what: String, values| figures.extend(beside(&what, "s", values));
        add(format!("request to portal, {count} at once"), of(&|round| round.portal));
        for (at, (step, _)) in rounds[0][0].steps.iter().enumerate() {
            add(format!("{step} done by all, {count} at once"), of(&|round| round.steps[at].1));
        }
        add(format!("deprovision, {count} at once"), of(&|round| round.removal));
    }
    figures
}

/// What one of several instances takes that nobody has logged in to: medians.
fn idle(deployments: &[Deployment; DRIVERS.len()], most: usize) -> Vec<Figure> {
    let taken = deployments.each_ref().map(|deployment| {
        let _ = Order::of_lab("small", most).place(&deployment.api);
        assert_eq!(instances(&deployment.api).len(), most);
        let (targets, brokers) = (targets(deployment), running(deployment, "bmi-broker"));
        assert_eq!((targets.len(), brokers.len()), (most, most), "a target and a broker for each");
        let holders: Vec<u32> = targets.iter().map(|pid| parent(*pid)).collect();
        let of = |pids: &[u32]| {
            let each = |kind: usize| median(pids.iter().map(|pid| memory(*pid)[kind]));
            [each(0), each(1), median(pids.iter().map(|pid| proportional(*pid)))]
        };
        let [target, broker, holder] = [of(&targets), of(&brokers), of(&holders)];
        for number in 1..=most {
            let _ = deployment.api.instance_remove(PROJECT, &format!("node-{number}"));
        }
        [target, broker, holder]
    });
    let mut figures = Vec::new();
    for (kind, name) in ["resident", "anonymous", "proportional"].into_iter().enumerate() {
        let of = |part: usize| taken.map(|parts| parts[part][kind]);
        let add = |figures: &mut Vec<Figure>, what: &str, values| {
            figures.extend(beside(&format!("memory, {most} instances: {what}, {name}"), "MiB", values));
        };
        add(&mut figures, "a target", of(0));
        add(&mut figures, "its broker", of(1));
        add(&mut figures, "both", taken.map(|[target, broker, _]| target[kind] + broker[kind]));
        // Of the `process` driver one helper holds all.
        add(&mut figures, "what holds the target", of(2));
    }
    figures
}

pub(crate) fn run(effort: Effort) -> Vec<Figure> {
    let most = AT_ONCE.min(effort.nodes);
    let clusters = DRIVERS.map(|_| Ceph::start());
    let mut at = clusters.iter();
    let deployments =
        DRIVERS.map(|(_, kind)| furnished(Deployment::start_in_ceph(at.next().unwrap()), kind, most));
    let mut figures = provision(&deployments, most);
    figures.extend(idle(&deployments, most));
    figures
}
