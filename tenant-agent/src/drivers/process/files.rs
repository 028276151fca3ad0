//! A process's directory: its configuration, which it can only read, and what goes with it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use bmi_agent_api::config::{BOOT_GATE_FILE, BROKER_FILE, NETBOOT_FILE, NetbootConfig};

use super::{ProcessDriver, ProcessError, broker};
use crate::drivers::ProcessConfig;
use crate::ledger::write_whole;
use crate::plan::names::ProcessId;
use crate::plan::spec::ProcessSpec;

impl ProcessDriver {
    pub(in crate::drivers) fn directory_make(
        &self,
        spec: &ProcessSpec,
        config: &ProcessConfig,
    ) -> Result<PathBuf, ProcessError> {
        let id = spec.id();
        let fault = |source| ProcessError::File { doing: "making the directory", id, source };
        let directory = self.directory(id);
        fs::create_dir(&directory).map_err(fault)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).map_err(fault)?;
        chown(&directory, Some(0), Some(self.uid(spec.slot()))).map_err(fault)?;
        let gid = self.uid(spec.slot());
        match (spec, config) {
            (ProcessSpec::Broker(spec), _) => {
                let sockets = self.sockets(spec.instance);
                broker::directory_ensure(&sockets, self.uid(spec.target_slot)).map_err(fault)?;
                let text = serde_json::to_vec(&broker::config(spec, &sockets));
                self.file_write(id, gid, BROKER_FILE, text)?;
            }
            (_, config) => self.config_write(id, gid, config)?,
        }
        Ok(directory)
    }

    pub(super) fn config_write(
        &self,
        id: ProcessId,
        gid: u32,
        config: &ProcessConfig,
    ) -> Result<(), ProcessError> {
        let (name, text) = match config {
            ProcessConfig::Broker => return Ok(()),
            ProcessConfig::Netboot(config) => {
                // A path comes from our own configuration, whatever was asked for.
                let config = NetbootConfig { loaders: self.config.loaders_seen(), ..config.clone() };
                (NETBOOT_FILE, serde_json::to_vec(&config))
            }
            ProcessConfig::Gate(gate) => (BOOT_GATE_FILE, serde_json::to_vec(gate)),
        };
        self.file_write(id, gid, name, text)
    }

    fn file_write(
        &self,
        id: ProcessId,
        gid: u32,
        name: &str,
        text: serde_json::Result<Vec<u8>>,
    ) -> Result<(), ProcessError> {
        let fault = |source| ProcessError::File { doing: "writing the configuration", id, source };
        let text = text.map_err(|error| fault(error.into()))?;
        let directory = self.directory(id);
        // Under another name until its group is right: the process reads a file the moment it has the real one.
        let ready = format!("{name}.ready");
        write_whole(&directory, &ready, &text, 0o640).map_err(fault)?;
        chown(directory.join(&ready), Some(0), Some(gid)).map_err(fault)?;
        fs::rename(directory.join(&ready), directory.join(name)).map_err(fault)
    }

    /// Removes the directory of an instance's socket with the last process that needs it.
    pub(in crate::drivers) fn sockets_remove(&self, id: ProcessId) -> Result<(), ProcessError> {
        let (instance, other) = match id {
            ProcessId::Netboot => return Ok(()),
            ProcessId::Target(instance) => (instance, ProcessId::Broker(instance)),
            ProcessId::Broker(instance) => (instance, ProcessId::Target(instance)),
        };
        if self.directory(other).exists() { Ok(()) } else { directory_remove(id, &self.sockets(instance)) }
    }
}

pub(super) fn directory_remove(id: ProcessId, directory: &Path) -> Result<(), ProcessError> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ProcessError::File { doing: "removing the directory", id, source })
        }
        _ => Ok(()),
    }
}
