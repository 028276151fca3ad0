//! Names of a logical unit, derived by a hash from its target's name and its number: the same after a restart and on
//! another host, and different for every unit of every target.

use sha2::{Digest, Sha256};

use crate::config::TargetConfig;
use crate::wire;

/// T10 vendor identification.
pub const VENDOR: &[u8; 8] = b"BMI     ";

fn digest(config: &TargetConfig, number: u16) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"bmi logical unit v1\0");
    hash.update(config.name.as_bytes());
    hash.update([0]);
    hash.update(number.to_be_bytes());
    hash.finalize().into()
}

/// Serial number: 20 hexadecimal digits.
pub fn serial(config: &TargetConfig, number: u16) -> String {
    digest(config, number).iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

/// A locally assigned NAA identifier (SPC-4 section 7.8.6.6.4: NAA 3h), since nobody here owns a company id.
pub fn naa(config: &TargetConfig, number: u16) -> [u8; 8] {
    let bits = wire::u64_at(&digest(config, number), 16);
    (0x3 << 60 | bits >> 4).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_target_and_unit_and_stay() {
        let target =
            |name: &str| TargetConfig { name: name.into(), initiators: vec![], chap: false, units: vec![] };
        let (a, b) = (target("iqn.2026-01.example:a"), target("iqn.2026-01.example:b"));
        assert_eq!(serial(&a, 0), serial(&a, 0));
        assert_ne!(serial(&a, 0), serial(&a, 1));
        assert_ne!(serial(&a, 0), serial(&b, 0));
        assert_ne!(naa(&a, 0), naa(&a, 1));
        assert_ne!(naa(&a, 0), naa(&b, 0));
        assert_eq!(naa(&a, 0)[0] >> 4, 3);
    }
}
