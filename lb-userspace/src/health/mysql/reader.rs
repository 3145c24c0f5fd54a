//! Reads the fields of a payload; each read can fail, none panics.

/// What is left of a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).and_then(|bytes| bytes.first()).copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)
    }

    /// Up to a zero byte, which is skipped; all of it if there is none.
    pub(super) fn until_nul(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        text
    }

    /// A length-encoded integer. The bytes that stand for NULL and errors are none.
    pub(super) fn length(&mut self) -> Option<u64> {
        let wide = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        match self.byte()? {
            0xfb | 0xff => None,
            0xfc => self.take(2).map(wide),
            0xfd => self.take(3).map(wide),
            0xfe => self.take(8).map(wide),
            small => Some(u64::from(small)),
        }
    }

    /// A text with its length before it.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(usize::try_from(length).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_in_four_widths() {
        for (bytes, value) in [
            (&[0x00][..], Some(0)),
            (&[0xfa], Some(250)),
            (&[0xfb], None),
            (&[0xfc, 0x34, 0x12], Some(0x1234)),
            (&[0xfd, 0x56, 0x34, 0x12], Some(0x12_3456)),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 0x80], Some(0x8000_0000_0000_0001)),
            (&[0xff], None),
            (&[0xfc, 1], None),
            (&[], None),
        ] {
            assert_eq!(Reader(bytes).length(), value, "{bytes:?}");
        }
    }

    #[test]
    fn a_text_longer_than_the_payload_is_none() {
        assert_eq!(Reader(b"\x03ab").text(), None);
        assert_eq!(Reader(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 255]).text(), None);
        assert_eq!(Reader(b"\x02abc").text(), Some(&b"ab"[..]));
        let mut reader = Reader(b"ab\0cd");
        assert_eq!((reader.until_nul(), reader.until_nul(), reader.until_nul()), (&b"ab"[..], &b"cd"[..], &b""[..]));
    }
}
