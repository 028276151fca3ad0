use std::fs;
use std::path::Path;

use bmi_agent_api::config::BootGate;
use bmi_agent_api::event::TargetEvent;
use bmi_types::{BootKey, BootNumber, BootUser, InstanceId, boot_secret};

use crate::target::{Target, run};

fn write(path: &Path, gate: &BootGate) {
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_string(gate).unwrap()).unwrap();
    fs::rename(beside, path).unwrap();
}

#[test]
fn a_boot_shuts_out_the_boots_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("boot.json");
    let instance = InstanceId::generate();
    let mut gate = BootGate { instance, boot_key: BootKey::generate().unwrap(), floor: BootNumber(10) };
    write(&path, &gate);
    let target = Target::start(&["--lun", "0=memory:1M", "--boot-gate", &path.display().to_string()]);
    let boot = |instance, number, key: &BootKey| {
        let user = BootUser { instance, boot: BootNumber(number) };
        let url = target.url_as(&user.to_string(), boot_secret(key, user).expose());
        run("iscsi-inq", &[&url]).status.success()
    };
    assert!(!boot(instance, 9, &gate.boot_key));
    assert!(!boot(instance, 12, &BootKey::generate().unwrap()));
    assert!(!boot(InstanceId::generate(), 12, &gate.boot_key));
    assert!(boot(instance, 12, &gate.boot_key));
    let login = target.expect(|event| matches!(event, TargetEvent::Login { .. }));
    assert!(matches!(login, TargetEvent::Login { boot: Some(BootNumber(12)), .. }));
    assert!(!boot(instance, 11, &gate.boot_key), "an earlier boot");
    assert!(boot(instance, 12, &gate.boot_key), "the same boot, once more");

    gate.floor = BootNumber(20);
    write(&path, &gate);
    assert!(!boot(instance, 19, &gate.boot_key));
    assert!(boot(instance, 20, &gate.boot_key));
}
