//! Making sure that a user id has no process left before it is given to another.
//!
//! A process id namespace already ends with its first process. This is for what an earlier version of the agent, which
//! made none, may have left, and so that `Done` means what it says.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often it is looked, and how long nothing is done in between: together as long as a kill may take.
const ROUNDS: usize = 100;
const BETWEEN: Duration = Duration::from_millis(50);

/// Kills every process of a user until there is none, and says whether there is none.
pub async fn sweep(uid: u32) -> bool {
    for _ in 0..ROUNDS {
        let left = processes(uid);
        if left.is_empty() {
            return true;
        }
        for pid in left {
            let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            // Looked at again after the handle is open, so it is the right one.
            if has_user(pid, uid) {
                tracing::warn!(process.id = pid, user.id = uid, "a process was left, and is killed");
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
    processes(uid).is_empty()
}

fn processes(uid: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| has_user(*pid, uid)).collect()
}

/// Whether a process has the user as any of its four user ids. One that ended and was not reaped does nothing any more.
/// One in another user namespace belongs to somebody whose subordinate user ids overlap ours, and is not ours to kill.
fn has_user(pid: i32, uid: u32) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).ok();
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status_has_user(&status, uid))
        && namespace(&pid.to_string()) == namespace("self")
}

fn status_has_user(status: &str, uid: u32) -> bool {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let ended = field("State:").is_some_and(|state| state.starts_with(['Z', 'X']));
    let uid = uid.to_string();
    !ended && field("Uid:").is_some_and(|ids| ids.split_whitespace().any(|id| id == uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_any_id_and_a_zombie_is_nobody() {
        let status =
            |state: &str| format!("Name:\tx\nState:\t{state}\nUid:\t0\t0\t310001\t0\nGid:\t7\t7\t7\t7\n");
        assert!(status_has_user(&status("S (sleeping)"), 310_001));
        assert!(!status_has_user(&status("S (sleeping)"), 31_000));
        assert!(!status_has_user(&status("Z (zombie)"), 310_001));
        assert!(!status_has_user(&status("S (sleeping)"), 7));
    }

    #[tokio::test]
    async fn what_is_left_of_a_user_is_killed() {
        use std::os::unix::process::CommandExt;
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test needs root: it starts a process as another user"
        );
        let uid = 399_999;
        let mut left = std::process::Command::new("sleep").arg("60").uid(uid).spawn().unwrap();
        assert!(sweep(uid).await);
        assert!(!left.wait().unwrap().success());
    }
}
