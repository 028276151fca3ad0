//! Boots that do not come about: begun and never logged in, or begun again and again.
//!
//! All that is known of a boot are its stages, and they may come late or not at all. So an instance is judged by what
//! its timeline says, whenever a stage arrives and every few seconds: [`judge`] is pure, and what was told is a stage
//! itself, so nothing is told twice, also after a restart.
//!
//! Invariant: one `boot.never` between two logins, and one `boot.loop` between two boots that came to run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bmi_api::{BootCondition, Instance, InstanceState};
use bmi_db::SystemTx;
use bmi_db::instance::Record;
use bmi_types::{InstanceId, Timestamp};
use serde::Deserialize;

use super::App;
use crate::error::AppError;

/// How often instances are looked at that may have waited too long.
const LOOK: Duration = Duration::from_secs(5);

/// When a boot counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootLimits {
    /// Seconds from a node's first boot information to its login. Firmware and iPXE need less than a minute.
    pub never_after_seconds: u64,
    /// So many boots…
    pub loop_boots: usize,
    /// … in so many seconds are a loop…
    pub loop_within_seconds: u64,
    /// … when none of them wrote to its disk and then ran for so many seconds.
    pub steady_after_seconds: u64,
}

impl Default for BootLimits {
    fn default() -> Self {
        Self { never_after_seconds: 300, loop_boots: 4, loop_within_seconds: 1800, steady_after_seconds: 180 }
    }
}

/// What a timeline says of an instance's boots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What was not told yet.
    pub new: Vec<BootCondition>,
    /// What is wrong now.
    pub condition: Option<BootCondition>,
    /// How many boots are in the loop.
    pub boots: usize,
}

/// A stage of a timeline.
pub type Seen = (Timestamp, String, BTreeMap<String, String>);

/// What has happened so far.
#[derive(Default)]
struct Story {
    /// Since when the node has been trying to log in, and whether that was told.
    trying: Option<Timestamp>,
    never_told: bool,
    /// The newest boot that has logged in. Its script may come afterwards: another process tells of that.
    logged_in: Option<String>,
    /// Boots since one came to run, with their numbers, and whether a loop was told.
    boots: Vec<(Timestamp, Option<String>)>,
    loop_told: bool,
    /// Since when the newest boot has written to its disk.
    wrote: Option<Timestamp>,
}

impl Story {
    /// Forgets boots that are over: the newest came to run, or the others are long ago.
    fn settle(&mut self, now: Timestamp, limits: &BootLimits) {
        let lasted = |since: Timestamp, seconds| now.since(since) >= Duration::from_secs(seconds);
        if self.wrote.is_some_and(|wrote| lasted(wrote, limits.steady_after_seconds)) {
            self.boots.clear();
        }
        self.boots.retain(|(at, _)| !lasted(*at, limits.loop_within_seconds));
        self.loop_told &= !self.boots.is_empty();
    }

    fn hear(&mut self, (at, stage, detail): &Seen, limits: &BootLimits) {
        match stage.as_str() {
            // An operating system asks for its address too; only who boots is told a file.
            "dhcp" if detail.contains_key("file") => drop(self.trying.get_or_insert(*at)),
            "script" => {
                let boot = detail.get("boot").cloned();
                if boot.is_none() || boot != self.logged_in {
                    self.trying.get_or_insert(*at);
                }
                // Firmware repeats requests whose answer it lost.
                if self.boots.last().is_some_and(|(_, last)| boot.is_some() && *last == boot) {
                    return;
                }
                self.settle(*at, limits);
                self.boots.push((*at, boot));
                self.wrote = None;
            }
            "login" => {
                self.trying = None;
                self.never_told = false;
                self.logged_in = detail.get("boot").cloned();
            }
            "write.first" => drop(self.wrote.get_or_insert(*at)),
            // Of a boot that had logged in, told while that was not known yet, it says nothing of the next one.
            "boot.never" => self.never_told = self.trying.is_some(),
            "boot.loop" => self.loop_told = true,
            _ => {}
        }
    }
}

/// Judges a timeline, oldest first, at an instant.
#[must_use]
pub fn judge(stages: &[Seen], now: Timestamp, limits: &BootLimits) -> Verdict {
    let mut story = Story::default();
    stages.iter().for_each(|stage| story.hear(stage, limits));
    story.settle(now, limits);
    let late = Duration::from_secs(limits.never_after_seconds);
    let never = story.trying.is_some_and(|since| now.since(since) >= late);
    let looping = story.boots.len() >= limits.loop_boots;
    let mut new = Vec::new();
    if never && !story.never_told {
        new.push(BootCondition::Never);
    }
    if looping && !story.loop_told {
        new.push(BootCondition::Loop);
    }
    let condition = match (looping, never) {
        (true, _) => Some(BootCondition::Loop),
        (false, true) => Some(BootCondition::Never),
        (false, false) => None,
    };
    Verdict { new, condition, boots: story.boots.len() }
}

/// Looks at one instance; nothing when there is nothing to write.
fn news(
    tx: &mut SystemTx<'_>,
    id: InstanceId,
    now: Timestamp,
    limits: &BootLimits,
) -> Result<Option<(Instance, Verdict)>, AppError> {
    let Some(Record { instance, .. }) = bmi_db::instance::by_id(tx, id)? else { return Ok(None) };
    if !matches!(instance.state, InstanceState::Ready | InstanceState::Running) {
        return Ok(None);
    }
    let verdict = judge(&bmi_db::stage::list(tx, id)?, now, limits);
    let nothing = verdict.new.is_empty() && verdict.condition == instance.condition;
    Ok((!nothing).then_some((instance, verdict)))
}

/// Looks at one instance when something of it has arrived, and writes what is new. Not yet that it never boots: a script and its
/// login may be old and come in two batches. [`watch`] looks a moment later.
pub(super) fn look_at_arrival(
    tx: &mut SystemTx<'_>,
    id: InstanceId,
    now: Timestamp,
    limits: &BootLimits,
) -> Result<(), AppError> {
    match news(tx, id, now, limits)? {
        Some((_, verdict)) if !verdict.new.contains(&BootCondition::Never) => look(tx, id, now, limits),
        _ => Ok(()),
    }
}

/// Looks at one instance, and writes what is new.
fn look(tx: &mut SystemTx<'_>, id: InstanceId, now: Timestamp, limits: &BootLimits) -> Result<(), AppError> {
    let Some((instance, verdict)) = news(tx, id, now, limits)? else { return Ok(()) };
    for condition in verdict.new {
        let mut detail = BTreeMap::new();
        if condition == BootCondition::Loop {
            detail.insert("boots".to_owned(), verdict.boots.to_string());
        }
        tracing::warn!(instance.id = %id, instance.name = %instance.name, %condition, "a node does not come to run");
        bmi_db::stage::insert(tx, id, now, condition.as_str(), &detail)?;
    }
    if verdict.condition != instance.condition {
        bmi_db::instance::condition(tx, id, verdict.condition)?;
    }
    Ok(())
}

/// Looks at every instance that may have waited too long, for ever.
pub async fn watch(app: Arc<App>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = look_all(&app).await {
            tracing::error!(%error, cause = ?std::error::Error::source(&error), "boots could not be looked at");
        }
    }
}

async fn look_all(app: &App) -> Result<(), AppError> {
    let (limits, now) = (app.boot_limits, Timestamp::now());
    let longest = limits.never_after_seconds.max(limits.loop_within_seconds).max(limits.steady_after_seconds);
    let since = now.minus(Duration::from_secs(longest) + 4 * LOOK);
    for id in app.db.system_read(move |tx| bmi_db::instance::booting(tx, since)).await? {
        // One transaction each: nobody waits for the whole round. Almost always there is nothing to write.
        let read = move |tx: &mut SystemTx<'_>| news(tx, id, Timestamp::now(), &limits);
        if app.db.system_read(read).await?.is_some() {
            app.db.system_write(move |tx| look(tx, id, Timestamp::now(), &limits)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BootLimits = BootLimits {
        never_after_seconds: 300,
        loop_boots: 3,
        loop_within_seconds: 1000,
        steady_after_seconds: 100,
    };

    fn at(seconds: u32) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(u64::from(seconds)))
    }

    /// A timeline from `SECONDS STAGE [KEY=VALUE]`, one a line.
    fn timeline(lines: &[&str]) -> Vec<Seen> {
        let read = |line: &&str| {
            let mut words = line.split(' ');
            let (seconds, stage) = (words.next().unwrap().parse().unwrap(), words.next().unwrap().to_owned());
            let pairs = words.map(|word| word.split_once('=').unwrap());
            (at(seconds), stage, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        };
        lines.iter().map(read).collect()
    }

    fn judged(lines: &[&str], now: u32) -> (Vec<BootCondition>, Option<BootCondition>) {
        let verdict = judge(&timeline(lines), at(now), &LIMITS);
        (verdict.new, verdict.condition)
    }

    const NOTHING: (Vec<BootCondition>, Option<BootCondition>) = (Vec::new(), None);

    #[test]
    fn b5_never_booted_is_told_once_and_ends_with_a_login() {
        let never = BootCondition::Never;
        let mut lines = vec!["10 dhcp file=undionly.kpxe", "20 script boot=1", "200 script boot=2"];
        assert_eq!(judged(&lines, 309), NOTHING);
        assert_eq!(judged(&lines, 310), (vec![never], Some(never)), "since the first it was told");
        lines.push("310 boot.never");
        assert_eq!(judged(&lines, 900), (vec![], Some(never)), "told once");
        lines.push("910 login boot=2");
        assert_eq!(judged(&lines, 911), NOTHING);
        lines.extend(["2000 dhcp file=undionly.kpxe", "2001 script boot=3"]);
        assert_eq!(judged(&lines, 2300), (vec![never], Some(never)), "the next time is another");
    }

    #[test]
    fn b5_a_script_that_is_told_after_its_login_is_no_boot_that_waits() {
        let mut lines = vec!["9 dhcp file=undionly.kpxe", "10 login boot=4", "10 script boot=4"];
        assert_eq!(judged(&lines, 5000), NOTHING);
        lines = vec!["1 script boot=1", "2 login boot=1", "600 boot.never", "1000 script boot=2"];
        let told = (vec![BootCondition::Never], Some(BootCondition::Never));
        assert_eq!(judged(&lines, 1300), told, "what was told of a boot that had logged in is of that one");
        lines = vec!["10 login boot=4", "10 script boot=4", "6000 script boot=5"];
        assert_eq!(judged(&lines, 6300), (vec![BootCondition::Never], Some(BootCondition::Never)));
    }

    #[test]
    fn b5_an_operating_systems_dhcp_is_no_boot() {
        assert_eq!(judged(&["1 login boot=1", "2 dhcp address=10.0.0.7"], 5000), NOTHING);
        assert_eq!(judged(&[], 5000), NOTHING);
    }

    #[test]
    fn b5_a_loop_is_told_once_and_ends_when_a_boot_comes_to_run() {
        let looping = BootCondition::Loop;
        let mut lines = vec![
            "0 script boot=1",
            "1 login boot=1",
            "60 script boot=2",
            "61 login boot=2",
            "70 write.first",
            "120 script boot=3",
            "121 login boot=3",
        ];
        assert_eq!(judged(&lines[..5], 119), NOTHING);
        assert_eq!(
            judged(&lines, 122),
            (vec![looping], Some(looping)),
            "a write does not help that is cut off"
        );
        lines.extend(["122 boot.loop", "180 script boot=4", "181 login boot=4"]);
        assert_eq!(judged(&lines, 182), (vec![], Some(looping)), "told once");
        lines.push("190 write.first");
        assert_eq!(judged(&lines, 289), (vec![], Some(looping)));
        assert_eq!(judged(&lines, 290), NOTHING, "it runs");
        lines.extend(["300 script boot=5", "310 script boot=6", "320 script boot=7"]);
        assert_eq!(judged(&lines, 321), (vec![looping], Some(looping)), "the next time is another");
    }

    #[test]
    fn b5_repeats_reboots_and_old_boots_are_no_loop() {
        let repeats = ["1 script boot=1", "2 script boot=1", "3 script boot=1", "4 login boot=1"];
        assert_eq!(judged(&repeats, 5), NOTHING);
        let reboots: Vec<String> = (0..6)
            .flat_map(|n| {
                let (begun, boot) = (n * 150, n + 1);
                [
                    format!("{begun} script boot={boot}"),
                    format!("{begun} login"),
                    format!("{} write.first", begun + 10),
                ]
            })
            .collect();
        let reboots: Vec<&str> = reboots.iter().map(String::as_str).collect();
        assert_eq!(judged(&reboots, 751), NOTHING, "each came to run");
        let rare = [
            "0 script boot=1",
            "0 login",
            "900 script boot=2",
            "900 login",
            "1800 script boot=3",
            "1800 login",
        ];
        assert_eq!(judged(&rare, 1801), NOTHING);
    }
}
