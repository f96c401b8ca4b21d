//! What is kept of an open stream, so that its instance can be made again.
//!
//! ```text
//! key of the stream │ m  its life so far                      │ n  the history's numbers
//!                   │ h  p… image: head, pages                │ s  t  slots and timers of then
//!                   │ j… history: each call since the image, with time, watermark and seed
//! ```
//!
//! - All of it are hosted slots (`state/hosted.rs`) of the stream's key in the state of its stage.
//!   So it is part of the commit, taken back with it, written, kept, moved and loaded with the key,
//!   and goes with it when the stream ends.
//! - An instance is made again from the image and the calls since. What it did is not done again:
//!   its calls see the state and timers of then, what they emit is dropped, and afterwards what
//!   they left must be what there is.
//! - The history is at most about as long as the image, or [`IMAGE_AFTER`]: then an image takes its
//!   place, in which only pages that changed are written. Without images it grows up to the stage's
//!   `replay-bytes-max`; a stream beyond that lives as long as its instance.
//! - A call whose events had attachments cannot be made again: they are over with its batch. The
//!   history ends there as if it were too long, and an image is wanted with the batch.
//!
//! When an instance is made again, and when an image is taken, is for the worker to do.

use bytes::Bytes;

use crate::codec::put_frame;
use crate::codec::wire::{self, Reader};
use crate::frame::{Event, Frame, Kind, expand, field};
use crate::image::Image;
use crate::layer::Layer;
use crate::state::{HOSTED, KeyedState};

/// Bytes of history that are never worth an image.
pub(super) const IMAGE_AFTER: u64 = 64 * 1024;

/// Names of the slots; those of pages and calls have a number behind.
const LIFE: &[u8] = &[HOSTED, b'm'];
const NUMBERS: &[u8] = &[HOSTED, b'n'];
const HEAD: &[u8] = &[HOSTED, b'h'];
const PAGE: &[u8] = &[HOSTED, b'p'];
const SLOTS: &[u8] = &[HOSTED, b's'];
const TIMERS: &[u8] = &[HOSTED, b't'];
const CALL: &[u8] = &[HOSTED, b'j'];

/// A stream since it opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Life {
    /// Tells a key's successive streams apart.
    pub serial: u64,
    /// The code it opened with; it is in the index of open streams.
    pub code: u32,
    /// When it opened, in microseconds.
    pub opened_at: u64,
    /// When its last event was taken.
    pub last_at: u64,
    /// Events taken.
    pub events: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Where its history is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Numbers {
    /// The number of the next call.
    next: u64,
    /// Bytes of the calls that are kept; if none are, of those since an image was wanted.
    bytes: u64,
    /// Bytes of the image.
    image: u64,
    /// Nothing is kept any more: there was too much, or attachments.
    given_up: bool,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Its events.
    pub frame: Frame,
    /// The time it saw.
    pub time: u64,
    /// The watermark it saw, where there is event time.
    pub watermark: Option<u64>,
    /// What its randomness grew from.
    pub seed: u64,
}

/// What the instance of a stream is made again from.
#[derive(Debug)]
pub struct Revival {
    /// Its memory; without one it begins as every instance does.
    pub image: Option<Image>,
    /// The calls since, in order.
    pub calls: Vec<Replay>,
    slots: Bytes,
    timers: Bytes,
}

/// Why there is nothing to make an instance of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRevival {
    /// More came than may be replayed, or what cannot be, and there could be no image.
    #[error(
        "its instance is gone, and what came since it opened is more than stream.replay-bytes-max, \
         or had attachments"
    )]
    GivenUp,
    /// What is kept is not what was written.
    #[error("its instance is gone, and what is kept of it cannot be read")]
    Damaged,
}

/// The life of the open stream of a key, if there is one.
pub(super) fn life(state: &KeyedState, key: &[u8]) -> Option<Life> {
    let [serial, opened_at, last_at, events, bytes] = numbers(state.hosted(key, LIFE)?)?;
    Some(Life { serial, code: 0, opened_at, last_at, events, bytes })
}

/// Writes it.
pub(super) fn set_life(state: &mut KeyedState, key: &[u8], life: &Life) {
    let Life { serial, opened_at, last_at, events, bytes, .. } = *life;
    put_numbers(state, (key, LIFE), &[serial, opened_at, last_at, events, bytes]);
}

/// Adds a call that stands to the history of its stream. True if it is time for an image: of a
/// history that is given up as well, now and then, since an image is all that could help it.
pub(super) fn add(
    state: &mut KeyedState,
    key: &[u8],
    call: &Replay,
    replay_bytes_max: u64,
) -> bool {
    let written = state.hosted(key, NUMBERS);
    let mut at = written.map_or_else(|| Some(Numbers::default()), Numbers::read);
    let Some(at) = at.as_mut() else { return false };
    let mut entry = Vec::new();
    wire::put(&mut entry, call.time);
    wire::put(&mut entry, call.watermark.map_or(0, |watermark| watermark + 1));
    entry.extend_from_slice(&call.seed.to_le_bytes());
    put_frame(&call.frame, &mut entry);
    let bytes = at.bytes + entry.len() as u64;
    let mut is_long = bytes >= at.image.max(IMAGE_AFTER);
    if at.given_up {
        at.bytes = if is_long { 0 } else { bytes };
    } else if bytes > replay_bytes_max || has_attachments(&call.frame) {
        for part in [HEAD, PAGE, SLOTS, TIMERS, CALL] {
            state.clear_hosted(key, part);
        }
        (at.given_up, at.image, at.bytes) = (true, 0, 0);
        is_long = true;
    } else {
        state.put_hosted(key, &numbered(CALL, at.next), &entry);
        (at.next, at.bytes) = (at.next + 1, bytes);
    }
    at.write(state, key);
    is_long
}

/// Puts an image of the stream as it is now in the place of its history.
pub(super) fn set_image(layer: &mut Layer, key: &[u8], image: &Image) {
    let timers = write_slots(layer.timers_ref().state(), key);
    let state = layer.state();
    let mut at = state.hosted(key, NUMBERS).and_then(Numbers::read).unwrap_or_default();
    state.clear_hosted(key, CALL);
    let known: Vec<Vec<u8>> = state.hosted_from(key, PAGE).map(|(name, _)| name.to_vec()).collect();
    for name in known {
        let page = number_of(&name, PAGE).and_then(|page| u32::try_from(page).ok());
        if page.is_none_or(|page| !image.pages.contains_key(&page)) {
            state.delete_hosted(key, &name);
        }
    }
    at.image = image.head.len() as u64;
    for (page, bytes) in &image.pages {
        let name = numbered(PAGE, u64::from(*page));
        if state.hosted(key, &name) != Some(&bytes[..]) {
            state.put_hosted(key, &name, bytes);
        }
        at.image += bytes.len() as u64;
    }
    if state.hosted(key, HEAD) != Some(&image.head[..]) {
        state.put_hosted(key, HEAD, &image.head);
    }
    for (part, slots) in [(SLOTS, write_slots(state, key)), (TIMERS, timers)] {
        if state.hosted(key, part).unwrap_or_default() != slots {
            state.put_hosted(key, part, &slots);
        }
    }
    (at.bytes, at.given_up) = (0, false);
    at.write(state, key);
}

impl Revival {
    /// Reads what is kept of the stream of a key.
    pub(super) fn read(state: &KeyedState, key: &[u8]) -> Result<Self, NoRevival> {
        let at = state.hosted(key, NUMBERS).and_then(Numbers::read).ok_or(NoRevival::Damaged)?;
        if at.given_up {
            return Err(NoRevival::GivenUp);
        }
        let mut calls = Vec::new();
        for (_, entry) in state.hosted_from(key, CALL) {
            calls.push(read_call(entry).ok_or(NoRevival::Damaged)?);
        }
        let mut image = None;
        if let Some(head) = state.hosted(key, HEAD) {
            let mut found = Image { head: Bytes::copy_from_slice(head), pages: Default::default() };
            for (name, bytes) in state.hosted_from(key, PAGE) {
                let page = number_of(name, PAGE).and_then(|page| u32::try_from(page).ok());
                let page = page.ok_or(NoRevival::Damaged)?;
                found.pages.insert(page, Bytes::copy_from_slice(bytes));
            }
            image = Some(found);
        }
        if image.is_none() && calls.is_empty() {
            return Err(NoRevival::Damaged);
        }
        let part = |name| Bytes::copy_from_slice(state.hosted(key, name).unwrap_or_default());
        let (slots, timers) = (part(SLOTS), part(TIMERS));
        Ok(Self { image, calls, slots, timers })
    }

    /// What the calls are made with: a layer like that of the stage, with the state of then and
    /// nobody who takes what is emitted.
    #[must_use]
    pub fn layer(&self, like: &Layer, key: &[u8]) -> Box<Layer> {
        let mut layer = like.aside();
        let state = layer.state();
        each_slot(&self.slots, |slot, value| state.restore(key, slot, value));
        let timers = layer.timers();
        each_slot(&self.timers, |slot, value| timers.restore(key, slot, Some(value)));
        Box::new(layer)
    }

    /// Begins one of the calls, with what it saw. Timers are gone before the first call of the
    /// batch in which they fire, those and no other that was set under the name.
    pub fn begin(&self, layer: &mut Layer, at: usize) {
        let call = &self.calls[at];
        layer.state().set_now(call.time);
        let timers = layer.timers();
        timers.set_watermark(call.watermark);
        let of_batch = |other: &&Replay| (other.time, other.seed) == (call.time, call.seed);
        let is_first = at.checked_sub(1).is_none_or(|before| !of_batch(&&self.calls[before]));
        let batch = self.calls[at..].iter().take_while(of_batch).filter(|_| is_first);
        for event in batch.flat_map(|call| call.frame.events()) {
            if event.head.kind == Kind::Timer {
                timers.take(event.key, event.payload, event.head.time);
            }
        }
        layer.begin(call.frame.clone());
    }

    /// True if the replayed calls left the state that there is now, for the stream of `key`. Timers
    /// that are due may be gone: they fire in the batch under way, or came to nothing before.
    #[must_use]
    pub fn agrees(replayed: &Layer, now: &Layer, key: &[u8]) -> bool {
        let slots = |layer: &Layer| write_slots(layer.state_ref(), key);
        let time = replayed.state_ref().now().max(now.state_ref().now());
        slots(replayed) == slots(now)
            && now.timers_ref().are_left_of(replayed.timers_ref(), key, time)
    }
}

impl Numbers {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [next, bytes, image, given_up] = numbers(bytes)?;
        Some(Self { next, bytes, image, given_up: given_up != 0 })
    }

    fn write(&self, state: &mut KeyedState, key: &[u8]) {
        let Self { next, bytes, image, given_up } = *self;
        put_numbers(state, (key, NUMBERS), &[next, bytes, image, given_up.into()]);
    }
}

fn has_attachments(frame: &Frame) -> bool {
    let has = |event: Event<'_>| event.fields.get(field::ATTACHMENTS).is_some();
    !frame.is_plain() && frame.events().any(has)
}

fn read_call(entry: &[u8]) -> Option<Replay> {
    let mut reader = Reader::new(0, entry);
    let time = reader.number("a time").ok()?;
    let watermark = reader.number("a watermark").ok()?.checked_sub(1);
    let (seed, frame) = entry.get(reader.at()..)?.split_first_chunk()?;
    let frame = expand(Bytes::copy_from_slice(frame)).ok()?;
    Some(Replay { frame, time, watermark, seed: u64::from_le_bytes(*seed) })
}

/// The slots of a key that are not hosted: n × { name bytes · value bytes }.
fn write_slots(state: &KeyedState, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (slot, value) in state.scan(key, b"") {
        wire::put_bytes(&mut out, slot);
        wire::put_bytes(&mut out, value);
    }
    out
}

fn each_slot(bytes: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
    let mut reader = Reader::new(0, bytes);
    while !reader.is_at_end() {
        let slot = reader.bytes(crate::limits::SLOT_BYTES_MAX, "a slot");
        let value = reader.bytes(bytes.len(), "a value");
        let (Ok(slot), Ok(value)) = (slot, value) else { return };
        each(slot, value);
    }
}

/// The name of a numbered slot; they sort by number.
fn numbered(part: &[u8], number: u64) -> Vec<u8> {
    [part, &number.to_be_bytes()].concat()
}

fn number_of(name: &[u8], part: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(name.strip_prefix(part)?.try_into().ok()?))
}

fn put_numbers(state: &mut KeyedState, (key, name): (&[u8], &[u8]), numbers: &[u64]) {
    let mut out = Vec::new();
    numbers.iter().for_each(|number| wire::put(&mut out, *number));
    state.put_hosted(key, name, &out);
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut reader = Reader::new(0, bytes);
    let mut found = [0; N];
    for number in &mut found {
        *number = reader.number("a number").ok()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests;
