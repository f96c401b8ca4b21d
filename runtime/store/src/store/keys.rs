//! Every kind of key in the store, byte by byte; the numbers here never change.
//!
//! ```text
//! tag u8 | tenant u32 | pipeline u64 | stage u32 | group u16 | the rest, by kind
//! ```
//!
//! Numbers are big-endian, so that the order of bytes is the order of the numbers.
//!
//! | tag | kind | the rest |
//! |---|---|---|
//! | 1 | state | key escaped, slot |
//! | 2 | position | source u64 |
//! | 3 | backlog | offset u64 |
//! | 4 | dedup | id of an event |
//! | 5 | output | port u16, offset u64 |
//! | 6 | slot name | slot |
//! | 7 | account | name of the tenant |
//!
//! A key is escaped so that order stays and no key is the beginning of another: a zero byte is
//! written `00 FF`, and `00 00` ends it. What stands last needs neither.
//!
//! Keeps true: keys order as their [`Id`]s do, and an id has one key. What is read from disk is
//! checked; nothing is allocated beyond the bytes that are there. What values mean is for others.

use std::borrow::Cow;

use sluicebox_core::limits::{KEY_BYTES_MAX, KEY_GROUPS, NAME_BYTES_MAX, SLOT_BYTES_MAX};

/// Longest id of an event in a de-duplication entry.
pub const EVENT_ID_BYTES_MAX: usize = 2 * 1024;
/// Bytes before the part that differs by kind.
pub const PLACE_BYTES: usize = 1 + 4 + 8 + 4 + 2;

/// Numbers of the kinds. One that is taken out is never used again.
const STATE: u8 = 1;
const POSITION: u8 = 2;
const BACKLOG: u8 = 3;
const DEDUP: u8 = 4;
const OUTPUT: u8 = 5;
const SLOT_NAME: u8 = 6;
const ACCOUNT: u8 = 7;
const TAGS: [u8; 7] = [STATE, POSITION, BACKLOG, DEDUP, OUTPUT, SLOT_NAME, ACCOUNT];

/// Whose an entry is, and which part of the keys it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The tenant's number.
    pub tenant: u32,
    /// The pipeline's number.
    pub pipeline: u64,
    /// The stage's number, bound to its name at the first apply.
    pub stage: u32,
    /// The key group; for what is kept by partition, the first group the partition owns.
    pub group: u16,
}

/// What an entry is: the decoded form of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id<'a> {
    /// A slot of a key's state.
    State {
        /// Where.
        place: Place,
        /// The event's key.
        key: Cow<'a, [u8]>,
        /// The slot's name.
        slot: &'a [u8],
    },
    /// How far a reader has got in a source.
    Position {
        /// The reader.
        place: Place,
        /// The source's number.
        source: u64,
    },
    /// A run that waits to be handled.
    Backlog {
        /// Who is to handle it.
        place: Place,
        /// Its offset in the log.
        offset: u64,
    },
    /// An event that was taken before.
    Dedup {
        /// Where it was taken.
        place: Place,
        /// What its producer calls it.
        event: &'a [u8],
    },
    /// Where a record of an output is.
    Output {
        /// Who wrote it.
        place: Place,
        /// The port it left by.
        port: u16,
        /// Its offset.
        offset: u64,
    },
    /// A name that slots of a stage have.
    SlotName {
        /// Which stage; the group is 0, or 1 for: too many to name.
        place: Place,
        /// The name.
        slot: &'a [u8],
    },
    /// What a tenant has used.
    Account {
        /// Whose it is; of no pipeline.
        place: Place,
        /// The tenant's name.
        name: &'a [u8],
    },
}

impl<'a> Id<'a> {
    /// Appends the key to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::State { place, key, slot } => {
                put_state(out, *place, key, slot);
            }
            Self::Position { place, source } => {
                put_place(out, POSITION, *place);
                out.extend_from_slice(&source.to_be_bytes());
            }
            Self::Backlog { place, offset } => {
                put_place(out, BACKLOG, *place);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Self::Dedup { place, event } => {
                put_place(out, DEDUP, *place);
                out.extend_from_slice(event);
            }
            Self::Output { place, port, offset } => {
                put_place(out, OUTPUT, *place);
                out.extend_from_slice(&port.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Self::SlotName { place, slot } => {
                put_place(out, SLOT_NAME, *place);
                out.extend_from_slice(slot);
            }
            Self::Account { place, name } => {
                put_place(out, ACCOUNT, *place);
                out.extend_from_slice(name);
            }
        }
    }

    /// What a key stands for; `None` if it is none of ours.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (place, rest) = take_place(rest)?;
        let id = match *tag {
            STATE => {
                let (key, slot) = take_escaped(rest)?;
                let fits = key.len() <= KEY_BYTES_MAX && slot.len() <= SLOT_BYTES_MAX;
                return fits.then_some(Self::State { place, key, slot });
            }
            POSITION => Self::Position { place, source: u64::from_be_bytes(rest.try_into().ok()?) },
            BACKLOG => Self::Backlog { place, offset: u64::from_be_bytes(rest.try_into().ok()?) },
            DEDUP if rest.len() <= EVENT_ID_BYTES_MAX => Self::Dedup { place, event: rest },
            OUTPUT => {
                let (port, offset) = rest.split_first_chunk()?;
                let offset = u64::from_be_bytes(offset.try_into().ok()?);
                Self::Output { place, port: u16::from_be_bytes(*port), offset }
            }
            SLOT_NAME if rest.len() <= SLOT_BYTES_MAX => Self::SlotName { place, slot: rest },
            ACCOUNT if rest.len() <= NAME_BYTES_MAX => Self::Account { place, name: rest },
            _ => return None,
        };
        Some(id)
    }
}

/// Appends the key of a slot; for the path that every state write takes.
#[inline]
pub fn put_state(out: &mut Vec<u8>, place: Place, key: &[u8], slot: &[u8]) {
    debug_assert!(key.len() <= KEY_BYTES_MAX && slot.len() <= SLOT_BYTES_MAX);
    put_place(out, STATE, place);
    put_escaped(out, key);
    out.extend_from_slice(slot);
}

/// What all slots of a key begin with.
#[must_use]
pub fn slots_of(place: Place, key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(PLACE_BYTES + key.len() + 2);
    put_state(&mut prefix, place, key, b"");
    prefix
}

/// What the accounts of all tenants begin with.
#[must_use]
pub fn accounts() -> Vec<u8> {
    start(ACCOUNT, &[])
}

/// What everything of a tenant begins with, kind by kind.
pub fn of_tenant(tenant: u32) -> impl Iterator<Item = Vec<u8>> {
    TAGS.into_iter().map(move |tag| start(tag, &[&tenant.to_be_bytes()]))
}

/// What everything of a pipeline begins with, kind by kind.
pub fn of_pipeline(tenant: u32, pipeline: u64) -> impl Iterator<Item = Vec<u8>> {
    TAGS.into_iter().map(move |tag| start(tag, &[&tenant.to_be_bytes(), &pipeline.to_be_bytes()]))
}

/// The same for all kinds but state, which is read when it is needed.
pub fn of_pipeline_but_state(tenant: u32, pipeline: u64) -> impl Iterator<Item = Vec<u8>> {
    of_pipeline(tenant, pipeline).filter(|prefix| prefix[0] != STATE)
}

/// What all state of a stage begins with.
#[must_use]
pub fn state_of_stage(tenant: u32, pipeline: u64, stage: u32) -> Vec<u8> {
    start(STATE, &[&tenant.to_be_bytes(), &pipeline.to_be_bytes(), &stage.to_be_bytes()])
}

/// What all state of a stage in a key group begins with.
#[must_use]
pub fn state_of_group(place: Place) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(PLACE_BYTES);
    put_place(&mut prefix, STATE, place);
    prefix
}

/// What all state of a stage begins with, and what is noted of it. Other kinds may count something
/// else than stages.
pub fn all_state_of(tenant: u32, pipeline: u64, stage: u32) -> impl Iterator<Item = Vec<u8>> {
    [STATE, SLOT_NAME].into_iter().map(move |tag| {
        start(tag, &[&tenant.to_be_bytes(), &pipeline.to_be_bytes(), &stage.to_be_bytes()])
    })
}

fn start(tag: u8, numbers: &[&[u8]]) -> Vec<u8> {
    let mut prefix = vec![tag];
    numbers.iter().for_each(|number| prefix.extend_from_slice(number));
    prefix
}

#[inline]
fn put_place(out: &mut Vec<u8>, tag: u8, place: Place) {
    let mut head = [0; PLACE_BYTES];
    head[0] = tag;
    head[1..5].copy_from_slice(&place.tenant.to_be_bytes());
    head[5..13].copy_from_slice(&place.pipeline.to_be_bytes());
    head[13..17].copy_from_slice(&place.stage.to_be_bytes());
    head[17..].copy_from_slice(&place.group.to_be_bytes());
    out.extend_from_slice(&head);
}

fn take_place(bytes: &[u8]) -> Option<(Place, &[u8])> {
    let (tenant, bytes) = bytes.split_first_chunk()?;
    let (pipeline, bytes) = bytes.split_first_chunk()?;
    let (stage, bytes) = bytes.split_first_chunk()?;
    let (group, bytes) = bytes.split_first_chunk()?;
    let place = Place {
        tenant: u32::from_be_bytes(*tenant),
        pipeline: u64::from_be_bytes(*pipeline),
        stage: u32::from_be_bytes(*stage),
        group: u16::from_be_bytes(*group),
    };
    (place.group < KEY_GROUPS).then_some((place, bytes))
}

#[inline]
fn put_escaped(out: &mut Vec<u8>, key: &[u8]) {
    let mut pieces = key.split(|byte| *byte == 0);
    out.extend_from_slice(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.extend_from_slice(&[0, 0xFF]);
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(&[0, 0]);
}

/// The key, and what follows its end. Copied only if there is a zero byte in it.
fn take_escaped(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut at = 0;
    let mut plain: Option<Vec<u8>> = None;
    let mut piece_at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
        let piece = bytes.get(piece_at..at)?;
        let end = match bytes.get(at + 1)? {
            0 => true,
            0xFF => false,
            _ => return None,
        };
        at += 2;
        piece_at = at;
        if end {
            let key = match plain {
                None => Cow::Borrowed(piece),
                Some(mut plain) => {
                    plain.extend_from_slice(piece);
                    Cow::Owned(plain)
                }
            };
            return Some((key, bytes.get(at..)?));
        }
        let plain = plain.get_or_insert_default();
        plain.extend_from_slice(piece);
        plain.push(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = Place { tenant: 1, pipeline: 2, stage: 3, group: 4 };

    fn encoded(id: &Id<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        id.encode(&mut out);
        out
    }

    /// Short strings of few different bytes, so that beginnings and zero bytes meet often.
    fn bytes() -> impl Strategy<Value = &'static [u8]> {
        prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 0xFE, 0xFF]), 0..5)
            .prop_map(|bytes| &*Vec::leak(bytes))
    }

    fn place() -> impl Strategy<Value = Place> {
        let wide = prop::sample::select(vec![0_u64, 1, 255, 256, u64::from(u32::MAX), u64::MAX]);
        (0..3_u32, wide, prop::sample::select(vec![0, 1, u32::MAX]), 0..KEY_GROUPS)
            .prop_map(|(tenant, pipeline, stage, group)| Place { tenant, pipeline, stage, group })
    }

    fn id() -> impl Strategy<Value = Id<'static>> {
        let number = prop::sample::select(vec![0_u64, 1, 255, 256, 65_536, u64::MAX]);
        (0..6, place(), bytes(), bytes(), number).prop_map(|(kind, place, one, two, number)| {
            match kind {
                0 => Id::State { place, key: one.into(), slot: two },
                1 => Id::Position { place, source: number },
                2 => Id::Backlog { place, offset: number },
                3 => Id::Dedup { place, event: one },
                4 => Id::SlotName { place, slot: one },
                _ => Id::Output { place, port: number as u16, offset: number },
            }
        })
    }

    proptest! {
        #[test]
        fn keys_order_as_their_ids(a in id(), b in id()) {
            prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), a.cmp(&b), "{:?} {:?}", a, b);
        }

        #[test]
        fn slots_of_one_key_order_by_their_names(key in bytes(), a in bytes(), b in bytes()) {
            let of = |slot| encoded(&Id::State { place: PLACE, key: key.into(), slot });
            prop_assert_eq!(of(a).cmp(&of(b)), a.cmp(b));
            prop_assert!(of(a).starts_with(&slots_of(PLACE, key)));
        }

        #[test]
        fn no_key_has_slots_of_another(one in bytes(), other in bytes(), slot in bytes()) {
            let slots = encoded(&Id::State { place: PLACE, key: one.into(), slot });
            prop_assert_eq!(slots.starts_with(&slots_of(PLACE, other)), one == other);
        }

        #[test]
        fn an_id_is_read_back(id in id()) {
            let key = encoded(&id);
            prop_assert_eq!(Id::decode(&key), Some(id));
        }

        #[test]
        fn what_is_taken_is_what_would_be_written(
            tag in 0_u8..8, rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut key = encoded(&Id::Dedup { place: PLACE, event: &rest });
            key[0] = tag;
            if let Some(id) = Id::decode(&key) {
                prop_assert_eq!(encoded(&id), key);
            }
        }
    }

    #[test]
    fn version_one_is_as_it_always_was() {
        let place = Place { tenant: 0x0102_0304, pipeline: 0x0506_0708, stage: 9, group: 0x03FF };
        let head = [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 9, 3, 0xFF];
        let of = |tag: u8, rest: &[u8]| [&[tag], &head[..], rest].concat();
        let state = Id::State { place, key: b"a\0b"[..].into(), slot: b"s" };
        let offset = [0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(encoded(&state), of(1, b"a\0\xFFb\0\0s"));
        assert_eq!(encoded(&Id::Position { place, source: 256 }), of(2, &offset));
        assert_eq!(encoded(&Id::Backlog { place, offset: 256 }), of(3, &offset));
        assert_eq!(encoded(&Id::Dedup { place, event: b"e\0" }), of(4, b"e\0"));
        let output = [0, 7, 0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(encoded(&Id::Output { place, port: 7, offset: 256 }), of(5, &output));
        assert_eq!(encoded(&Id::SlotName { place, slot: b"s\0" }), of(6, b"s\0"));
    }

    #[test]
    fn everything_of_a_tenant_or_pipeline_begins_alike_and_all_state_of_a_stage() {
        for id in [
            Id::State { place: PLACE, key: b"k"[..].into(), slot: b"" },
            Id::Position { place: PLACE, source: 0 },
            Id::Backlog { place: PLACE, offset: 0 },
            Id::Dedup { place: PLACE, event: b"" },
            Id::Output { place: PLACE, port: 0, offset: 0 },
            Id::SlotName { place: PLACE, slot: b"" },
        ] {
            let key = encoded(&id);
            let begins = |prefix: Vec<u8>| key.starts_with(&prefix);
            assert_eq!(of_tenant(1).filter(|p| begins(p.clone())).count(), 1, "{id:?}");
            assert_eq!(of_pipeline(1, 2).filter(|p| begins(p.clone())).count(), 1, "{id:?}");
            let state = matches!(id, Id::State { .. });
            assert_eq!(begins(state_of_stage(1, 2, 3)), state, "{id:?}");
            assert_eq!(begins(state_of_group(PLACE)), state, "{id:?}");
            assert!(!of_tenant(2).any(begins) && !begins(state_of_stage(1, 2, 4)), "{id:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let key = encoded(&Id::State { place: PLACE, key: b"k"[..].into(), slot: b"s" });
        for length in 0..key.len() - 1 {
            assert_eq!(Id::decode(&key[..length]), None, "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut key = key.clone();
            key[at] = byte;
            key
        };
        for bad in [with(0, 0), with(0, 8), with(17, 4), with(key.len() - 2, 1)] {
            assert_eq!(Id::decode(&bad), None, "{bad:?}");
        }
        let long = vec![b'x'; EVENT_ID_BYTES_MAX + 1];
        assert_eq!(Id::decode(&encoded(&Id::Dedup { place: PLACE, event: &long })), None);
        let mut wide = Vec::new();
        put_place(&mut wide, STATE, PLACE);
        put_escaped(&mut wide, &long);
        assert_eq!(Id::decode(&wide), None);
    }
}
