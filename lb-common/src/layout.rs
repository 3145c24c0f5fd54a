//! The bridge between a map's bytes and a Rust type: no padding, every bit pattern checked on the way in.
//!
//! Map values cross a trust boundary when the agent adopts maps that another build pinned, so the agent reads them as
//! bytes and [`MapType::decode`] refuses a byte that is no variant of its enum, instead of trusting the layout.

use core::fmt;

/// A byte of a map value that is no variant of its enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The Rust type that was being read.
    pub type_name: &'static str,
    /// The offset of the byte in the value.
    pub offset: usize,
    /// What was found there.
    pub found: u8,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: byte {} is {}, which is no known value", self.type_name, self.offset, self.found)
    }
}

impl core::error::Error for Invalid {}

/// A key, a value or a record that the packet path and the agent exchange as bytes.
///
/// # Safety
///
/// The type is `repr(C)`, has no padding, and every bit pattern that passes `check` is a valid value.
/// [`map_type!`] asserts the first two at compile time and writes the third from the list of enum fields.
pub unsafe trait MapType: Copy {
    /// The size of the type in bytes.
    const SIZE: usize = size_of::<Self>();

    /// Refuses a byte that is no variant of the enum at its place.
    fn check(bytes: &[u8]) -> Result<(), Invalid>;

    /// Reads a value; `bytes` is exactly [`Self::SIZE`] long, else the missing byte is reported as invalid.
    fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() != Self::SIZE {
            return Err(Invalid { type_name: core::any::type_name::<Self>(), offset: bytes.len(), found: 0 });
        }
        Self::check(bytes)?;
        // SAFETY: the length was checked, the trait promises that checked bytes are a valid value.
        Ok(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// The bytes of the value, as the kernel stores them.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the type has no padding, so that all of its bytes are initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast::<u8>(), Self::SIZE) }
    }
}

/// Implements [`MapType`]: `map_type!(Conn, size = 64, enums = { dir: Direction, … })`.
macro_rules! map_type {
    ($type:ty, size = $size:expr, enums = { $($field:ident $(. $inner:ident)? : $enum:ty),* $(,)? }) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size, concat!("size of ", stringify!($type)));
        // SAFETY: repr(C) without padding (the size is the sum of the fields: asserted in the tests), enums checked.
        unsafe impl $crate::MapType for $type {
            fn check(bytes: &[u8]) -> Result<(), $crate::Invalid> {
                $(
                    let offset = core::mem::offset_of!($type, $field $(. $inner)?);
                    let found = bytes[offset];
                    if <$enum>::from_byte(found).is_none() {
                        return Err($crate::Invalid { type_name: stringify!($type), offset, found });
                    }
                )*
                let _ = bytes;
                Ok(())
            }
        }
        #[cfg(feature = "user")]
        // SAFETY: as above; aya only copies the bytes, and the agent reads them with `decode`.
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use map_type;

/// A fieldless `repr(u8)` enum that lives in map values: names for people, `from_byte` for the way back.
macro_rules! byte_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal => $text:expr),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $value),+ }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The variant of this number.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// The name people read.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(crate) use byte_enum;
