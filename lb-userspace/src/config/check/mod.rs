//! `[service.check]`: how the backends of a service are checked. Reading is `read`, single values are `values`; the
//! result is [`Plan`] itself. Whether the password's file can be read is a question for run time.

mod read;
mod values;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::duration::format_duration;
use crate::health::Plan;

pub(super) use read::{CheckDraft, read, validate};

/// Shows a check as the file has it. The password is not in it: only the path of its file.
pub(super) fn show<S: Serializer>(check: &Option<Plan>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(plan) = check else { return serializer.serialize_none() };
    let Plan { level, cadence, user, password_file, tls, tls_ca, tls_name, condition, relogin } = plan;
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("level", level.name())?;
    optional(&mut map, "user", user.as_ref())?;
    optional(&mut map, "password_file", password_file.as_ref())?;
    map.serialize_entry("tls", tls.name())?;
    optional(&mut map, "tls_ca", tls_ca.as_ref())?;
    optional(&mut map, "tls_name", tls_name.as_ref())?;
    if !condition.is_empty() {
        map.serialize_entry("condition", &condition.to_string())?;
    }
    optional(&mut map, "sql", condition.own.as_ref().map(|own| &own.sql))?;
    optional(&mut map, "expect", condition.own.as_ref().and_then(|own| own.expect.as_ref()))?;
    for (key, value) in [
        ("inter", cadence.inter),
        ("fastinter", cadence.fastinter),
        ("downinter", cadence.downinter),
        ("timeout", cadence.timeout),
        ("relogin", *relogin),
    ] {
        map.serialize_entry(key, &format_duration(value))?;
    }
    for (key, value) in [("rise", cadence.rise), ("fall", cadence.fall), ("jitter", cadence.jitter)] {
        map.serialize_entry(key, &value)?;
    }
    map.end()
}

fn optional<M: serde::ser::SerializeMap, T: Serialize>(
    map: &mut M,
    key: &str,
    value: Option<T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(key, &value))
}
