//! Sense data (SPC-4 section 4.5).

use crate::wire;

/// Sense keys in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of SPC-4")]
#[repr(u8)]
pub enum SenseKey {
    NoSense = 0x0,
    MediumError = 0x3,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    AbortedCommand = 0xb,
    Miscompare = 0xe,
}

/// Which byte of what the initiator sent is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Of the CDB.
    Cdb(u16),
    /// Of the parameter list.
    List(u16),
}

/// Key, additional sense code and qualifier, and where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// Key.
    pub key: SenseKey,
    /// Code and qualifier, as in `0x2400`.
    pub code: u16,
    /// INFORMATION: for MISCOMPARE the first byte that differs, counted from the start of the data (SBC-3 section 4.22).
    pub information: Option<u32>,
    /// FIELD POINTER (SPC-4 section 4.5.2.4.2).
    pub field: Option<Field>,
}

impl Sense {
    const fn new(key: SenseKey, code: u16) -> Self {
        Self { key, code, information: None, field: None }
    }

    /// Nothing to report.
    pub const NONE: Self = Self::new(SenseKey::NoSense, 0);
    /// UNRECOVERED READ ERROR.
    pub const UNRECOVERED_READ: Self = Self::new(SenseKey::MediumError, 0x1100);
    /// WRITE ERROR.
    pub const WRITE_ERROR: Self = Self::new(SenseKey::MediumError, 0x0c00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH: Self = Self::new(SenseKey::IllegalRequest, 0x1a00);
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPERATION_CODE: Self = Self::new(SenseKey::IllegalRequest, 0x2000);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const OUT_OF_RANGE: Self = Self::new(SenseKey::IllegalRequest, 0x2100);
    /// LOGICAL UNIT NOT SUPPORTED.
    pub const LUN_NOT_SUPPORTED: Self = Self::new(SenseKey::IllegalRequest, 0x2500);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const NO_SAVED_PARAMETERS: Self = Self::new(SenseKey::IllegalRequest, 0x3900);
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the data promised does not fit the command.
    pub const INVALID_FIELD_IN_INFORMATION_UNIT: Self = Self::new(SenseKey::IllegalRequest, 0x0e03);
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    pub const INVALID_RELEASE: Self = Self::new(SenseKey::IllegalRequest, 0x2604);
    /// INSUFFICIENT REGISTRATION RESOURCES.
    pub const INSUFFICIENT_REGISTRATION_RESOURCES: Self = Self::new(SenseKey::IllegalRequest, 0x5504);
    /// MODE PARAMETERS CHANGED.
    pub const MODE_CHANGED: Self = Self::new(SenseKey::UnitAttention, 0x2a01);
    /// RESERVATIONS PREEMPTED.
    pub const RESERVATIONS_PREEMPTED: Self = Self::new(SenseKey::UnitAttention, 0x2a03);
    /// RESERVATIONS RELEASED.
    pub const RESERVATIONS_RELEASED: Self = Self::new(SenseKey::UnitAttention, 0x2a04);
    /// REGISTRATIONS PREEMPTED.
    pub const REGISTRATIONS_PREEMPTED: Self = Self::new(SenseKey::UnitAttention, 0x2a05);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const RESET: Self = Self::new(SenseKey::UnitAttention, 0x2900);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: Self = Self::new(SenseKey::DataProtect, 0x2700);
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED.
    pub const SOFTWARE_WRITE_PROTECTED: Self = Self::new(SenseKey::DataProtect, 0x2702);
    /// SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const SPACE_ALLOCATION_FAILED: Self = Self::new(SenseKey::DataProtect, 0x2707);
    /// PROTOCOL SERVICE CRC ERROR (RFC 7143 section 7.8).
    pub const CRC_ERROR: Self = Self::new(SenseKey::AbortedCommand, 0x4705);
    /// DATA PHASE ERROR.
    pub const DATA_PHASE: Self = Self::new(SenseKey::AbortedCommand, 0x4b00);
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE: Self = Self::new(SenseKey::Miscompare, 0x1d00);

    /// The same, with INFORMATION.
    #[must_use]
    pub const fn at(self, information: u32) -> Self {
        Self { information: Some(information), ..self }
    }

    /// INVALID FIELD IN CDB: the one that begins with this byte.
    #[must_use]
    pub const fn invalid_field(byte: u16) -> Self {
        Self { field: Some(Field::Cdb(byte)), ..Self::new(SenseKey::IllegalRequest, 0x2400) }
    }

    /// INVALID FIELD IN PARAMETER LIST: the one that begins with this byte.
    #[must_use]
    pub fn invalid_in_list(byte: usize) -> Self {
        let field = Field::List(u16::try_from(byte).unwrap_or(u16::MAX));
        Self { field: Some(field), ..Self::new(SenseKey::IllegalRequest, 0x2600) }
    }

    /// SKSV, C/D and the field pointer; zeros where there is none.
    const fn specific(self) -> [u8; 3] {
        let (flags, byte) = match self.field {
            Some(Field::Cdb(byte)) => (0xc0, byte),
            Some(Field::List(byte)) => (0x80, byte),
            None => (0, 0),
        };
        let [high, low] = byte.to_be_bytes();
        [flags, high, low]
    }

    /// Fixed format, current error: 18 bytes (SPC-4 section 4.5.3). VALID says that there is INFORMATION.
    #[must_use]
    pub const fn fixed(self) -> [u8; 18] {
        let [code, qualifier] = self.code.to_be_bytes();
        let (response, [a, b, c, d]) = match self.information {
            Some(information) => (0xf0, information.to_be_bytes()),
            None => (0x70, [0; 4]),
        };
        let [flags, high, low] = self.specific();
        [response, 0, self.key as u8, a, b, c, d, 10, 0, 0, 0, 0, code, qualifier, 0, flags, high, low]
    }

    /// Descriptor format (SPC-4 section 4.5.2): 8 bytes, and descriptors of information and of the field, if there are.
    #[must_use]
    pub fn descriptor(self) -> Vec<u8> {
        let [code, qualifier] = self.code.to_be_bytes();
        let mut data = vec![0x72, self.key as u8, code, qualifier, 0, 0, 0, 0];
        if let Some(information) = self.information {
            data.extend_from_slice(&[0x00, 0x0a, 0x80, 0]);
            data.extend_from_slice(&u64::from(information).to_be_bytes());
        }
        if self.field.is_some() {
            data.extend_from_slice(&[0x02, 0x06, 0, 0]);
            data.extend_from_slice(&self.specific());
            data.push(0);
        }
        let additional = u8::try_from(data.len() - 8).unwrap_or(0);
        wire::put(&mut data, 7, &[additional]);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_information_and_field_where_they_belong() {
        let miscompare = Sense::MISCOMPARE.at(5);
        assert_eq!(miscompare.fixed()[..8], [0xf0, 0, 0x0e, 0, 0, 0, 5, 10]);
        assert_eq!(miscompare.fixed()[12..], [0x1d, 0, 0, 0, 0, 0]);
        let descriptor = [0x72, 0x0e, 0x1d, 0, 0, 0, 0, 12, 0, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(miscompare.descriptor(), descriptor);
        assert_eq!(Sense::invalid_field(2).fixed()[12..], [0x24, 0, 0, 0xc0, 0, 2]);
        let descriptor = [0x72, 5, 0x24, 0, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0xc0, 0, 1, 0];
        assert_eq!(Sense::invalid_field(1).descriptor(), descriptor);
        assert_eq!(Sense::invalid_in_list(0x102).fixed()[12..], [0x26, 0, 0, 0x80, 1, 2]);
        assert_eq!(Sense::RESET.descriptor().len(), 8);
    }
}
