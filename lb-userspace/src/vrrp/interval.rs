//! The advert interval and the times that follow from it (RFC 9568 §6.1, RFC 3768 §6.1).
//!
//! Everything is a [`Duration`] from the first step on: a skew time in whole seconds is zero, and all Backups of a
//! group then take over at the same instant.

use std::time::Duration;

use super::Version;

/// The pause between two adverts, as the packet carries it: in centiseconds, from 1 (10 ms) to 25,500 (255 s).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

impl Interval {
    /// One second, the default of both versions.
    pub const SECOND: Self = Self(100);

    /// An interval that `version` can express: whole seconds up to 255 in version 2, centiseconds up to 4095 in 3.
    #[must_use]
    pub const fn new(version: Version, centis: u16) -> Option<Self> {
        let fits = match version {
            Version::V2 => centis.is_multiple_of(100) && centis / 100 <= u8::MAX as u16,
            Version::V3 => centis <= 0x0fff,
        };
        if fits && centis != 0 { Some(Self(centis)) } else { None }
    }

    /// In hundredths of a second.
    #[must_use]
    pub const fn centis(self) -> u16 {
        self.0
    }

    /// The length of time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }

    /// How much longer than the others a Backup of this priority waits: the lower, the longer.
    #[must_use]
    pub fn skew(self, version: Version, priority: u8) -> Duration {
        let base = match version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.duration(),
        };
        base * (256 - u32::from(priority)) / 256
    }

    /// How long a Backup of this priority waits for an advert before it takes over.
    #[must_use]
    pub fn down(self, version: Version, priority: u8) -> Duration {
        self.duration() * 3 + self.skew(version, priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(version: Version, centis: u16, priority: u8) -> (u128, u128) {
        let interval = Interval::new(version, centis).unwrap();
        (interval.skew(version, priority).as_micros(), interval.down(version, priority).as_micros())
    }

    #[test]
    fn skew_and_down_time_follow_the_rfc_to_the_microsecond() {
        for (version, centis, priority, skew, down) in [
            (Version::V2, 100, 100, 609_375, 3_609_375),
            (Version::V2, 100, 254, 7_812, 3_007_812),
            (Version::V2, 300, 100, 609_375, 9_609_375),
            (Version::V3, 100, 100, 609_375, 3_609_375),
            (Version::V3, 10, 100, 60_937, 360_937),
            (Version::V3, 10, 254, 781, 300_781),
            (Version::V3, 1, 254, 78, 30_078),
            (Version::V3, 4095, 1, 40_790_039, 163_640_039),
        ] {
            assert_eq!(micros(version, centis, priority), (skew, down), "{version:?} {centis} cs, priority {priority}");
        }
    }

    #[test]
    fn a_version_takes_only_what_its_packet_can_carry() {
        let ok = |version, centis| Interval::new(version, centis).is_some();
        assert!(ok(Version::V2, 100) && ok(Version::V2, 25_500));
        assert!(!ok(Version::V2, 0) && !ok(Version::V2, 10) && !ok(Version::V2, 150) && !ok(Version::V2, 25_600));
        assert!(ok(Version::V3, 1) && ok(Version::V3, 4095));
        assert!(!ok(Version::V3, 0) && !ok(Version::V3, 4096));
    }
}
