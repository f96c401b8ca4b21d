//! The head of an image: what an instance is made of besides the pages, and of which code it is.
//!
//! ```text
//! version u8 | code 32 bytes | base 32 bytes
//! | memories n | pages of 64 KiB of each, n | globals n | value of each, n
//! | handles n  | of each: slot n, kind u8
//! ```
//!
//! `n` is a LEB128 number in its shortest form. Keeps true: what is read was written so, byte for
//! byte; nothing is reserved for what an image only claims to have.

use bytes::Bytes;

const VERSION: u8 = 1;

/// Memories an instance with an image may have.
pub(crate) const MEMORIES_MAX: usize = 16;

/// Values of all mutable globals of all core instances, one of 128 bits counted twice.
pub(crate) const GLOBALS_MAX: usize = 4096;

/// Handles of standard streams.
pub(crate) const HANDLES_MAX: usize = 64;

/// Pages of 64 KiB in 4 GiB.
const PAGES_MAX: u64 = 1 << 16;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The code the image is of.
    pub(crate) code: [u8; 32],
    /// What a fresh instance of it had in its memories and globals.
    pub(crate) base: [u8; 32],
    /// Size of each memory, in pages of 64 KiB.
    pub(crate) memories: Vec<u32>,
    /// Values of all mutable globals.
    pub(crate) globals: Vec<u64>,
    /// Standard streams the guest has open, by slot.
    pub(crate) handles: Vec<(u32, Standard)>,
}

/// A standard stream, as the host has it: output and error are the same log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standard {
    /// Standard input.
    In,
    /// Standard output or error.
    Out,
}

impl Head {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(96 + 3 * self.globals.len());
        out.push(VERSION);
        out.extend_from_slice(&self.code);
        out.extend_from_slice(&self.base);
        put(&mut out, self.memories.len() as u64);
        for pages in &self.memories {
            put(&mut out, u64::from(*pages));
        }
        put(&mut out, self.globals.len() as u64);
        for value in &self.globals {
            put(&mut out, *value);
        }
        put(&mut out, self.handles.len() as u64);
        for (slot, kind) in &self.handles {
            put(&mut out, u64::from(*slot));
            out.push(match kind {
                Standard::In => 0,
                Standard::Out => 1,
            });
        }
        out.into()
    }

    /// Nothing if the bytes are no head, or that of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let code = take(&mut rest)?;
        let base = take(&mut rest)?;
        let memories = many(&mut rest, MEMORIES_MAX, |rest| number(rest, PAGES_MAX))?;
        let memories = memories.into_iter().map(u32::try_from).collect::<Result<_, _>>().ok()?;
        let globals = many(&mut rest, GLOBALS_MAX, |rest| number(rest, u64::MAX))?;
        let handles = many(&mut rest, HANDLES_MAX, handle)?;
        let ordered = handles.is_sorted_by(|(one, _), (next, _)| one < next);
        (rest.is_empty() && ordered).then_some(Self { code, base, memories, globals, handles })
    }
}

fn handle(rest: &mut &[u8]) -> Option<(u32, Standard)> {
    let slot = number(rest, crate::host::HANDLES_MAX as u64 - 1)?;
    let kind = match take(rest)? {
        [0] => Standard::In,
        [1] => Standard::Out,
        _ => return None,
    };
    Some((u32::try_from(slot).ok()?, kind))
}

fn many<T>(
    rest: &mut &[u8],
    most: usize,
    read: impl Fn(&mut &[u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let count = number(rest, most as u64)?;
    (0..count).map(|_| read(rest)).collect()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number in its shortest form, at most `most`.
fn number(rest: &mut &[u8], most: u64) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return (value <= most).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heads() -> impl Strategy<Value = Head> {
        let handle = (0..1_000_u32, prop_oneof![Just(Standard::In), Just(Standard::Out)]);
        let handles = proptest::collection::btree_map(0..1_000_u32, handle, 0..5);
        let handles = handles.prop_map(|map| {
            map.into_iter().map(|(slot, (_, kind))| (slot, kind)).collect::<Vec<_>>()
        });
        let memories = proptest::collection::vec(0..=65_536_u32, 0..4);
        let globals = proptest::collection::vec(any::<u64>(), 0..9);
        (any::<[u8; 32]>(), any::<[u8; 32]>(), memories, globals, handles).prop_map(
            |(code, base, memories, globals, handles)| Head {
                code,
                base,
                memories,
                globals,
                handles,
            },
        )
    }

    proptest! {
        #[test]
        fn a_head_reads_back_as_it_was_written(head in heads()) {
            prop_assert_eq!(Head::decode(&head.encode()), Some(head));
        }

        #[test]
        fn what_is_read_was_written_so(head in heads(), at in 0..200_usize, byte: u8) {
            let mut bytes = head.encode().to_vec();
            // Cut before it is changed: what is changed may be whole without its last byte.
            prop_assert_eq!(Head::decode(&bytes[..bytes.len() - 1]), None);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Some(other) = Head::decode(&bytes) {
                prop_assert_eq!(&other.encode()[..], &bytes);
            }
        }
    }

    #[test]
    fn a_head_that_claims_more_than_fits_is_refused() {
        let head = Head {
            code: [1; 32],
            base: [2; 32],
            memories: vec![65_537],
            globals: Vec::new(),
            handles: Vec::new(),
        };
        assert_eq!(Head::decode(&head.encode()), None);
        let many = Head { memories: vec![1; 17], ..head.clone() };
        assert_eq!(Head::decode(&many.encode()), None);
        let globals = Head { memories: Vec::new(), globals: vec![0; GLOBALS_MAX + 1], ..head };
        assert_eq!(Head::decode(&globals.encode()), None);
    }
}
