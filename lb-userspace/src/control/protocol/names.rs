//! Enums of `lb-common` as JSON strings: the names that people, bpftool and the protocol share.

use lb_common::{
    backend::BackendState,
    conn::{Origin, Proto},
    service::Scheduler,
    tcp::State,
};
use serde::{Deserializer, Serializer, de};
use std::{fmt, marker::PhantomData};

/// An enum whose variants have names.
pub trait Named: Copy + 'static {
    /// Every variant.
    const VARIANTS: &'static [Self];
    /// What a variant is called.
    fn text(self) -> &'static str;
}

macro_rules! named {
    ($($type:ty),*) => {$(
        impl Named for $type {
            const VARIANTS: &'static [Self] = Self::ALL;
            fn text(self) -> &'static str {
                self.name()
            }
        }
    )*};
}
named!(BackendState, Origin, Proto, Scheduler, State);

fn list<T: Named>() -> String {
    T::VARIANTS.iter().map(|v| v.text()).collect::<Vec<_>>().join(", ")
}

/// The variant of this name in any case; for what people type.
///
/// # Errors
///
/// No variant has the name; the message lists them all.
pub fn parse<T: Named>(text: &str) -> Result<T, String> {
    let found = T::VARIANTS.iter().find(|v| v.text().eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| format!("expected one of {}", list::<T>()))
}

pub(super) fn serialize<T: Named, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(value.text())
}

pub(super) fn deserialize<'de, T: Named, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    struct Name<T>(PhantomData<T>);

    impl<T: Named> de::Visitor<'_> for Name<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of {}", list::<T>())
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            let found = T::VARIANTS.iter().find(|v| v.text() == text);
            found.copied().ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    from.deserialize_str(Name(PhantomData))
}

/// The same for a field that may be absent.
pub(super) mod option {
    use super::Named;
    use serde::{Deserializer, Serializer};

    pub(in super::super) fn serialize<T: Named, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, T: Named, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        super::deserialize(from).map(Some)
    }
}
