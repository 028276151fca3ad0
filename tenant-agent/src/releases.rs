//! What an agent of an earlier release kept is read as it is, and means the same.

use std::path::PathBuf;

use crate::drivers::process::record::Record;
use crate::ledger::{LEDGER_FILE, Ledger};
use crate::plan::names::ProcessId;
use crate::plan::spec::Wanted;

/// The oldest first.
const RELEASES: [&str; 1] = ["1"];

fn directory(release: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/release").join(release)
}

#[test]
fn the_ledger_of_an_earlier_agent_is_read_and_what_it_started_is_still_what_is_wanted() {
    for release in RELEASES {
        let directory = directory(release);
        assert!(directory.join(LEDGER_FILE).exists(), "{release}");
        let ledger = Ledger::load(&directory).unwrap();
        let desired = ledger.desired.unwrap();
        let instance = desired.instances[0].id;
        let wanted = Wanted::from_desired(&desired, &ledger.kept, "/usr/lib/ipxe".into());
        for (id, place) in [(ProcessId::Netboot, "netboot"), (ProcessId::Target(instance), "target")] {
            let record = Record::load(&directory.join(place)).unwrap();
            assert_eq!(
                Some(&record.spec),
                wanted.processes.get(&id),
                "{release}: {place} would be started again"
            );
        }
    }
}
