//! The host's functions in a native build: everything in memory, one host a thread.
//!
//! - It keeps the promises of the contract that a stage can see: keys from event indexes, refusals
//!   and traps as in `wit/`. A trap is a panic here.
//! - Its two clocks stand still until the harness moves them.
//! - It keeps no promise about size or speed, and there is no isolation.
//!
//! The harness in `testing.rs` puts a host in place before each call of a stage and takes it back
//! after. Without one the functions find nothing and forget everything.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Fields, Kind, field};
use crate::frame::{self, check};
use crate::log::Level;
use crate::timers::Clock;

mod batch;
pub(crate) mod gpu;
mod timers;

pub(crate) use timers::{Due, TimerStore};

/// Most bytes of the name of a slot.
const SLOT_BYTES_MAX: usize = 64;
/// Most attachments of an event, and most new ones of a frame.
const ATTACHMENTS_MAX: usize = 256;

/// Key, slot: value.
pub(crate) type Slots = BTreeMap<(String, String), Vec<u8>>;

/// One event as emitted, before a route was looked up for it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) port: u16,
    pub(crate) cause: u32,
    pub(crate) time: u64,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) fields: Vec<u8>,
    /// What the buffers that it has attached hold.
    pub(crate) buffers: Vec<Vec<u8>>,
}

/// What the host of one instance knows.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Keys of the events of the current call, by index.
    pub(crate) keys: Vec<String>,
    /// What they have attached.
    pub(crate) lent: BTreeSet<u64>,
    pub(crate) slots: Slots,
    pub(crate) timers: TimerStore,
    /// State batches done.
    #[cfg(test)]
    pub(crate) batches: u32,
    /// Largest value the host takes.
    pub(crate) value_bytes_max: usize,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) assets: BTreeMap<String, Vec<u8>>,
    pub(crate) emitted: Vec<Received>,
    pub(crate) lines: Vec<(Level, String)>,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) gauges: BTreeMap<String, f64>,
    /// Nothing without `Harness::with_gpu`.
    pub(crate) gpu: Option<gpu::Gpu>,
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self {
            keys: Vec::new(),
            lent: BTreeSet::new(),
            slots: BTreeMap::new(),
            timers: TimerStore::new(),
            #[cfg(test)]
            batches: 0,
            value_bytes_max: 1 << 20,
            config: BTreeMap::new(),
            assets: BTreeMap::new(),
            emitted: Vec::new(),
            lines: Vec::new(),
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
            gpu: None,
        }
    }

    /// The place of a slot of an event's key. Traps as the host does.
    fn place(&self, event: u32, slot: &str) -> (String, String) {
        assert!(slot.len() <= SLOT_BYTES_MAX, "trap: the name of a slot is at most 64 bytes long");
        (self.key(event), slot.to_owned())
    }

    /// The key of an event of the call. Traps as the host does.
    fn key(&self, event: u32) -> String {
        let Some(key) = self.keys.get(event as usize) else {
            panic!("trap: the call has no event {event}");
        };
        key.clone()
    }

    fn get(&self, event: u32, slot: &str) -> Option<Vec<u8>> {
        self.slots.get(&self.place(event, slot)).cloned()
    }

    fn put(&mut self, event: u32, slot: &str, value: &[u8]) -> Result<(), String> {
        let place = self.place(event, slot);
        if value.len() > self.value_bytes_max {
            let limit = self.value_bytes_max;
            return Err(format!("the value is {} bytes long, the limit is {limit}", value.len()));
        }
        self.slots.insert(place, value.to_vec());
        Ok(())
    }

    fn delete(&mut self, event: u32, slot: &str) -> bool {
        let place = self.place(event, slot);
        self.slots.remove(&place).is_some()
    }

    fn add(&mut self, event: u32, slot: &str, delta: i64) -> Result<i64, String> {
        let place = self.place(event, slot);
        let value = self.slots.entry(place).or_insert_with(|| vec![0; 8]);
        let Ok(bytes) = value.as_slice().try_into() else {
            return Err(format!("slot {slot} holds {} bytes, a counter is 8", value.len()));
        };
        let sum = i64::from_le_bytes(bytes).wrapping_add(delta);
        *value = sum.to_le_bytes().to_vec();
        Ok(sum)
    }

    fn scan(&self, event: u32, prefix: &str, limit: u32) -> Vec<(String, Vec<u8>)> {
        let (key, first) = self.place(event, prefix);
        self.slots
            .range((key.clone(), first)..)
            .take_while(|((found, slot), _)| *found == key && slot.starts_with(prefix))
            .take(limit as usize)
            .map(|((_, slot), value)| (slot.clone(), value.clone()))
            .collect()
    }

    fn emit(&mut self, bytes: &[u8]) {
        let events = check::checked(bytes)
            .unwrap_or_else(|error| panic!("trap: the emitted frame is broken: {error}"));
        let mut new = 0;
        for parts in events {
            let head = parts.head;
            assert_eq!(head.kind, Kind::Data as u8, "trap: only data is emitted");
            assert!(
                (head.cause as usize) < self.keys.len(),
                "trap: the call has no event {} that could be a cause",
                head.cause
            );
            let buffers = self.attach(parts.fields, &mut new);
            self.emitted.push(Received {
                port: head.port,
                cause: head.cause,
                time: head.time,
                key: String::from_utf8_lossy(parts.key).into_owned(),
                payload: parts.payload.to_vec(),
                fields: parts.fields.to_vec(),
                buffers,
            });
        }
    }

    /// What an emitted event has attached, which adds to what is new in its frame. Traps as the
    /// host does, but for where it may go.
    fn attach(&mut self, fields: &[u8], new: &mut usize) -> Vec<Vec<u8>> {
        let named = attachments(fields);
        assert!(named.len() <= ATTACHMENTS_MAX, "trap: an event has at most 256 attachments");
        let attach = |handle: u64| {
            let found = self.gpu.as_mut().and_then(|gpu| gpu.attach(handle));
            let is_held = found.is_some() || self.lent.contains(&handle);
            assert!(is_held, "trap: the call has nothing {handle:#x} that it could attach");
            let (bytes, is_new) = found.unwrap_or_default();
            *new += usize::from(is_new);
            assert!(*new <= ATTACHMENTS_MAX, "trap: a frame has at most 256 new attachments");
            bytes
        };
        named.into_iter().map(attach).collect()
    }
}

thread_local! {
    static HOST: RefCell<Memory> = const { RefCell::new(Memory::new()) };
}

/// Runs `call` with `memory` as the host of this thread. If `call` panics the thread's host is put
/// back all the same, so one failing test leaves nothing to the next.
pub(crate) fn with_host<T>(memory: &mut Memory, call: impl FnOnce() -> T) -> T {
    struct Exchange<'a>(&'a mut Memory);
    impl Drop for Exchange<'_> {
        fn drop(&mut self) {
            HOST.with_borrow_mut(|host| std::mem::swap(host, self.0));
        }
    }
    HOST.with_borrow_mut(|host| std::mem::swap(host, memory));
    let _exchange = Exchange(memory);
    call()
}

pub(crate) fn emit(frame: &[u8]) {
    HOST.with_borrow_mut(|host| host.emit(frame));
}

pub(crate) fn state_get(event: u32, slot: &str) -> Option<Vec<u8>> {
    HOST.with_borrow(|host| host.get(event, slot))
}

pub(crate) fn state_put(event: u32, slot: &str, value: &[u8]) -> Result<(), String> {
    HOST.with_borrow_mut(|host| host.put(event, slot, value))
}

pub(crate) fn state_delete(event: u32, slot: &str) -> bool {
    HOST.with_borrow_mut(|host| host.delete(event, slot))
}

pub(crate) fn state_add(event: u32, slot: &str, delta: i64) -> Result<i64, String> {
    HOST.with_borrow_mut(|host| host.add(event, slot, delta))
}

pub(crate) fn state_scan(event: u32, prefix: &str, limit: u32) -> Vec<(String, Vec<u8>)> {
    HOST.with_borrow(|host| host.scan(event, prefix, limit))
}

pub(crate) fn state_batch(operations: &[u8]) -> Vec<u8> {
    HOST.with_borrow_mut(|host| {
        #[cfg(test)]
        {
            host.batches += 1;
        }
        batch::run(host, operations)
    })
}

pub(crate) fn timer_set(event: u32, name: &str, clock: Clock, at: u64) -> Result<(), String> {
    HOST.with_borrow_mut(|host| host.timer_set(event, name, clock, at))
}

pub(crate) fn timer_cancel(event: u32, name: &str) -> bool {
    HOST.with_borrow_mut(|host| host.timer_cancel(event, name))
}

pub(crate) fn watermark() -> u64 {
    HOST.with_borrow(|host| host.timers.watermark)
}

pub(crate) fn now() -> u64 {
    HOST.with_borrow(|host| host.timers.now)
}

pub(crate) fn config(name: &str) -> Option<String> {
    HOST.with_borrow(|host| host.config.get(name).cloned())
}

pub(crate) fn config_names() -> Vec<String> {
    HOST.with_borrow(|host| host.config.keys().cloned().collect())
}

pub(crate) fn asset_size(name: &str) -> Option<u64> {
    HOST.with_borrow(|host| host.assets.get(name).map(|asset| asset.len() as u64))
}

pub(crate) fn asset_read(name: &str, offset: u64, length: u32) -> Vec<u8> {
    HOST.with_borrow(|host| {
        let asset = host.assets.get(name).map_or(&[][..], Vec::as_slice);
        let first = usize::try_from(offset).unwrap_or(usize::MAX).min(asset.len());
        let end = first.saturating_add(length as usize).min(asset.len());
        asset[first..end].to_vec()
    })
}

pub(crate) fn log(level: Level, message: &str) {
    HOST.with_borrow_mut(|host| host.lines.push((level, message.to_owned())));
}

pub(crate) fn metric_count(name: &str, delta: u64) {
    HOST.with_borrow_mut(|host| {
        let counter = host.counters.entry(name.to_owned()).or_default();
        *counter = counter.saturating_add(delta);
    });
}

pub(crate) fn metric_gauge(name: &str, value: f64) {
    HOST.with_borrow_mut(|host| host.gauges.insert(name.to_owned(), value));
}

/// The handles that the fields of an event name as attached.
pub(crate) fn attachments(fields: &[u8]) -> Vec<u64> {
    let value = Fields::new(fields).find(|(id, _)| *id == field::ATTACHMENTS);
    let (handles, rest) = value.map_or(&[][..], |(_, value)| value).as_chunks();
    assert!(rest.is_empty(), "trap: attachments are 8 bytes each");
    handles.iter().map(|handle| u64::from_le_bytes(*handle)).collect()
}

/// A frame as the host gives it to a stage.
pub(crate) fn frame_of<'a>(events: impl ExactSizeIterator<Item = frame::Parts<'a>>) -> Vec<u8> {
    let count = events.len() as u32;
    let mut bytes = vec![0; frame::HEADER_BYTES];
    for mut parts in events {
        let size = frame::HEAD_BYTES + parts.key.len() + parts.payload.len() + parts.fields.len();
        parts.head.size = size as u32;
        parts.head.key_bytes = parts.key.len() as u16;
        parts.head.payload_bytes = parts.payload.len() as u32;
        parts.head.fields_bytes = parts.fields.len() as u32;
        let at = bytes.len();
        bytes.resize(at + size, 0);
        frame::write_event(&mut bytes[at..], &parts);
    }
    let header = frame::header(count, bytes.len() as u32);
    bytes[..frame::HEADER_BYTES].copy_from_slice(&header);
    bytes
}
