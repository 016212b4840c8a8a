//! Where some bytes are in others.
#![allow(unsafe_code)]

/// Where `needle` first is in `haystack`.
#[inline]
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (start, length) = (haystack.as_ptr(), haystack.len());
    // SAFETY: both slices are as long as said; what is found lies in the first.
    unsafe {
        let found = match needle {
            [byte] => libc::memchr(start.cast(), (*byte).into(), length),
            _ => libc::memmem(start.cast(), length, needle.as_ptr().cast(), needle.len()),
        };
        (!found.is_null()).then(|| found.cast::<u8>().cast_const().offset_from(start).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn finds_the_first() {
        assert_eq!(find(b"abcabc", b"c"), Some(2));
        assert_eq!(find(b"abcabc", b"ca"), Some(2));
        assert_eq!(find(b"abcabc", b"abc"), Some(0));
        assert_eq!(find(b"abcabc", b"d"), None);
        assert_eq!(find(b"ab", b"abc"), None);
        assert_eq!(find(b"", b"a"), None);
    }
}
