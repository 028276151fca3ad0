//! Resets and preemptions: what one session asks for ends tasks of others, and is answered when that is over.
//!
//! Invariant: nothing that was begun in the unit before is under way when the answer is given, whosever it is, also of
//! sessions that have ended.

use std::time::Instant;

use bmi_iscsi::{Isid, Outcome, TaskId};

use super::Server;
use super::peer::Peer;

/// A reset or a preemption that is not answered yet. One goes with its session; there are no more of them than a session
/// may have tasks and task management under way.
pub struct Quiescing {
    peer: u64,
    task: TaskId,
    /// The unit, or all of them.
    lun: Option<u16>,
    /// What was begun by then has to be over.
    since: Instant,
}

impl Server {
    /// A session has reset a unit, or all of them.
    pub(super) fn reset(&mut self, by: u64, lun: Option<u16>, task: TaskId) {
        self.peers.iter_mut().filter(|peer| peer.id != by).for_each(|peer| peer.connection.reset(lun));
        self.quiesce(by, lun, task);
    }

    /// A session has preempted those of these initiators.
    pub(super) fn preempt(&mut self, by: u64, lun: u16, whose: &[(String, Isid)], task: TaskId) {
        let theirs = |peer: &&mut Peer| {
            peer.holding.as_ref().is_some_and(|held| {
                whose.iter().any(|(name, isid)| (name, isid) == (&held.initiator, &held.isid))
            })
        };
        self.peers.iter_mut().filter(theirs).for_each(|peer| peer.connection.reset(Some(lun)));
        self.quiesce(by, Some(lun), task);
    }

    fn quiesce(&mut self, peer: u64, lun: Option<u16>, task: TaskId) {
        self.quiescing.push(Quiescing { peer, task, lun, since: Instant::now() });
    }

    /// Lets those be answered that nothing is under way for any more. Whether there were any.
    pub(super) fn end_quiescing(&mut self) -> bool {
        let mut answered = false;
        for one in std::mem::take(&mut self.quiescing) {
            let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == one.peer) else { continue };
            if self.shared.waits_since(one.lun).is_some_and(|oldest| oldest <= one.since) {
                self.quiescing.push(one);
            } else {
                peer.connection.complete(one.task, Outcome::Done);
                answered = true;
            }
        }
        answered
    }
}
