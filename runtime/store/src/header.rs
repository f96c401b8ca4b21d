//! The first bytes of every stored file, and the check of all that follow.
//!
//! Format 1, numbers little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `SBXDOC`, carriage return, line feed |
//! | 8 | 2 | format: 1 |
//! | 10 | 2 | minimum reader: the oldest format whose readers understand this file |
//! | 12 | 4 | header bytes: 56; where the value begins |
//! | 16 | 8 | value bytes |
//! | 24 | 32 | BLAKE3 over header bytes 0 to 23 and from 56 on, key bytes as 4 bytes, key, value |
//!
//! A later format may lengthen the header and leave the minimum reader at 1; this reader then
//! skips what it does not know, up to 4 KiB of it. A minimum reader above what we know is refused
//! before anything else is believed. The key is in the check, so a file under another's name is
//! damage, not data.

use bytes::Bytes;

use crate::error::Error;
use crate::key::Key;

/// The format written, and the newest one read.
pub const FORMAT: u16 = 1;
/// Bytes of a header of format 1.
pub const HEADER_BYTES: usize = 56;
/// The longest header of any later format that lets us read it.
pub const HEADER_BYTES_MAX: usize = 4096;

const MAGIC: [u8; 8] = *b"SBXDOC\r\n";
/// Where the checksum is.
const SUM_AT: usize = 24;

/// The header of a value about to be written under `key`.
#[must_use]
pub fn header_of(key: &Key, value: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    header[10..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    header[16..24].copy_from_slice(&(value.len() as u64).to_le_bytes());
    let sum = sum(&header, key, value);
    header[SUM_AT..HEADER_BYTES].copy_from_slice(sum.as_bytes());
    header
}

/// Checks a whole file and gives the value in it, without copying.
///
/// # Errors
/// [`Error::FormatNewer`], or [`Error::Corrupt`] with what is wrong.
pub fn value_of(key: &Key, file: Bytes) -> Result<Bytes, Error> {
    let corrupt = |what| Error::Corrupt { key: key.clone(), what };
    let Some((head, _)) = file.split_first_chunk::<HEADER_BYTES>() else {
        return Err(corrupt("the file ends inside its header"));
    };
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    if head[..8] != MAGIC {
        return Err(corrupt("it does not begin as a stored document"));
    }
    let (format, reader_min) = (u16_at(8), u16_at(10));
    if reader_min > FORMAT {
        let key = key.clone();
        return Err(Error::FormatNewer { key, format, reader_min, supported: FORMAT });
    }
    let header_bytes = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
    let known = if format == FORMAT { HEADER_BYTES } else { HEADER_BYTES_MAX };
    if format == 0 || reader_min == 0 || !(HEADER_BYTES..=known).contains(&header_bytes) {
        return Err(corrupt("its header contradicts itself"));
    }
    if file.len() < header_bytes {
        return Err(corrupt("the file ends inside its header"));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&head[16..24]);
    match (file.len() - header_bytes) as u64 {
        there if there < u64::from_le_bytes(length) => return Err(corrupt("its end is missing")),
        there if there > u64::from_le_bytes(length) => {
            return Err(corrupt("it goes on after its end"));
        }
        _ => {}
    }
    let expected = sum(&file[..header_bytes], key, &file[header_bytes..]);
    if expected.as_bytes()[..] != head[SUM_AT..] {
        return Err(corrupt("its checksum does not match its key and contents"));
    }
    Ok(file.slice(header_bytes..))
}

/// The checksum; the header may be longer than ours, its checksum field is left out.
fn sum(header: &[u8], key: &Key, value: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[..SUM_AT]);
    hasher.update(&header[HEADER_BYTES..]);
    hasher.update(&(key.as_str().len() as u32).to_le_bytes());
    hasher.update(key.as_str().as_bytes());
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("tenants/dev/greeting").unwrap()
    }

    fn file() -> Vec<u8> {
        [&header_of(&key(), b"hello, stored world\n")[..], b"hello, stored world\n"].concat()
    }

    fn read(file: Vec<u8>) -> Result<Bytes, Error> {
        value_of(&key(), file.into())
    }

    #[test]
    fn version_one_is_written_and_read_as_it_always_was() {
        let golden = include_bytes!("../testdata/document-v1.bin");
        assert_eq!(&read(golden.to_vec()).unwrap()[..], b"hello, stored world\n");
        assert_eq!(file(), golden, "what is written is no longer format 1");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for at in 0..file().len() * 8 {
            let mut file = file();
            file[at / 8] ^= 1 << (at % 8);
            assert!(read(file).is_err(), "bit {at} flipped and nobody noticed");
        }
    }

    #[test]
    fn every_missing_end_is_noticed() {
        for len in 0..file().len() {
            assert!(matches!(read(file()[..len].to_vec()), Err(Error::Corrupt { .. })), "{len}");
        }
        let mut longer = file();
        longer.push(0);
        assert!(matches!(read(longer), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn a_file_of_another_key_is_refused() {
        let other = Key::new("tenants/other/greeting").unwrap();
        assert!(matches!(value_of(&other, file().into()), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let mut newer = file();
        newer[8..12].copy_from_slice(&[7, 0, 5, 0]);
        let Err(Error::FormatNewer { format, reader_min, supported, .. }) = read(newer) else {
            panic!("not refused as newer");
        };
        assert_eq!((format, reader_min, supported), (7, 5, FORMAT));
    }

    #[test]
    fn a_newer_format_that_lets_us_read_it_is_read() {
        let value = b"from the future";
        let mut header = header_of(&key(), value).to_vec();
        header[8] = 2;
        header[12] = 60;
        header.extend(*b"more");
        let sum = sum(&header, &key(), value);
        header[SUM_AT..HEADER_BYTES].copy_from_slice(sum.as_bytes());
        assert_eq!(&read([&header[..], value].concat()).unwrap()[..], value);
        header[56] ^= 1;
        assert!(read([&header[..], value].concat()).is_err(), "the longer header is not checked");
    }

    #[test]
    fn header_lengths_that_cannot_be_are_refused() {
        for bytes in [0_u32, 55, 57, 4097, u32::MAX] {
            let mut file = file();
            file[12..16].copy_from_slice(&bytes.to_le_bytes());
            assert!(matches!(read(file), Err(Error::Corrupt { .. })), "{bytes}");
        }
    }
}
