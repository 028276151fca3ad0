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
/// The longest answer, in bytes: names, ids and numbers. A longer one counts as a failure, and is never the same as a short
/// one.
const ANSWER_MAX: usize = 4096;
/// Metadata that are looked at, in keys: an image of ours has one. What more there are changes the first.
const METADATA_MAX: u64 = 64;

/// What decides where an image's data are, what belongs to it, and how it is opened: two headers that say the same are equal.
///
/// Snapshots are in it: who removes one has it removed from the whole pool, by a number that the header says. Metadata are in
/// it: those that begin with `conf_` are options of whoever opens the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(Vec<(&'static str, Result<Vec<u8>, i32>)>);

impl Header {
    /// It as bytes, the same for the same.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (method, answer) in &self.0 {
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
            let asked: [(&str, Vec<u8>); 9] = [
                ("get_object_prefix", Vec::new()),
                ("get_size", of_image),
                ("get_features", features),
                ("get_data_pool", Vec::new()),
                ("op_features_get", Vec::new()),
                ("parent_get", Vec::new()),
                ("image_group_get", Vec::new()),
                ("metadata_list", metadata),
                ("get_snapcontext", Vec::new()),
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
            let snapshots = match answers.last() {
                Some((_, Ok(context))) => snapshots(context),
                _ => Vec::new(),
            };
            for snapshot in snapshots {
                answers.push(("snapshot_get", ask(handle, &object, "snapshot_get", &snapshot)?));
            }
            Ok(Header(answers))
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

/// The numbers of an image's snapshots, as they are said back, in what `get_snapcontext` answers: the newest number, how many
/// there are, and each.
fn snapshots(context: &[u8]) -> Vec<[u8; 8]> {
    let numbers = context.get(12..).unwrap_or_default();
    numbers.as_chunks().0.to_vec()
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
        let found: Vec<u64> = snapshots(&context.concat()).into_iter().map(u64::from_le_bytes).collect();
        assert_eq!(found, [9, 4]);
        assert!(snapshots(&[0; 12]).is_empty() && snapshots(&[]).is_empty());
    }
}
