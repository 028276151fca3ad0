//! The header of an image, as the OSD tells it: read without opening the image, which would act on what is in it.
//!
//! Who may write to an image can write anything into its header: another image's parent, another image's objects, a place to
//! migrate from. So who opens it with more rights looks first whether the header says what it said before.

use std::os::raw::c_char;

use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::Pool;
use crate::sys;
use crate::text::to_c;

/// "Of the image itself, not of a snapshot" (`CEPH_NOSNAP`).
const NO_SNAPSHOT: u64 = u64::MAX - 1;
/// The longest answer, in bytes: names, ids and numbers.
const ANSWER_MAX: usize = 4096;

/// What decides where an image's data are, and what belongs to it: two headers that say the same are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(Vec<(&'static str, Result<Vec<u8>, i32>)>);

impl Header {
    /// The features of the image, as the bits that `rbd/features.h` gives them.
    #[must_use]
    pub fn features(&self) -> Option<u64> {
        let (_, answer) = self.0.iter().find(|(method, _)| *method == "get_features")?;
        // Behind them come those without which it cannot be read.
        let (features, _) = answer.as_ref().ok()?.split_first_chunk()?;
        Some(u64::from_le_bytes(*features))
    }

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
            let class = to_c("rbd")?;
            let of_image = NO_SNAPSHOT.to_le_bytes().to_vec();
            let features = [of_image.as_slice(), &[1]].concat();
            let asked: [(&str, Vec<u8>); 6] = [
                ("get_object_prefix", Vec::new()),
                ("get_size", of_image),
                ("get_features", features),
                ("get_data_pool", Vec::new()),
                ("op_features_get", Vec::new()),
                ("parent_get", Vec::new()),
            ];
            let mut answers = Vec::new();
            for (method, input) in asked {
                let name = to_c(method)?;
                let mut answer = vec![0_u8; ANSWER_MAX];
                // SAFETY: the handle lives, the names end with a NUL, and both buffers have the lengths that are told.
                let got = unsafe {
                    sys::rados_exec(
                        handle.raw,
                        object.as_ptr(),
                        class.as_ptr(),
                        name.as_ptr(),
                        input.as_ptr().cast::<c_char>(),
                        input.len(),
                        answer.as_mut_ptr().cast::<c_char>(),
                        answer.len(),
                    )
                };
                let answer = check(got).map(|length| {
                    answer.truncate(usize::try_from(length).unwrap_or(0));
                    answer
                });
                // Without its prefix there is no image.
                if answers.is_empty()
                    && let Err(errno) = answer
                {
                    return Err(errno);
                }
                answers.push((method, answer));
            }
            Ok(Header(answers))
        })
        .await
    }
}
