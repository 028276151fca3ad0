//! The config volume: a small FAT disk labelled `CIDATA`, as cloud-init's NoCloud source reads it.

use std::io::{Cursor, Write};

use bmi_types::{InstanceId, Name};

/// Size of the disk: room for 64 KiB of user data and 64 keys of 8 KiB in FAT12.
const SIZE: usize = 1024 * 1024;

/// What goes into a config volume.
#[derive(Debug, Clone)]
pub struct ConfigVolume<'a> {
    /// The instance; a new id makes cloud-init run again.
    pub instance: InstanceId,
    /// The node's host name.
    pub hostname: &'a Name,
    /// SSH public keys, one line each.
    pub ssh_keys: &'a [String],
    /// User data, `#cloud-config` or a script; an empty cloud-config when there is none.
    pub user_data: Option<&'a str>,
}

impl ConfigVolume<'_> {
    /// The bytes of the disk. The same content always gives the same bytes.
    ///
    /// # Errors
    /// When the content does not fit.
    pub fn build(&self) -> std::io::Result<Vec<u8>> {
        let mut disk = Cursor::new(vec![0_u8; SIZE]);
        let options = fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     ").volume_id(0x4249_4D49);
        fatfs::format_volume(&mut disk, options)?;
        {
            let options = fatfs::FsOptions::new().update_accessed_date(false);
            let volume = fatfs::FileSystem::new(&mut disk, options)?;
            let root = volume.root_dir();
            root.create_file("meta-data")?.write_all(self.meta_data().as_bytes())?;
            let user_data = self.user_data.unwrap_or("#cloud-config\n{}\n");
            root.create_file("user-data")?.write_all(user_data.as_bytes())?;
        }
        Ok(disk.into_inner())
    }

    /// NoCloud meta-data. Values are written as JSON strings, which YAML reads as they are.
    fn meta_data(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!(
            "instance-id: {}\nlocal-hostname: {}\n",
            quoted(&self.instance.to_string()),
            quoted(self.hostname.as_str())
        );
        if !self.ssh_keys.is_empty() {
            text.push_str("public-keys:\n");
            for key in self.ssh_keys {
                text.push_str(&format!("  - {}\n", quoted(key)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_disk_is_labelled_and_holds_both_files() {
        let volume = ConfigVolume {
            instance: InstanceId::generate(),
            hostname: &"node-1".parse().unwrap(),
            ssh_keys: &["ssh-ed25519 AAAA \"quoted\" me".to_owned()],
            user_data: None,
        };
        let bytes = volume.build().unwrap();
        assert_eq!(bytes.len(), SIZE);
        let disk = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
        assert_eq!(disk.volume_label(), "CIDATA");
        let mut text = String::new();
        disk.root_dir().open_file("meta-data").unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("local-hostname: \"node-1\"\n"), "{text}");
        assert!(text.contains("  - \"ssh-ed25519 AAAA \\\"quoted\\\" me\"\n"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let user_data = "x".repeat(SIZE);
        let volume = ConfigVolume {
            instance: InstanceId::generate(),
            hostname: &"node-1".parse().unwrap(),
            ssh_keys: &[],
            user_data: Some(&user_data),
        };
        assert!(volume.build().is_err());
    }
}
