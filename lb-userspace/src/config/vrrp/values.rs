//! Single values of `[vrrp]`: the password, and intervals that a packet can carry.

use std::time::Duration;

use super::super::{code::Code, problem::Problem};
use crate::vrrp::{Version, interval::Interval, packet::Auth};

/// Reads the password of version 2.
pub(super) fn parse_auth(text: &str) -> Result<Auth, Problem> {
    Auth::pass(text).ok_or_else(|| {
        let (message, help) = match text.len() {
            0 => ("the password is empty".to_owned(), "remove the line to send none"),
            length => (
                format!("the password is {length} bytes long"),
                "VRRP carries 8 bytes; keepalived cuts a longer one: give its first 8 here",
            ),
        };
        Problem::new(Code::BadPassword, message, help)
    })
}

/// An advert interval, if a packet of the version can carry it.
pub(super) fn interval(version: Version, value: Duration) -> Result<Interval, (String, &'static str)> {
    let (what, help) = match version {
        Version::V2 => ("whole seconds from 1s to 255s", "use version 3 for less than a second, on all directors"),
        Version::V3 => ("hundredths of a second from 10ms to 40950ms", "give a multiple of 10ms, like `100ms`"),
    };
    let centis = u16::try_from(value.as_millis() / 10).ok().filter(|_| value.as_millis().is_multiple_of(10));
    centis
        .and_then(|centis| Interval::new(version, centis))
        .ok_or_else(|| (format!("version {} sends adverts in {what}", version.number()), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_what_the_packet_can_carry() {
        let centis = |version, millis| interval(version, Duration::from_millis(millis)).ok().map(Interval::centis);
        assert_eq!([centis(Version::V2, 1000), centis(Version::V2, 255_000)], [Some(100), Some(25_500)]);
        assert_eq!([centis(Version::V2, 100), centis(Version::V2, 1500), centis(Version::V2, 256_000)], [None; 3]);
        assert_eq!([centis(Version::V3, 10), centis(Version::V3, 40_950)], [Some(1), Some(4095)]);
        assert_eq!([centis(Version::V3, 5), centis(Version::V3, 15), centis(Version::V3, 40_960)], [None; 3]);
    }

    #[test]
    fn a_password_has_one_to_eight_bytes() {
        assert!(parse_auth("1").is_ok() && parse_auth("12345678").is_ok());
        assert!(parse_auth("").unwrap_err().help.contains("remove the line"));
        assert!(parse_auth("123456789").unwrap_err().message.contains("9 bytes"));
    }
}
