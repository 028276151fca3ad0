//! What rules dropped: of the bridge, inside each process's namespace, and of each broker; one look a second, by turns.
//!
//! The kernel counts from when a table was put in force, and a table that is replaced begins anew: what it had counted
//! before stays in the sum.

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::ProcessDriver;
use super::record::Record;
use super::wiring::namespace_of;
use crate::drivers::firewall;
use crate::drivers::namespace::within;
use crate::plan::names::{ProcessId, bridge_table};
use crate::plan::spec::ProcessSpec;

/// Whose rules: a process's, or the bridge's.
type Whose = Option<ProcessId>;

/// Sums of what was counted.
#[derive(Debug, Default)]
pub(super) struct Drops {
    counts: BTreeMap<Whose, Count>,
    /// Who was looked at last.
    last: Option<Whose>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    seen: u64,
    sum: u64,
}

impl Drops {
    /// Who is to be looked at next, of those that there are.
    fn turn(&mut self, present: &[Whose]) -> Option<Whose> {
        self.counts.retain(|whose, _| present.contains(whose));
        let after = present.iter().find(|whose| self.last.is_none_or(|last| **whose > last));
        self.last = after.or_else(|| present.first()).copied();
        self.last
    }

    fn note(&mut self, whose: Whose, seen: u64) {
        let count = self.counts.entry(whose).or_default();
        // Fewer than before: another table, from nothing.
        let more = if seen < count.seen { seen } else { seen - count.seen };
        *count = Count { seen, sum: count.sum.saturating_add(more) };
    }

    /// What was dropped so far, as far as it was looked at.
    pub(super) fn sums(&self) -> Vec<(Whose, u64)> {
        self.counts.iter().map(|(whose, count)| (*whose, count.sum)).collect()
    }
}

impl ProcessDriver {
    /// Looks at the rules of one, and at the next one's the next time.
    pub(super) async fn drops_look(&self) {
        let mut present: Vec<Whose> = vec![None];
        present.extend(self.directories().into_iter().map(Some));
        present.sort_unstable();
        let Some(whose) = self.drops.borrow_mut().turn(&present) else { return };
        let seen = match whose {
            None => {
                let table = bridge_table(&self.config.bridge);
                spawn_blocking(move || firewall::dropped("bridge", &table, None)).await.ok().flatten()
            }
            Some(id) => {
                let Some(record) = Record::load(&self.directory(id)) else { return };
                if let ProcessSpec::Broker(broker) = &record.spec {
                    let table = firewall::brokers_name(self.config.uid_base);
                    let chain = firewall::broker_chain(self.uid(broker.slot));
                    let look = move || firewall::dropped("inet", &table, Some(&chain));
                    self.in_ceph_network(look).await.ok().flatten()
                } else {
                    let Ok(namespace) = namespace_of(&record.run) else { return };
                    let look = || firewall::dropped("inet", firewall::TABLE, None);
                    within(namespace, look).await.ok().flatten()
                }
            }
        };
        if let Some(seen) = seen {
            self.drops.borrow_mut().note(whose, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_a_table_that_begins_anew_loses_nothing() {
        let target = |number: u8| {
            let id = format!("0190163d-8694-739b-aea5-0000000000{number:02x}");
            Some(ProcessId::Target(id.parse().unwrap()))
        };
        let mut drops = Drops::default();
        let present = [None, Some(ProcessId::Netboot), target(1), target(2)];
        let turns: Vec<_> = (0..6).filter_map(|_| drops.turn(&present)).collect();
        assert_eq!(turns, [&present[..], &present[..2]].concat());
        for seen in [5, 5, 7, 2, 3] {
            drops.note(target(1), seen);
        }
        assert_eq!(drops.sums(), [(target(1), 10)]);
        assert_eq!(drops.turn(&[None]), Some(None), "who is gone is forgotten");
        assert!(drops.sums().is_empty());
    }
}
