//! The README's first command: a flat deployment, a node that boots, and nothing left.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what the quickstart measured"
)]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bmi_tests::{image_place, mounts_below, processes, repository, run, sha256, until};
use rustix::process::{Pid, Signal, kill_process_group};

/// Packages, build and one emulated boot on a machine that does other things.
const ONCE: Duration = Duration::from_secs(900);
/// From the start to the running control plane; the build may wait for another one.
const UP: Duration = Duration::from_secs(600);

/// A data directory with the golden image in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/var/lib/bmi-tests/f1-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("images")).unwrap();
        image_place(&path.join("images/debian-12.raw"));
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Starts the quickstart in a process group of its own, as a shell does.
    fn quickstart(&self, arguments: &[&str], out: &str) -> Child {
        let out = File::create(self.0.join(out)).unwrap();
        let mut command = Command::new(repository().join("infra/quickstart"));
        command.args(["--data-dir", self.text()]).args(arguments).process_group(0).stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap()
    }

    fn said(&self, out: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.0.join(out)).unwrap()).into_owned()
    }

    fn namespace(&self) -> String {
        let sum = Command::new("sh")
            .args(["-c", "printf %s \"$0\" | sha256sum | cut -c 1-8", self.text()])
            .output();
        format!("bmi-{}", String::from_utf8(sum.unwrap().stdout).unwrap().trim())
    }

    fn has_namespace(&self) -> bool {
        run("ip", &["netns", "list"]).split_whitespace().any(|name| name == self.namespace())
    }

    fn own_processes(&self) -> Vec<String> {
        processes()
            .into_iter()
            .map(|one| one.command)
            .filter(|command| command.contains(self.text()))
            .collect()
    }

    fn assert_nothing_is_left(&self) {
        assert!(!self.has_namespace(), "the namespace is left");
        assert_eq!(mounts_below(&self.0), Vec::<String>::new());
        assert_eq!(self.own_processes(), Vec::<String>::new());
        for kept in ["control-plane", "agent", "ceph", "run", "control-plane.toml", "agent.toml"] {
            assert!(!self.0.join(kept).exists(), "{kept} is left");
        }
        assert!(Path::new(&self.0.join("images/debian-12.raw")).exists(), "the golden image is kept");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if mounts_below(&self.0).is_empty() && self.own_processes().is_empty() {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }
}

fn wait(child: &mut Child, patience: Duration) -> ExitStatus {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > give_up {
            interrupt(child);
        }
        assert!(Instant::now() < give_up + Duration::from_secs(60), "the quickstart does not end");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn interrupt(child: &Child) {
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process_group(group, Signal::INT).ok();
}

#[test]
fn f1_quickstart_once() {
    boots_once("once", &["--once"]);
}

#[test]
fn f1_quickstart_once_from_ceph() {
    boots_once("ceph", &["--once", "--store", "ceph"]);
}

/// Boots a node in a place of its own, and leaves nothing there.
fn boots_once(name: &str, arguments: &[&str]) {
    let place = Place::new(name);
    let golden = place.0.join("images/debian-12.raw");
    let before = sha256(&golden);
    let begun = Instant::now();
    let mut child = place.quickstart(arguments, "out");
    let status = wait(&mut child, ONCE);
    let said = place.said("out");
    println!("{said}\nquickstart --once: {:.0} s", begun.elapsed().as_secs_f64());
    assert_eq!(status.code(), Some(0), "{said}");
    for wanted in ["node-1 login:", "boot script", "power on to login", "ready", "done"] {
        assert!(said.contains(wanted), "it shows `{wanted}`:\n{said}");
    }
    place.assert_nothing_is_left();
    assert_eq!(sha256(&golden), before, "the golden image did not change");
}

#[test]
fn f1_a_second_quickstart_is_refused_and_an_interrupted_one_cleans_up() {
    let place = Place::new("twice");
    let mut first = place.quickstart(&["--once"], "first");
    until("the first quickstart provisions", UP, || {
        assert!(first.try_wait().unwrap().is_none(), "{}", place.said("first"));
        place.said("first").contains("switching node-1 on").then_some(())
    });
    assert!(place.has_namespace() && !mounts_below(&place.0).is_empty());

    let mut second = place.quickstart(&["--once"], "second");
    let status = wait(&mut second, Duration::from_secs(60));
    let said = place.said("second");
    assert!(!status.success(), "a second one must not run: {said}");
    assert!(said.contains("is running in"), "it says so: {said}");
    assert!(first.try_wait().unwrap().is_none() && place.has_namespace(), "the first one goes on");

    // Ctrl-C: everything in the foreground gets it.
    interrupt(&first);
    let status = wait(&mut first, Duration::from_secs(60));
    assert!(!status.success(), "an interrupted one did not do its work: {status}");
    place.assert_nothing_is_left();
}

/// The commands that the quickstart prints at its end, as a person would paste them.
fn printed_commands(said: &str) -> Vec<String> {
    let (_, rest) = said.split_once("What to try next:").unwrap();
    let lines = rest.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.split(" #").next().unwrap().trim().replace("tail -f", "tail -n 1")).collect()
}

#[test]
fn f1_three_nodes_stay_up_what_is_printed_is_true_and_stop_leaves_nothing() {
    let place = Place::new("three");
    let begun = Instant::now();
    let mut child = place.quickstart(&["--nodes", "3"], "out");
    let status = wait(&mut child, ONCE);
    let said = place.said("out");
    println!("{said}\nquickstart --nodes 3: {:.0} s", begun.elapsed().as_secs_f64());
    assert_eq!(status.code(), Some(0), "{said}");
    for node in ["node-1", "node-2", "node-3"] {
        assert!(said.contains(&format!("{node} is at its login prompt")), "{node}:\n{said}");
    }
    assert!(place.has_namespace(), "it stays up");

    let commands = printed_commands(&said);
    assert!(
        commands[0].starts_with("export ") && commands.last().unwrap().contains("--stop"),
        "{commands:?}"
    );
    let mut tried = 0;
    for command in &commands[1..] {
        let script = format!("{}\n{command}", commands[0]);
        let ran = Command::new("bash").args(["-c", &script]).current_dir(repository()).output().unwrap();
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success() && !ran.stdout.is_empty(), "`{command}`: {told}");
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        if command.contains("instance list") {
            assert_eq!(out.matches("running").count(), 3, "{out}");
        }
        tried += 1;
    }
    assert!(tried >= 6, "{commands:?}");
    place.assert_nothing_is_left();
}
