use std::fs;

use bmi_agent_api::event::TargetEvent;

use crate::target::{Target, must, run};

const SIZE: usize = 48 * 1024 * 1024 + 512;

fn random(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut data = vec![0; SIZE];
    for chunk in data.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    // A hole, which is written as zeros and not as data.
    data[8 * 1024 * 1024..16 * 1024 * 1024].fill(0);
    data
}

fn round_trip(more: &[&str], url: impl Fn(&Target) -> String) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (source, disk, back) = (path("source"), path("disk"), path("back"));
    fs::write(&source, random(42)).unwrap();
    // Not empty before: what the target does not write must show.
    fs::write(&disk, vec![0xa5; SIZE]).unwrap();
    let target = Target::with_file(&disk, more);
    let (url, source_text) = (url(&target), source.display().to_string());
    must("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &source_text, &url]);
    must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &source_text, &url]);
    must("qemu-img", &["convert", "-f", "raw", "-O", "raw", &url, &back.display().to_string()]);
    assert!(fs::read(&back).unwrap() == fs::read(&source).unwrap());

    let events = target.stop();
    let count = |wanted: fn(&TargetEvent) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, TargetEvent::FirstWrite)), 1);
    assert!(count(|event| matches!(event, TargetEvent::FirstRead)) >= 2);
    let last = events.iter().rev().find_map(|event| match event {
        TargetEvent::Traffic { read_bytes, written_bytes } => Some((*read_bytes, *written_bytes)),
        _ => None,
    });
    let (read, written) = last.expect("a traffic event");
    assert!(read >= 2 * 32 * 1024 * 1024 && written >= 32 * 1024 * 1024, "{read} {written}");
    assert!(fs::read(&disk).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn an_image_goes_in_and_comes_out_unchanged() {
    round_trip(&[], |target| target.url(0));
}

#[test]
fn an_image_goes_in_and_comes_out_unchanged_with_chap() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "sixteen letters!\n").unwrap();
    round_trip(&["--chap-user", "node", "--chap-secret-file", &secret.display().to_string()], |target| {
        target.url_as("node", "sixteen letters!")
    });
}

#[test]
fn a_read_only_unit_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, source) = (directory.path().join("disk"), directory.path().join("source"));
    fs::write(&disk, vec![7; 1024 * 1024]).unwrap();
    fs::write(&source, vec![8; 1024 * 1024]).unwrap();
    let lun = format!("1=file:{},ro", disk.display());
    let target = Target::start(&["--lun", "0=memory:1M", "--lun", &lun]);
    must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &disk.display().to_string(), &target.url(1)]);
    let source = source.display().to_string();
    assert!(
        !run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &source, &target.url(1)])
            .status
            .success()
    );
    assert!(fs::read(&disk).unwrap().iter().all(|byte| *byte == 7));
}

#[test]
fn past_the_page_cache_a_random_image_goes_in_and_comes_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut image = random(43);
    image.truncate(48 * 1024 * 1024);
    fs::write(path("image"), &image).unwrap();
    fs::write(path("disk"), vec![0xa5; image.len()]).unwrap();
    let target = Target::start(&["--lun", &format!("0=file:{},direct", path("disk"))]);
    must("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &path("image"), &target.url(0)]);
    must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &path("image"), &target.url(0)]);
    assert!(fs::read(path("disk")).unwrap() == image);
    for suite in ["ALL.Unmap.Simple", "ALL.WriteSame16.UnmapUnaligned", "ALL.CompareAndWrite.Simple"] {
        let output = run("iscsi-test-cu", &["-d", "-n", "-t", suite, &target.url(0)]);
        assert!(output.status.success(), "{suite}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
