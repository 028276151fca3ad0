//! Big-endian fields at fixed places. Reads outside the bytes give 0 and writes there do nothing, so that a short
//! buffer can never panic; callers check lengths where they matter.

/// `N` bytes at `at`, or zeros.
pub fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|part| part.try_into().ok())
        .unwrap_or([0; N])
}

/// The byte at `at`.
pub fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// Two bytes at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array_at(bytes, at))
}

/// Three bytes at `at`.
pub fn u24_at(bytes: &[u8], at: usize) -> u32 {
    let [a, b, c] = array_at(bytes, at);
    u32::from_be_bytes([0, a, b, c])
}

/// Four bytes at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

/// Eight bytes at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}

/// Writes `value` at `at`.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(part) = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        part.copy_from_slice(value);
    }
}

/// A length as the 32 bits a header holds. Lengths here come from buffers bounded far below that.
pub fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// A 32-bit length as an index.
pub fn index(of: u32) -> usize {
    usize::try_from(of).unwrap_or(usize::MAX)
}

/// Bytes of padding after a segment of `length` bytes (RFC 7143 section 11.2: to a multiple of 4).
pub fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

/// Serial number arithmetic (RFC 1982, RFC 7143 section 4.2.2.1): whether `a` comes before `b`.
pub fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 0x8000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_outside_the_bytes_are_zero() {
        assert_eq!(u32_at(&[1, 2, 3], 0), 0);
        assert_eq!(u64_at(&[], usize::MAX), 0);
        assert_eq!(u24_at(&[0, 1, 2, 3], 1), 0x01_02_03);
    }

    #[test]
    fn serial_numbers_wrap() {
        assert!(before(u32::MAX, 0));
        assert!(!before(0, u32::MAX));
        assert!(!before(7, 7));
    }
}
