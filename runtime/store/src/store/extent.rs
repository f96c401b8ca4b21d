//! How far a store is complete, and the record that says so.
//!
//! Format 1, numbers little-endian, kept as a document (`header` draws what is around it):
//!
//! | bytes | what |
//! |---|---|
//! | 8 | horizon |
//! | 8 | reach, at least the horizon |
//! | 4 | number of metadata values; then for each, in the order of their names: |
//! | 2, n | length of the name, name in UTF-8 |
//! | 4, n | length of the value, value |
//!
//! It is replaced as a whole. Lengths are checked against what is there before they are believed.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Error;
use crate::store::{METADATA_BYTES_MAX, check_size};

/// Longest name of a metadata value.
const NAME_BYTES_MAX: usize = 128;

/// Up to where a store is complete, and up to where it may hold values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// All changes of the log before this position are in the store.
    pub horizon: u64,
    /// Some changes of the log before this position may be. Beyond the horizon only if a
    /// checkpoint did not get to its commit.
    pub reach: u64,
}

/// An extent with its metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) extent: Extent,
    pub(crate) metadata: BTreeMap<String, Bytes>,
}

impl Record {
    /// With `metadata` in the place of what there is.
    pub(crate) fn with(extent: Extent, metadata: &[(&str, &[u8])]) -> Result<Self, Error> {
        let bytes = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        check_size("metadata", bytes, METADATA_BYTES_MAX)?;
        for (name, _) in metadata {
            check_size("a name of metadata", name.len(), NAME_BYTES_MAX)?;
        }
        let owned = metadata.iter().map(|(name, value)| {
            let value = Bytes::copy_from_slice(value);
            (String::from(*name), value)
        });
        Ok(Self { extent, metadata: owned.collect() })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.extent.horizon.to_le_bytes());
        out.extend_from_slice(&self.extent.reach.to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u32).to_le_bytes());
        for (name, value) in &self.metadata {
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
        out
    }

    /// `None` if these bytes are not what `encode` writes.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let horizon = u64::from_le_bytes(chunk(rest)?);
        let reach = u64::from_le_bytes(chunk(rest)?);
        let count = u32::from_le_bytes(chunk(rest)?);
        let mut metadata: BTreeMap<String, Bytes> = BTreeMap::new();
        for _ in 0..count {
            let length = u16::from_le_bytes(chunk(rest)?);
            let name = std::str::from_utf8(take(rest, length.into())?).ok()?;
            let length = u32::from_le_bytes(chunk(rest)?);
            let value = take(rest, length as usize)?;
            let ascends = metadata.last_key_value().is_none_or(|(last, _)| last.as_str() < name);
            if !ascends {
                return None;
            }
            metadata.insert(name.to_owned(), Bytes::copy_from_slice(value));
        }
        let sound = bytes.is_empty() && horizon <= reach;
        sound.then_some(Self { extent: Extent { horizon, reach }, metadata })
    }
}

/// What bytes say of a store, written again; `None` if they say nothing. For the fuzzers.
#[cfg(any(test, feature = "contract"))]
#[must_use]
pub fn extent_again(bytes: &[u8]) -> Option<Vec<u8>> {
    Record::decode(bytes).map(|record| record.encode())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn chunk<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    take(bytes, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let extent = Extent { horizon: 0x0102, reach: 0x0103 };
        Record::with(extent, &[("tenants", b"\x01"), ("apply", b"")]).unwrap()
    }

    #[test]
    fn version_one_is_written_and_read_as_it_always_was() {
        let golden = b"\x02\x01\0\0\0\0\0\0\x03\x01\0\0\0\0\0\0\x02\0\0\0\
            \x05\0apply\0\0\0\0\x07\0tenants\x01\0\0\0\x01";
        assert_eq!(record().encode(), golden, "what is written is no longer format 1");
        assert_eq!(Record::decode(golden), Some(record()));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let bytes = record().encode();
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Record::decode(&[&bytes[..], b"\0"].concat()), None);
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            bytes
        };
        let order = with(22, b'z');
        for bad in [with(1, 2), with(16, 3), with(19, 0xFF), with(21, 0xFF), order] {
            assert_eq!(Record::decode(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn metadata_is_bounded() {
        let (long, large) = ("n".repeat(129), vec![0; METADATA_BYTES_MAX]);
        assert!(Record::with(Extent::default(), &[(&long, b"")]).is_err());
        assert!(Record::with(Extent::default(), &[("n", &large)]).is_err());
    }
}
