//! Values as they lie in a slot: short bytes, written and read without a schema.
//!
//! - What is read is what was written: the same value, and the same bytes for the same value.
//! - Reading never panics and never takes more than is there; bytes that no value of this type was
//!   written as give nothing.
//! - Integers take as many bytes as they need (7 bits a byte, the sign in the lowest bit), lists
//!   begin with their length.
//!
//! Aggregates of windows are kept like this. A type of the author's implements [`Kept`], or goes as
//! JSON with [`kept_as_json!`](crate::kept_as_json).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can be kept in a slot.
///
/// ```
/// use sluicebox_guest::Kept;
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Range {
///     low: i64,
///     high: i64,
/// }
///
/// impl Kept for Range {
///     fn write(&self, bytes: &mut Vec<u8>) {
///         (self.low, self.high).write(bytes);
///     }
///
///     fn read(bytes: &mut &[u8]) -> Option<Self> {
///         let (low, high) = Kept::read(bytes)?;
///         Some(Self { low, high })
///     }
/// }
///
/// let mut bytes = Vec::new();
/// Range { low: -3, high: 70 }.write(&mut bytes);
/// assert_eq!(Range::read(&mut &bytes[..]), Some(Range { low: -3, high: 70 }));
/// ```
pub trait Kept: Clone {
    /// Appends the value.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Takes a value off the front; nothing if none was written there.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

/// Lets a type be kept as JSON; it has to be `Clone`, `Serialize` and `DeserializeOwned`.
///
/// Longer than a [`Kept`] of its own, and slower; but a version of the type with more members
/// reads what an older one wrote, if serde does.
///
/// ```
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Payment {
///     cents: i64,
///     country: String,
/// }
///
/// sluicebox_guest::kept_as_json!(Payment);
/// ```
#[macro_export]
macro_rules! kept_as_json {
    ($type:ty) => {
        impl $crate::Kept for $type {
            fn write(&self, bytes: &mut Vec<u8>) {
                $crate::__private::write_json(self, bytes);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                $crate::__private::read_json(bytes)
            }
        }
    };
}

/// Appends a value as JSON. What cannot be written reads as nothing: then its event fails.
pub(crate) fn write_json(value: &impl Serialize, bytes: &mut Vec<u8>) {
    write_bytes(&serde_json::to_vec(value).unwrap_or_default(), bytes);
}

/// Takes a value as JSON off the front.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    serde_json::from_slice(read_bytes(bytes)?).ok()
}

/// Appends bytes with their length.
pub(crate) fn write_bytes(value: &[u8], bytes: &mut Vec<u8>) {
    (value.len() as u64).write(bytes);
    bytes.extend_from_slice(value);
}

/// Takes bytes with their length off the front.
pub(crate) fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u64::read(bytes)?).ok()?;
    let (value, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(value)
}

/// Reads a value that takes all of `bytes`.
pub(crate) fn read_all<T: Kept>(mut bytes: &[u8]) -> Option<T> {
    let value = T::read(&mut bytes)?;
    bytes.is_empty().then_some(value)
}

impl Kept for u64 {
    #[inline]
    fn write(&self, bytes: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }

    #[inline]
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut value = 0;
        for place in 0..10 {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            let part = Self::from(byte & 0x7f);
            let shifted = part << (7 * place);
            if shifted >> (7 * place) != part {
                return None;
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                // One value is written in one way only.
                return (*byte != 0 || place == 0).then_some(value);
            }
        }
        None
    }
}

impl Kept for i64 {
    fn write(&self, bytes: &mut Vec<u8>) {
        let folded = (self << 1) ^ (self >> 63);
        folded.cast_unsigned().write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let folded = u64::read(bytes)?;
        Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }
}

/// Integers that are written as a larger one.
macro_rules! kept_as {
    ($($own:ty as $larger:ty),*) => {$(
        impl Kept for $own {
            fn write(&self, bytes: &mut Vec<u8>) {
                <$larger>::from(*self).write(bytes);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Self::try_from(<$larger>::read(bytes)?).ok()
            }
        }
    )*};
}

kept_as!(u8 as u64, u16 as u64, u32 as u64, i32 as i64);

impl Kept for i128 {
    fn write(&self, bytes: &mut Vec<u8>) {
        // Nearly always it fits, and then the high half is one byte.
        ((self >> 64) as i64).write(bytes);
        (*self as u64).write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let high = i64::read(bytes)?;
        Some(Self::from(high) << 64 | Self::from(u64::read(bytes)?))
    }
}

impl Kept for f64 {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (value, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self::from_le_bytes(*value))
    }
}

impl Kept for bool {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        match byte {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Kept for String {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        std::str::from_utf8(read_bytes(bytes)?).ok().map(Self::from)
    }
}

impl Kept for () {
    fn write(&self, _: &mut Vec<u8>) {}

    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<T: Kept> Kept for Option<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.is_some().write(bytes);
        if let Some(value) = self {
            value.write(bytes);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        if bool::read(bytes)? { T::read(bytes).map(Some) } else { Some(None) }
    }
}

impl<A: Kept, B: Kept> Kept for (A, B) {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        self.1.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?))
    }
}

impl<A: Kept, B: Kept, C: Kept> Kept for (A, B, C) {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        self.1.write(bytes);
        self.2.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?, C::read(bytes)?))
    }
}

/// Takes a list off the front. Room is made as items are found, not as the length says.
fn read_list<T: Kept, L: Default + Extend<T>>(bytes: &mut &[u8]) -> Option<L> {
    let mut list = L::default();
    for _ in 0..u64::read(bytes)? {
        // Only `()` takes no bytes; nobody keeps lists of that.
        if bytes.is_empty() {
            return None;
        }
        list.extend([T::read(bytes)?]);
    }
    Some(list)
}

impl<T: Kept> Kept for Vec<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.len() as u64).write(bytes);
        self.iter().for_each(|item| item.write(bytes));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        read_list(bytes)
    }
}

impl<T: Kept + Ord> Kept for BTreeSet<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.len() as u64).write(bytes);
        self.iter().for_each(|item| item.write(bytes));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        read_list(bytes)
    }
}

impl<K: Kept + Ord, V: Kept> Kept for BTreeMap<K, V> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.len() as u64).write(bytes);
        for (key, value) in self {
            key.write(bytes);
            value.write(bytes);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        read_list(bytes)
    }
}
