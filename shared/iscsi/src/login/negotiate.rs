//! Operational keys and their result functions (RFC 7143 section 13).

use super::{Refusal, Status, refuse};
use crate::config::{FIRST_BURST, MAX_BURST, OUTSTANDING_R2T};
use crate::text;

/// Keys that are stated, not negotiated: they get no answer, and may be repeated.
const DECLARED: [&str; 6] = [
    "InitiatorName",
    "InitiatorAlias",
    "TargetName",
    "SessionType",
    "MaxRecvDataSegmentLength",
    "TargetPortalGroupTag",
];

/// Keys of the security stage, answered elsewhere.
const SECURITY: [&str; 6] = ["AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"];

/// The digest there is (RFC 7143 section 13.1).
const CRC32C: &str = "CRC32C";

/// The first of a list that this side knows. In discovery none, if that is offered: real initiators offer a digest
/// there and then cannot do it.
fn digest(list: &str, discovery: bool) -> Option<&'static str> {
    let offered = |wanted| list.split(',').any(|one| one == wanted);
    if discovery && offered("None") {
        return Some("None");
    }
    list.split(',').find_map(|one| match one {
        "None" => Some("None"),
        CRC32C => Some(CRC32C),
        _ => None,
    })
}

/// The most keys of one login. RFC 7143 has 30.
const KEYS_MAX: usize = 64;

/// What a session has agreed on, beginning with the defaults of RFC 7143.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Data segments the initiator takes, in bytes.
    pub send_segment: u32,
    /// In bytes.
    pub max_burst: u32,
    /// In bytes.
    pub first_burst: u32,
    /// Whether all data beyond immediate data waits for an R2T.
    pub initial_r2t: bool,
    /// Whether a command may carry data.
    pub immediate_data: bool,
    /// R2Ts of one command that may be unanswered.
    pub max_outstanding_r2t: u32,
    /// Whether headers carry a CRC32C.
    pub header_digest: bool,
    /// Whether data segments carry a CRC32C.
    pub data_digest: bool,
    seen: Vec<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            send_segment: 8192,
            max_burst: 262_144,
            first_burst: 65_536,
            initial_r2t: true,
            immediate_data: true,
            max_outstanding_r2t: 1,
            header_digest: false,
            data_digest: false,
            seen: Vec::new(),
        }
    }
}

/// Values that answer instead of offering.
fn is_answer(value: &str) -> bool {
    matches!(value, "Reject" | "NotUnderstood" | "Irrelevant")
}

impl Parameters {
    /// Takes the initiator's keys and adds an answer to each that wants one.
    pub fn negotiate(
        &mut self,
        pairs: &[(&str, &str)],
        answer: &mut Vec<u8>,
        discovery: bool,
    ) -> Result<(), Refusal> {
        for (key, value) in pairs {
            if DECLARED.contains(key) {
                self.declare(key, value)?;
                continue;
            }
            if self.seen.iter().any(|seen| seen == key) {
                return refuse(Status::INITIATOR_ERROR, "key given twice");
            }
            if self.seen.len() >= KEYS_MAX {
                return refuse(Status::INITIATOR_ERROR, "too many keys");
            }
            self.seen.push((*key).to_owned());
            if SECURITY.contains(key) || is_answer(value) {
                continue;
            }
            let result = self.choose(key, value, discovery);
            text::push(answer, key, &result);
        }
        Ok(())
    }

    /// Takes a key that is stated. Also used by text requests, which may state a new segment length.
    pub fn declare(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        if key == "MaxRecvDataSegmentLength" {
            self.send_segment = match text::number(value) {
                Some(length @ 512..=0x00ff_ffff) => length,
                _ => return refuse(Status::INITIATOR_ERROR, "bad MaxRecvDataSegmentLength"),
            };
        }
        Ok(())
    }

    fn choose(&mut self, key: &str, value: &str, discovery: bool) -> String {
        let number = |low, high| text::number(value).filter(|number| (low..=high).contains(number));
        let boolean = || match value {
            "Yes" => Some(true),
            "No" => Some(false),
            _ => None,
        };
        let lists = |wanted: &str| value.split(',').any(|one| one == wanted);
        let yes_no = |yes| if yes { "Yes" } else { "No" }.to_owned();
        let irrelevant = discovery
            && matches!(
                key,
                "MaxConnections"
                    | "InitialR2T"
                    | "ImmediateData"
                    | "MaxBurstLength"
                    | "FirstBurstLength"
                    | "MaxOutstandingR2T"
                    | "DataPDUInOrder"
                    | "DataSequenceInOrder"
            );
        if irrelevant {
            return "Irrelevant".to_owned();
        }
        let result = match key {
            "HeaderDigest" => digest(value, discovery).map(|chosen| {
                self.header_digest = chosen == CRC32C;
                chosen.to_owned()
            }),
            "DataDigest" => digest(value, discovery).map(|chosen| {
                self.data_digest = chosen == CRC32C;
                chosen.to_owned()
            }),
            "MaxConnections" => number(1, 65_535).map(|_| "1".to_owned()),
            "InitialR2T" => boolean().map(|offered| {
                self.initial_r2t = offered;
                yes_no(offered)
            }),
            "ImmediateData" => boolean().map(|offered| {
                self.immediate_data = offered;
                yes_no(offered)
            }),
            "MaxBurstLength" => number(512, 0x00ff_ffff).map(|offered| {
                self.max_burst = offered.min(MAX_BURST);
                self.max_burst.to_string()
            }),
            "FirstBurstLength" => number(512, 0x00ff_ffff).map(|offered| {
                self.first_burst = offered.min(FIRST_BURST);
                self.first_burst.to_string()
            }),
            "DefaultTime2Wait" => number(0, 3600).map(|offered| offered.to_string()),
            "DefaultTime2Retain" => number(0, 3600).map(|_| "0".to_owned()),
            "MaxOutstandingR2T" => number(1, 65_535).map(|offered| {
                self.max_outstanding_r2t = offered.min(OUTSTANDING_R2T);
                self.max_outstanding_r2t.to_string()
            }),
            "DataPDUInOrder" | "DataSequenceInOrder" => boolean().map(|_| "Yes".to_owned()),
            "ErrorRecoveryLevel" => number(0, 2).map(|_| "0".to_owned()),
            "IFMarker" | "OFMarker" => boolean().map(|_| "No".to_owned()),
            "TaskReporting" => lists("RFC3720").then(|| "RFC3720".to_owned()),
            "iSCSIProtocolLevel" => number(0, 31).map(|offered| offered.min(1).to_string()),
            _ => Some("NotUnderstood".to_owned()),
        };
        result.unwrap_or_else(|| "Reject".to_owned())
    }

    /// Unsolicited data a command may bring, in bytes: never more than a burst.
    pub fn unsolicited(&self) -> u32 {
        self.first_burst.min(self.max_burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pairs: &[(&str, &str)]) -> (Parameters, String) {
        let mut parameters = Parameters::default();
        let mut out = Vec::new();
        parameters.negotiate(pairs, &mut out, false).unwrap();
        (parameters, String::from_utf8(out).unwrap().replace('\0', "\n"))
    }

    #[test]
    fn every_key_has_its_result_function() {
        for (key, offered, result) in [
            ("HeaderDigest", "None,CRC32C", "None"),
            ("HeaderDigest", "CRC32C,None", "CRC32C"),
            ("HeaderDigest", "SHA256,CRC32C,None", "CRC32C"),
            ("DataDigest", "CRC32C", "CRC32C"),
            ("DataDigest", "SHA256", "Reject"),
            ("MaxConnections", "8", "1"),
            ("InitialR2T", "No", "No"),
            ("InitialR2T", "Yes", "Yes"),
            ("ImmediateData", "No", "No"),
            ("MaxBurstLength", "16776192", "1048576"),
            ("MaxBurstLength", "0x2000", "8192"),
            ("MaxBurstLength", "511", "Reject"),
            ("FirstBurstLength", "1048576", "262144"),
            ("DefaultTime2Wait", "2", "2"),
            ("DefaultTime2Retain", "20", "0"),
            ("MaxOutstandingR2T", "16", "8"),
            ("MaxOutstandingR2T", "1", "1"),
            ("DataPDUInOrder", "No", "Yes"),
            ("DataSequenceInOrder", "No", "Yes"),
            ("ErrorRecoveryLevel", "2", "0"),
            ("IFMarker", "Yes", "No"),
            ("OFMarkInt", "2048", "NotUnderstood"),
            ("TaskReporting", "FastAbort,RFC3720", "RFC3720"),
            ("iSCSIProtocolLevel", "2", "1"),
            ("X-com.example.key", "1", "NotUnderstood"),
            ("ImmediateData", "Maybe", "Reject"),
        ] {
            assert_eq!(answer(&[(key, offered)]).1, format!("{key}={result}\n"), "{offered}");
        }
    }

    #[test]
    fn declarations_get_no_answer_and_are_checked() {
        let (parameters, text) = answer(&[("InitiatorAlias", "node"), ("MaxRecvDataSegmentLength", "65536")]);
        assert_eq!((parameters.send_segment, text.as_str()), (65_536, ""));
        for bad in ["511", "16777216", "x"] {
            assert!(Parameters::default().declare("MaxRecvDataSegmentLength", bad).is_err());
        }
    }

    #[test]
    fn a_key_given_twice_is_an_error() {
        let twice = [("ImmediateData", "Yes"), ("ImmediateData", "No")];
        assert!(Parameters::default().negotiate(&twice, &mut Vec::new(), false).is_err());
    }
}
