//! The header of an image, as the OSD tells it: read without opening the image, which would act on what is in it.
//!
//! Who may write to an image can write anything into its header: another image's parent, another image's objects, a place to
//! migrate from. So who opens it with more rights looks first whether the header says what it said before.

use std::ffi::CStr;
use std::os::raw::c_char;

use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::{Handle, Pool};
use crate::sys;
use crate::text::to_c;

/// "Of the image itself, not of a snapshot" (`CEPH_NOSNAP`).
const NO_SNAPSHOT: u64 = u64::MAX - 1;
/// What a header says of operations (`RBD_OPERATION_FEATURE_…`): a snapshot was cloned, a snapshot is in the trash.
const CLONE_PARENT: u64 = 1;
const SNAP_TRASH: u64 = 8;
/// The feature that says that there are such (`RBD_FEATURE_OPERATIONS`).
const OPERATIONS: u64 = 1 << 8;
/// The longest answer, in bytes: names, ids and numbers. A longer one counts as a failure, and is never the same as a short
/// one.
const ANSWER_MAX: usize = 64 << 10;
/// Metadata that are looked at, in keys: an image of ours has one. What more there are changes the first.
const METADATA_MAX: u64 = 64;

/// What decides where an image's data are, what belongs to it, and how it is opened. Metadata are a part of it: those that begin
/// with `conf_` are options of whoever opens the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    answers: Vec<(&'static str, Result<Vec<u8>, i32>)>,
    snapshots: Vec<u64>,
}

impl Header {
    /// The features of the image, as the bits that `rbd/features.h` gives them.
    #[must_use]
    pub fn features(&self) -> Option<u64> {
        let (_, answer) = self.answers.iter().find(|(method, _)| *method == "get_features")?;
        // Behind them come those without which it cannot be read.
        let (features, _) = answer.as_ref().ok()?.split_first_chunk()?;
        Some(u64::from_le_bytes(*features))
    }

    /// The numbers of its snapshots. Who removes one has it removed from the whole pool, by this number.
    #[must_use]
    pub fn snapshots(&self) -> &[u64] {
        &self.snapshots
    }

    /// Everything but its snapshots as bytes, the same for the same.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (method, answer) in &self.answers {
            bytes.extend_from_slice(method.as_bytes());
            match answer {
                Ok(answer) => {
                    bytes.push(0);
                    bytes.extend((answer.len() as u64).to_le_bytes());
                    bytes.extend_from_slice(answer);
                }
                Err(errno) => {
                    bytes.push(1);
                    bytes.extend(errno.to_le_bytes());
                }
            }
        }
        bytes
    }
}

impl Pool {
    /// What the header of the image with an id says.
    ///
    /// # Errors
    /// When there is no such image, or its header cannot be read.
    pub async fn header(&self, id: &str) -> Result<Header, RbdError> {
        self.call("read the header of", id, |handle, id| {
            let object = to_c(&format!("rbd_header.{}", id.to_string_lossy()))?;
            let of_image = NO_SNAPSHOT.to_le_bytes().to_vec();
            let features = [of_image.as_slice(), &[1]].concat();
            let metadata = [&0_u32.to_le_bytes()[..], &METADATA_MAX.to_le_bytes()].concat();
            let asked: [(&str, Vec<u8>); 8] = [
                ("get_object_prefix", Vec::new()),
                ("get_size", of_image),
                ("get_features", features),
                ("get_data_pool", Vec::new()),
                ("op_features_get", Vec::new()),
                ("parent_get", Vec::new()),
                ("image_group_get", Vec::new()),
                ("metadata_list", metadata),
            ];
            let mut answers = Vec::new();
            for (method, input) in asked {
                let answer = ask(handle, &object, method, &input)?;
                // Without its prefix there is no image.
                if answers.is_empty()
                    && let Err(errno) = answer
                {
                    return Err(errno);
                }
                answers.push((method, answer));
            }
            forget_clones(&mut answers);
            let snapshots = snapshots(&ask(handle, &object, "get_snapcontext", &[])??);
            Ok(Header { answers, snapshots })
        })
        .await
    }
}

/// Asks the class `rbd` something of an object.
fn ask(handle: &Handle, object: &CStr, method: &str, input: &[u8]) -> Result<Result<Vec<u8>, i32>, i32> {
    let (class, method) = (to_c("rbd")?, to_c(method)?);
    let mut answer = vec![0_u8; ANSWER_MAX];
    // SAFETY: the handle lives, the names end with a NUL, and both buffers have the lengths that are told.
    let got = unsafe {
        sys::rados_exec(
            handle.raw,
            object.as_ptr(),
            class.as_ptr(),
            method.as_ptr(),
            input.as_ptr().cast::<c_char>(),
            input.len(),
            answer.as_mut_ptr().cast::<c_char>(),
            answer.len(),
        )
    };
    Ok(check(got).map(|length| {
        answer.truncate(usize::try_from(length).unwrap_or(0));
        answer
    }))
}

/// The numbers of an image's snapshots in what `get_snapcontext` answers: the newest number, how many there are, and each.
fn snapshots(context: &[u8]) -> Vec<u64> {
    let numbers = context.get(12..).unwrap_or_default();
    numbers.as_chunks().0.iter().copied().map(u64::from_le_bytes).collect()
}

/// Leaves out whether somebody cloned a snapshot of the image, and whether one of those is in the trash: that comes and goes
/// with others, and says nothing of where the image's data are.
fn forget_clones(answers: &mut [(&'static str, Result<Vec<u8>, i32>)]) {
    let mut operations = 0;
    if let Some((_, Ok(bytes))) = answers.iter_mut().find(|(method, _)| *method == "op_features_get")
        && let Some(word) = bytes.first_chunk_mut::<8>()
    {
        operations = u64::from_le_bytes(*word) & !(CLONE_PARENT | SNAP_TRASH);
        *word = operations.to_le_bytes();
    }
    // "There are operations to know of": only because of those left out.
    if operations == 0
        && let Some((_, Ok(bytes))) = answers.iter_mut().find(|(method, _)| *method == "get_features")
    {
        for word in bytes.as_chunks_mut::<8>().0 {
            *word = (u64::from_le_bytes(*word) & !OPERATIONS).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_snapshots_are_found() {
        let context = [
            &9_u64.to_le_bytes()[..],
            &2_u32.to_le_bytes(),
            &[9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(snapshots(&context.concat()), [9, 4]);
        assert!(snapshots(&[0; 12]).is_empty() && snapshots(&[]).is_empty());
    }

    fn forgotten(features: u64, operations: u64) -> (u64, u64) {
        let pair = [features.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        let mut answers =
            [("get_features", Ok(pair)), ("op_features_get", Ok(operations.to_le_bytes().to_vec()))];
        forget_clones(&mut answers);
        let word = |index: usize| {
            u64::from_le_bytes(*answers[index].1.as_ref().unwrap().first_chunk::<8>().unwrap())
        };
        (word(0), word(1))
    }

    #[test]
    fn clones_of_snapshots_do_not_count_and_everything_else_does() {
        assert_eq!(forgotten(61, 0), (61, 0));
        assert_eq!(forgotten(61 | OPERATIONS, CLONE_PARENT | SNAP_TRASH), (61, 0));
        // Of a clone: what else would be forgotten is by whom it is to be removed from its parent.
        assert_eq!(forgotten(61 | OPERATIONS, CLONE_PARENT | 2), (61 | OPERATIONS, 2));
        assert_eq!(forgotten(61, 2), (61, 2));
        assert_eq!(forgotten(64, 4), (64, 4));
    }
}
