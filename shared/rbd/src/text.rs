//! Texts on their way to the library and back.

use std::ffi::{CStr, CString};
use std::os::raw::c_char;

/// `EINVAL`: a text with a NUL in it cannot be said to the library.
const EINVAL: i32 = 22;

pub(crate) fn to_c(text: &str) -> Result<CString, i32> {
    CString::new(text).map_err(|_| -EINVAL)
}

/// A text of the library, copied. What is no UTF-8 is replaced: names of ours are.
///
/// # Safety
/// The pointer is null, or leads to a text with a NUL at its end that nobody changes meanwhile.
pub(crate) unsafe fn from_c(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and what the caller promises is what is needed.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// The texts of a buffer in which each ends with a NUL.
pub(crate) fn each_text(buffer: &[u8]) -> Vec<String> {
    let texts = buffer.split(|byte| *byte == 0).filter(|text| !text.is_empty());
    texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_buffer_end_with_nul() {
        assert_eq!(each_text(b"one\0two\0\0\0"), ["one", "two"]);
        assert!(each_text(b"").is_empty());
        assert_eq!(to_c("a\0b"), Err(-EINVAL));
    }
}
