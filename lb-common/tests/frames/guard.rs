//! A page between two that can neither be read nor written.

/// What every machine of ours has, or a multiple of it.
const PAGE: usize = 65_536;

/// Room for one frame at a time.
pub(crate) struct Guarded {
    base: *mut u8,
}

impl Guarded {
    pub(crate) fn new() -> Self {
        // SAFETY: a new mapping, nothing else lies there.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), 3 * PAGE, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(base, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let base = base.cast::<u8>();
        // SAFETY: the middle of the mapping.
        let opened = unsafe { libc::mprotect(base.add(PAGE).cast(), PAGE, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(opened, 0, "mprotect: {}", std::io::Error::last_os_error());
        Self { base }
    }

    /// The frame, whose last byte is the page's.
    pub(crate) fn at_the_end(&mut self, frame: &[u8]) -> &mut [u8] {
        self.put(frame, 2 * PAGE - frame.len())
    }

    /// The frame, whose first byte is the page's.
    pub(crate) fn at_the_start(&mut self, frame: &[u8]) -> &mut [u8] {
        self.put(frame, PAGE)
    }

    fn put(&mut self, frame: &[u8], at: usize) -> &mut [u8] {
        assert!(frame.len() <= PAGE);
        // SAFETY: within the page that may be written; the slice borrows `self`.
        let place = unsafe { std::slice::from_raw_parts_mut(self.base.add(at), frame.len()) };
        place.copy_from_slice(frame);
        place
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; no slice of it lives on.
        unsafe { libc::munmap(self.base.cast(), 3 * PAGE) };
    }
}
