//! `bmi-target` beside tgt 1.0 on the same file: the same initiator asks both, in turns.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bmi_tests::{output, run};

use crate::initiator::{Digests, Initiator, Kind, Load, Waiting, stamp_all};
use crate::tgt::{PORTAL, Tgt};
use crate::{Figure, median};

/// Bytes of each disk.
const DISK: u64 = 512 * 1024 * 1024;
/// The most targets at once.
const TARGETS: usize = 4;
pub(crate) const NAME: &str = "iqn.2026-11.ours";
/// Ticks of /proc a second: USER_HZ is 100 on every Linux that runs here (sysconf(3)).
const TICKS: f64 = 100.0;

/// Seconds of a run, and runs of each.
pub(crate) const EFFORT: u32 = 5;

/// How long, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) seconds: u64,
    pub(crate) repetitions: u32,
}

const KIB: usize = 1024;

/// What is asked, in words and in numbers.
const LOADS: [(&str, Load); 7] = [
    ("4 KiB random read, QD1", Load { kind: Kind::Read, size: 4 * KIB, depth: 1 }),
    ("4 KiB random read, QD32", Load { kind: Kind::Read, size: 4 * KIB, depth: 32 }),
    ("64 KiB read, QD32", Load { kind: Kind::Read, size: 64 * KIB, depth: 32 }),
    ("1 MiB read, QD8", Load { kind: Kind::Read, size: 1024 * KIB, depth: 8 }),
    ("4 KiB random write, QD1", Load { kind: Kind::Write, size: 4 * KIB, depth: 1 }),
    ("4 KiB random write, QD32", Load { kind: Kind::Write, size: 4 * KIB, depth: 32 }),
    ("256 KiB write, QD8", Load { kind: Kind::Write, size: 256 * KIB, depth: 8 }),
];

fn load(what: &str) -> Load {
    LOADS.iter().find(|(name, _)| *name == what).unwrap().1
}

/// A running `bmi-target`.
pub(crate) struct Ours {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Ours {
    pub(crate) fn start(lun: &str) -> Self {
        let program = std::env::current_exe().unwrap().with_file_name("bmi-target");
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--target", NAME, "--lun", lun, "--sessions", "one"])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: first["address"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where a target is, and the process that serves it.
struct Place {
    address: String,
    name: String,
    lun: u8,
    pid: u32,
}

impl Place {
    fn log_in(&self, digests: Digests, seed: u32) -> Initiator {
        Initiator::log_in(&self.address, &self.name, self.lun, digests, seed)
    }
}

/// What one run gave.
#[derive(Debug, Clone, Copy)]
struct Sample {
    per_second: f64,
    cpu_per_command: f64,
    threads: f64,
    memory: f64,
}

/// Processor time of a process so far, in seconds (proc(5): utime and stime).
pub(crate) fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / TICKS
}

/// A number of /proc/PID/status.
pub(crate) fn status(pid: u32, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

/// One run of a load on each place at once.
fn sample(places: &[&Place], load: Load, digests: Digests, seconds: u64, seed: u32) -> Sample {
    let mut pids: Vec<u32> = places.iter().map(|place| place.pid).collect();
    pids.dedup();
    let before: f64 = pids.iter().map(|pid| cpu(*pid)).sum();
    let time = Duration::from_secs(seconds);
    let waiting = if places.len() == 1 { Waiting::Looking } else { Waiting::Sleeping };
    let done: u64 = std::thread::scope(|scope| {
        let runs: Vec<_> = places
            .iter()
            .zip(0_u32..)
            .map(|(place, at)| {
                scope.spawn(move || place.log_in(digests, seed * 16 + at + 1).run(load, waiting, time))
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    let used = pids.iter().map(|pid| cpu(*pid)).sum::<f64>() - before;
    Sample {
        per_second: done as f64 / time.as_secs_f64(),
        cpu_per_command: used / done as f64 * 1e6,
        threads: pids.iter().map(|pid| status(*pid, "Threads")).sum(),
        memory: pids.iter().map(|pid| status(*pid, "VmRSS")).sum::<f64>() / 1024.0,
    }
}

fn middle(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(of))
}

/// A disk of stamped blocks.
fn disk(path: &Path) {
    let mut file = File::create(path).unwrap();
    let piece = 1 << 20;
    for at in (0..DISK).step_by(piece) {
        let mut data = vec![0x5a; piece];
        stamp_all(&mut data, at / 512);
        file.write_all(&data).unwrap();
    }
    file.sync_all().unwrap();
}

/// Both, on the same files.
struct Both {
    tgt: Tgt,
    theirs: Vec<Place>,
    _ours: Vec<Ours>,
    ours: Vec<Place>,
}

impl Both {
    fn start(folder: &Path) -> Self {
        let tgt = Tgt::start();
        let mut both = Self { tgt, theirs: Vec::new(), _ours: Vec::new(), ours: Vec::new() };
        for number in 1..=TARGETS {
            let file = folder.join(format!("disk-{number}"));
            disk(&file);
            let name = both.tgt.expose(number, &file);
            both.theirs.push(Place { address: PORTAL.into(), name, lun: 1, pid: both.tgt.pid() });
            let ours = Ours::start(&format!("0=file:{}", file.display()));
            let address = ours.address.clone();
            both.ours.push(Place { address, name: NAME.into(), lun: 0, pid: ours.child.id() });
            both._ours.push(ours);
        }
        both
    }

    /// Theirs and ours in turns, on the first `targets` targets.
    fn compare(&self, effort: Effort, targets: usize, load: Load, digests: Digests) -> [Vec<Sample>; 2] {
        let mut samples = [Vec::new(), Vec::new()];
        for repetition in 0..effort.repetitions {
            for (places, samples) in [&self.theirs, &self.ours].into_iter().zip(&mut samples) {
                let places: Vec<&Place> = places.iter().take(targets).collect();
                samples.push(sample(&places, load, digests, effort.seconds, repetition));
            }
        }
        samples
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        (1..=TARGETS).for_each(|number| self.tgt.withdraw(number));
    }
}

fn pair(what: String, unit: &'static str, samples: &[Vec<Sample>; 2], of: fn(&Sample) -> f64) -> Figure {
    let [theirs, ours] = samples;
    Figure { what, ours: middle(ours, of), peer: Some(("tgt", middle(theirs, of))), unit }
}

/// What is measured; each name may be asked for alone.
pub(crate) fn run_all(effort: Effort, only: Option<&str>) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |figure: Figure| {
        figure.print();
        figures.push(figure);
    };
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    for medium in ["tmpfs", "disk"] {
        let folder = if medium == "tmpfs" { Scratch::new("/dev/shm") } else { Scratch::on_xfs("/var/tmp") };
        let both = Both::start(&folder.place());
        if medium == "tmpfs" && wanted("idle") {
            idle(&both).into_iter().for_each(&mut add);
        }
        for (what, load) in LOADS {
            let name = format!("{what}, {medium}");
            if wanted(&name) {
                let samples = both.compare(effort, 1, load, Digests::None);
                add(pair(name.clone(), "/s", &samples, |sample| sample.per_second));
                add(pair(format!("{name}: processor"), "µs", &samples, |sample| sample.cpu_per_command));
                if medium == "tmpfs" && what.contains("QD32") {
                    add(pair(format!("{name}: memory"), "MiB", &samples, |sample| sample.memory));
                    add(pair(format!("{name}: threads"), "", &samples, |sample| sample.threads));
                }
            }
        }
        for targets in [2, TARGETS] {
            for what in ["4 KiB random read, QD32", "64 KiB read, QD32", "4 KiB random write, QD32"] {
                let name = format!("{what}, {targets} sessions on {targets} targets, {medium}");
                if wanted(&name) {
                    let samples = both.compare(effort, targets, load(what), Digests::None);
                    add(pair(name, "/s", &samples, |sample| sample.per_second));
                }
            }
        }
        digests(&both, effort, medium, &wanted).into_iter().for_each(&mut add);
        if medium == "tmpfs" && wanted("witness") {
            witnesses(&both, effort).into_iter().for_each(&mut add);
        }
    }
    if wanted("ceiling") {
        ceiling(effort).into_iter().for_each(&mut add);
    }
    figures
}

fn idle(both: &Both) -> Vec<Figure> {
    let (ours, theirs) = (both.ours[0].pid, both.tgt.pid());
    let figure = |what: &str, unit, field: &str, scale: f64| Figure {
        what: what.to_owned(),
        ours: status(ours, field) / scale,
        peer: Some(("tgt", status(theirs, field) / scale)),
        unit,
    };
    vec![
        figure("idle: memory (tgt: one process, 4 targets)", "MiB", "VmRSS", 1024.0),
        figure("idle: threads (tgt: one process, 4 targets)", "", "Threads", 1.0),
    ]
}

/// Our own speed with digests beside without, in turns.
fn digests(both: &Both, effort: Effort, medium: &str, wanted: &impl Fn(&str) -> bool) -> Vec<Figure> {
    let mut figures = Vec::new();
    for what in
        ["4 KiB random read, QD32", "64 KiB read, QD32", "4 KiB random write, QD32", "256 KiB write, QD8"]
    {
        let name = format!("{what}, CRC32C of headers and data, {medium}");
        if wanted(&name) {
            let (mut with, mut without) = (Vec::new(), Vec::new());
            for repetition in 0..effort.repetitions {
                let places = [&both.ours[0]];
                without.push(sample(&places, load(what), Digests::None, effort.seconds, repetition));
                with.push(sample(&places, load(what), Digests::Both, effort.seconds, repetition));
            }
            let of = |samples: &[Sample]| middle(samples, |sample| sample.per_second);
            let peer = Some(("without", of(&without)));
            figures.push(Figure { what: name, ours: of(&with), peer, unit: "/s" });
        }
    }
    figures
}

/// The same loads without a file: what this code could do at most.
fn ceiling(effort: Effort) -> Vec<Figure> {
    let ours = Ours::start(&format!("0=memory:{DISK}"));
    let place = Place { address: ours.address.clone(), name: NAME.into(), lun: 0, pid: ours.child.id() };
    // Stamps first: sequential enough, since every block is written in one go of large writes.
    place.log_in(Digests::None, 1).fill_disk();
    LOADS
        .iter()
        .map(|(what, load)| {
            let samples: Vec<Sample> = (0..effort.repetitions)
                .map(|seed| sample(&[&place], *load, Digests::None, effort.seconds, seed))
                .collect();
            Figure {
                what: format!("{what}, ceiling: memory back end"),
                ours: middle(&samples, |sample| sample.per_second),
                peer: None,
                unit: "/s",
            }
        })
        .collect()
}

/// Other people's initiators, beside ours.
fn witnesses(both: &Both, effort: Effort) -> Vec<Figure> {
    let url = |place: &Place| format!("iscsi://{}/{}/{}", place.address, place.name, place.lun);
    let (ours, theirs) = (url(&both.ours[0]), url(&both.theirs[0]));
    let mut figures = Vec::new();
    for (what, blocks, depth) in
        [("4 KiB, QD1", "8", "1"), ("4 KiB, QD32", "8", "32"), ("64 KiB, QD32", "128", "32")]
    {
        let perf = |url: &str| {
            let seconds = effort.seconds.to_string();
            let said = run("iscsi-perf", &["-t", &seconds, "-m", depth, "-b", blocks, "-r", url]);
            // "iops average 12345 (48 MB/s)", told anew each second.
            let at = said.rfind("iops average").map(|at| &said[at + 12..]);
            at.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        figures.push(turns(format!("witness iscsi-perf: {what} random read"), effort, &perf, &ours, &theirs));
    }
    for (what, write, size, depth) in [
        ("4 KiB reads, QD32", false, "4096", "32"),
        ("4 KiB writes, QD32", true, "4096", "32"),
        ("256 KiB writes, QD8", true, "262144", "8"),
    ] {
        let bench = |url: &str| {
            let count = if size == "4096" { "40000" } else { "2000" };
            let mut arguments =
                vec!["bench", "-f", "raw", "-t", "none", "-c", count, "-d", depth, "-s", size];
            if write {
                arguments.push("-w");
            }
            arguments.push(url);
            let said = output("qemu-img", &arguments);
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let took = said
                .split("completed in ")
                .nth(1)
                .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
            count.parse::<f64>().unwrap() / took.unwrap_or(f64::NAN)
        };
        figures.push(turns(format!("witness qemu-img bench: {what}"), effort, &bench, &ours, &theirs));
    }
    figures
}

fn turns(what: String, effort: Effort, measure: &impl Fn(&str) -> f64, ours: &str, theirs: &str) -> Figure {
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for _ in 0..effort.repetitions {
        of_theirs.push(measure(theirs));
        of_ours.push(measure(ours));
    }
    Figure { what, ours: median(of_ours), peer: Some(("tgt", median(of_theirs))), unit: "/s" }
}

/// A directory that goes with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &str) -> Self {
        let path = Path::new(parent).join(format!("bmi-bench-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// On the file system of the local store, whatever the machine's disk has.
    fn on_xfs(parent: &str) -> Self {
        let scratch = Self::new(parent);
        let image = scratch.0.join("image");
        File::create(&image).unwrap().set_len(DISK * (TARGETS as u64 + 2)).unwrap();
        let (image, place) = (image.display().to_string(), scratch.0.join("mounted"));
        fs::create_dir(&place).unwrap();
        run("mkfs.xfs", &["-q", &image]);
        run("mount", &["-o", "loop", &image, &place.display().to_string()]);
        scratch
    }

    /// Where to put files.
    fn place(&self) -> PathBuf {
        let mounted = self.0.join("mounted");
        if mounted.exists() { mounted } else { self.0.clone() }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounted = self.0.join("mounted");
        if mounted.exists() && !output("umount", &[&mounted.display().to_string()]).status.success() {
            eprintln!("{} is left: it cannot be unmounted", mounted.display());
            return;
        }
        fs::remove_dir_all(&self.0).ok();
    }
}
