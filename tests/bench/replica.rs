//! A second control plane on the database, the keys and the store of a deployment.

use std::fs::{self, File};
use std::process::Child;
use std::time::Duration;

use bmi_tests::{Api, Deployment, command, until};
use rustix::process::Signal;

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// A running one.
pub(crate) struct Replica {
    pub(crate) api: Api,
    child: Child,
}

impl Replica {
    pub(crate) fn start(deployment: &Deployment) -> Self {
        let data = &deployment.data;
        let first = data.join("control-plane");
        let text = fs::read_to_string(data.join("control-plane.toml")).unwrap();
        let (own, shared) = (data.join("second"), first.display());
        let keys = format!(
            "data_dir = \"{}\"\nmaster_key_file = \"{shared}/master.key\"\nadmin_token_file = \"{shared}/admin.token\"",
            own.display()
        );
        let text = text.replace(&format!("data_dir = \"{shared}\""), &keys);
        let text = text
            .replace("kind = \"local\"\n", &format!("kind = \"local\"\ndirectory = \"{shared}/store\"\n"));
        let text = format!("{text}\n[audit]\nkey_file = \"{shared}/audit.key\"\n");
        let (config, out) = (data.join("second.toml"), data.join("second.out"));
        fs::write(&config, text).unwrap();
        let log = File::create(data.join("log/second.log")).unwrap();
        let mut child = command(&deployment.program("bmi-control-plane"))
            .arg("--config")
            .arg(&config)
            .env("NO_COLOR", "1")
            .stdout(File::create(&out).unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let address = until("the second replica listens", START, || {
            assert!(child.try_wait().unwrap().is_none(), "the second replica ended");
            let said: serde_json::Value =
                serde_json::from_str(fs::read_to_string(&out).ok()?.lines().next()?).ok()?;
            said["address"].as_str()?.parse().ok()
        });
        Self { api: Api::new(address, &deployment.token()), child }
    }

    pub(crate) fn stop(mut self) {
        assert!(bmi_tests::descendants_end(&mut self.child, Signal::TERM), "the second replica did not end");
    }
}
