//! What the end of a whole host does to a deployment.

use crate::deployment::{Deployment, START, UIDS};
use crate::host::{mounts_below, output, processes, run, until};

impl Deployment {
    /// What a restart of the host does to a deployment: every process of it dies, what it mounted is not mounted any
    /// more, its bridge and its rules are gone. Its data directory is left.
    pub fn host_dies(&mut self) {
        self.control_plane_kill();
        self.agent_kill();
        let uids = self.uid_base..self.uid_base + UIDS;
        for process in processes().into_iter().filter(|one| uids.contains(&one.uid)) {
            output("kill", &["-9", &process.pid.to_string()]);
        }
        until("every process has died", START, || {
            let left = processes().into_iter().any(|one| uids.contains(&one.uid));
            (!left).then_some(())
        });
        self.inside("ip", &["link", "del", "bmi0"]);
        self.inside("nft", &["flush", "ruleset"]);
        for mount in mounts_below(&self.data) {
            run("umount", &[&mount]);
        }
    }
}
