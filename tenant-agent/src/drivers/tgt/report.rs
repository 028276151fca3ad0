//! What tgtd says exists. Pure: its text for people, read for what the driver needs.
//!
//! The text is tgtd's, but an initiator's name in it is a tenant's: a section is known by how far its line is set in,
//! and a line of another depth is none of it.

use std::collections::BTreeMap;

/// One logical unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// The file behind it.
    pub path: String,
    /// Whether it can be read now.
    pub online: bool,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// The initiator's name.
    pub initiator: String,
    /// From which address.
    pub address: String,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Its logical units, by their numbers; its controller is one.
    pub units: BTreeMap<u16, Unit>,
    /// Its sessions, by tgtd's number, which grows with each.
    pub sessions: BTreeMap<u64, Session>,
    /// With which accounts initiators may log in, in the order in which they were added.
    pub accounts: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Other,
    Sessions,
    Units,
    Accounts,
}

impl Report {
    /// Reads what `show` gave.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut report = Self::default();
        let mut section = Section::Other;
        let (mut session, mut unit) = (0, 0);
        for line in text.lines() {
            let rest = line.trim_start_matches(' ');
            let (depth, (key, value)) =
                ((line.len() - rest.len()) / 4, rest.split_once(": ").unwrap_or((rest, "")));
            match (section, depth, key) {
                (_, 0 | 1, _) => {
                    section = match rest {
                        "I_T nexus information:" => Section::Sessions,
                        "LUN information:" => Section::Units,
                        "Account information:" => Section::Accounts,
                        _ => Section::Other,
                    }
                }
                (Section::Sessions, 2, "I_T nexus") => session = value.parse().unwrap_or_default(),
                (Section::Sessions, 3, "Initiator") => {
                    let name = value.split(' ').next().unwrap_or_default();
                    report.sessions.entry(session).or_default().initiator = name.to_owned();
                }
                (Section::Sessions, 4, "IP Address") => {
                    report.sessions.entry(session).or_default().address = value.to_owned();
                }
                (Section::Units, 2, "LUN") => unit = value.parse().unwrap_or_default(),
                (Section::Units, 3, "Online") => {
                    report.units.entry(unit).or_default().online = value == "Yes";
                }
                (Section::Units, 3, "Readonly") => {
                    report.units.entry(unit).or_default().read_only = value == "Yes";
                }
                (Section::Units, 3, "Backing store path") => {
                    report.units.entry(unit).or_default().path = value.to_owned();
                }
                (Section::Accounts, 2, _) => report.accounts.push(rest.to_owned()),
                _ => {}
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As tgt 1.0.85 wrote it.
    const TEXT: &str = "\
Target 1: iqn.2026-11.x:1
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 2
            Initiator: iqn.2026-11.x:init alias: none
            Connection: 0
                IP Address: 10.20.0.71
    LUN information:
        LUN: 0
            Type: controller
            Online: Yes
            Readonly: No
            Backing store path: None
        LUN: 1
            Type: disk
            Online: Yes
            Readonly: No
            Backing store path: /proc/self/fd/64
        LUN: 2
            Type: disk
            Online: Yes
            Readonly: Yes
            Backing store path: /proc/self/fd/65
    Account information:
        nobody
        0190163d-8694-739b-aea5-966c26f8ad91-7
    ACL information:
        iqn.2026-11.x:init
";

    #[test]
    fn what_tgtd_writes_is_read() {
        let report = Report::read(TEXT);
        let unit = |path: &str, read_only| Unit { path: path.to_owned(), online: true, read_only };
        assert_eq!(report.units[&1], unit("/proc/self/fd/64", false));
        assert_eq!(report.units[&2], unit("/proc/self/fd/65", true));
        assert_eq!(report.units.len(), 3);
        let session =
            Session { initiator: "iqn.2026-11.x:init".to_owned(), address: "10.20.0.71".to_owned() };
        assert_eq!(report.sessions, BTreeMap::from([(2, session)]));
        assert_eq!(report.accounts, ["nobody", "0190163d-8694-739b-aea5-966c26f8ad91-7"]);
        assert_eq!(Report::read(""), Report::default());
    }
}
