//! The Ceph that other tests rely on: images are kept, and what was acknowledged outlives the crash of an OSD.
//!
//! QEMU's own RBD driver is the client: nothing of BMI's takes part.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bmi_tests::{Ceph, Random, output, run};

const BLOCK: usize = 4096;
/// Blocks that are written under load: on each, one after the other, as many as the image has.
const BLOCKS: usize = 4096;
/// When the OSD crashes: after so many of them were acknowledged.
const CRASH: usize = 500;

fn image(ceph: &Ceph, name: &str) -> String {
    format!("rbd:{}/{name}:conf={}", ceph.pool(), ceph.conf().display())
}

/// The byte that a block is full of.
fn pattern(block: usize) -> usize {
    1 + block * 7 % 251
}

/// `qemu-io` with a script; without QEMU's and librbd's caches, so that what it says was written is in Ceph.
fn qemu_io(image: &str, script: &Path) -> Command {
    let mut command = Command::new("stdbuf");
    let script = std::fs::File::open(script).unwrap();
    command.args(["-oL", "qemu-io", "-t", "none", "-f", "raw", image]).stdin(script);
    command
}

fn scripts(directory: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (mut writes, mut reads) = (String::new(), String::new());
    for block in 0..BLOCKS {
        let (at, pattern) = (block * BLOCK, pattern(block));
        writeln!(writes, "write -P {pattern} {at} {BLOCK}").unwrap();
        writeln!(reads, "read -P {pattern} {at} {BLOCK}").unwrap();
    }
    let (write, read) = (directory.join("writes"), directory.join("reads"));
    std::fs::write(&write, writes).unwrap();
    std::fs::write(&read, reads).unwrap();
    (write, read)
}

/// Waits for so many acknowledgements; fewer when it ended.
fn acknowledged(writer: &mut Child, at_most: usize) -> usize {
    let lines = BufReader::new(writer.stdout.as_mut().unwrap()).lines();
    lines.map_while(Result::ok).filter(|line| line.contains("wrote 4096/4096 bytes")).take(at_most).count()
}

#[test]
fn an_image_is_read_back_as_it_was_written_also_after_the_cluster_was_stopped() {
    let ceph = Ceph::shared();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("noise");
    let mut random = Random::of_the_run();
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..16 {
        let mut noise = vec![0; 1 << 20];
        noise
            .chunks_exact_mut(8)
            .for_each(|eight| eight.copy_from_slice(&random.below(u64::MAX).to_le_bytes()));
        file.write_all(&noise).unwrap();
    }
    let path = path.to_str().unwrap();
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", path, &image(ceph, "noise")]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", path, &image(ceph, "noise")]);
    assert!(ceph.rbd(&["info", "bmi/noise"]).contains("size 16 MiB"));
    let script = bmi_tests::repository().join("infra/ceph");
    for verb in ["stop", "start"] {
        run(&script, &[verb, ceph.directory().to_str().unwrap()]);
    }
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", path, &image(ceph, "noise")]);
}

#[test]
fn nothing_acknowledged_is_lost_when_an_osd_crashes_under_load() {
    let ceph = Ceph::start();
    let directory = tempfile::tempdir().unwrap();
    let (writes, reads) = scripts(directory.path());
    ceph.rbd(&["create", "bmi/load", "--size", "16M"]);
    let image = image(&ceph, "load");
    let mut writer = qemu_io(&image, &writes).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(acknowledged(&mut writer, CRASH), CRASH);
    ceph.osd_kill(0);
    ceph.osd_start(0);
    // Nobody told the writer: it waits for the OSD and goes on.
    let more = acknowledged(&mut writer, BLOCKS);
    assert!(writer.wait().unwrap().success());
    assert!(more > 0, "the crash came after the load");
    ceph.osd_kill(0);
    ceph.osd_start(0);
    let read = qemu_io(&image, &reads).output().unwrap();
    let said = String::from_utf8_lossy(&read.stdout);
    assert_eq!(said.matches("read 4096/4096 bytes").count(), BLOCKS, "{said}");
    assert!(!said.contains("failed"), "{said}");
}

#[test]
fn a_paused_osd_and_a_paused_monitor_go_on_where_they_were() {
    let ceph = Ceph::start();
    ceph.rbd(&["create", "bmi/paused", "--size", "16M"]);
    let info = || {
        let conf = ceph.conf();
        let limited = ["3", "rbd", "--conf", conf.to_str().unwrap(), "info", "bmi/paused"];
        output("timeout", &limited).status.success()
    };
    ceph.rbd(&["info", "bmi/paused"]);
    ceph.osd_pause(0);
    assert!(!info(), "an OSD that does not run answers nobody");
    ceph.osd_resume(0);
    ceph.rbd(&["info", "bmi/paused"]);
    ceph.mon_pause();
    assert!(!info(), "without a monitor nobody new is let in");
    ceph.mon_resume();
    ceph.rbd(&["info", "bmi/paused"]);
    assert_eq!(ceph.osd_add(), 1);
    assert!(ceph.ceph(&["osd", "stat"]).contains("2 up"));
}

#[test]
fn a_cluster_leaves_nothing_behind() {
    let ceph = Ceph::start();
    let directory = ceph.directory().to_owned();
    let mine = || {
        let named = |process: &bmi_tests::Process| process.command.contains(directory.to_str().unwrap());
        bmi_tests::processes().into_iter().filter(named).count()
    };
    assert_eq!(mine(), 3, "a monitor, a manager and an OSD");
    let again = run(bmi_tests::repository().join("infra/ceph"), &["start", directory.to_str().unwrap()]);
    assert!(again.contains("runs already"), "{again}");
    drop(ceph);
    assert_eq!(mine(), 0);
    assert!(!directory.exists());
}
