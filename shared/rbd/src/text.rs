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

/// So many texts of a buffer in which each ends with a NUL, empty ones too. Nothing when there are fewer.
pub(crate) fn all_texts(buffer: &[u8], count: usize) -> Option<Vec<String>> {
    let mut rest = buffer;
    let mut texts = Vec::new();
    for _ in 0..count {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (text, behind) = rest.split_at_checked(end)?;
        texts.push(String::from_utf8_lossy(text).into_owned());
        rest = behind.get(1..)?;
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_buffer_end_with_nul() {
        assert_eq!(each_text(b"one\0two\0\0\0"), ["one", "two"]);
        assert!(each_text(b"").is_empty());
        assert_eq!(all_texts(b"one\0\0two\0\0", 3).unwrap(), ["one", "", "two"]);
        assert_eq!(all_texts(b"\0", 1).unwrap(), [""]);
        assert_eq!((all_texts(b"one\0tw", 2), all_texts(b"", 1)), (None, None));
        assert_eq!(to_c("a\0b"), Err(-EINVAL));
    }
}
