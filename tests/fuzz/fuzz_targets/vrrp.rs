//! Adverts: whatever the bytes, nothing panics, and what is accepted says what the bytes say and survives being sent.

#![no_main]

libfuzzer_sys::fuzz_target!(|packet: &[u8]| lb_userspace::vrrp::packet::fuzz(packet));
