//! Frames of connection sync: whatever the bytes, nothing panics.

#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| lb_userspace::sync::fuzz(frame));
