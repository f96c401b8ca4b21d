//! Imports `wasi:keyvalue/store`, `atomics` and `batch`, in both drafts that are in use: buckets
//! that are part of the stage's keyed state.
//!
//! - A bucket is what one key of the stage keeps under the bucket's name: slots that begin with the
//!   name and a slash. So it is exact as state is: what a failed call wrote is taken back, and what
//!   stands is committed with the batch.
//! - A bucket is reached while the call has an event of its key, and at no other time, whoever
//!   holds a handle of it and since when: the key may be with another partition by then.
//! - Only buckets that the manifest names can be opened. What is too large, too long or too many is
//!   an answer.
//! - Between reading and writing in a call nobody else writes the key, so that compare and swap
//!   fails only by what the call itself wrote meanwhile.

mod batch;
mod cas;

use sluicebox_core::layer::Layer;
use sluicebox_core::limits::{KEY_BYTES_MAX, SLOT_BYTES_MAX};
use sluicebox_core::state::KeyedState;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceTableError, ResourceType,
    WasmList, WasmStr,
};

use super::{Host, charge, spend, text};

/// The drafts, by the version in the names of their interfaces. Each is a version of its own.
const FIRST: &str = "0.2.0-draft";
const SECOND: &str = "0.2.0-draft2";

/// Keys one page of `list-keys` has.
const PAGE_KEYS: usize = 256;

/// What it costs to look at an event of the call whether it is of the bucket's key, in fuel.
const LOOK_FUEL: u64 = 80;

/// The error of all interfaces of the package.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl Error {
    fn other(text: &impl ToString) -> Self {
        Self::Other(text.to_string())
    }
}

impl From<ResourceTableError> for Error {
    fn from(_: ResourceTableError) -> Self {
        Self::Other(format!("an instance holds at most {} handles", super::HANDLES_MAX))
    }
}

/// A page of keys; the drafts differ in what says where the next begins.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Page<C> {
    keys: Vec<String>,
    cursor: Option<C>,
}

/// Bytes of all buckets and swaps that one instance may hold. They are no memory of the guest, and
/// are not counted as such: what they have at most is in `docs/guide/wasi.md`.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// A swap has a bucket within, its key, and a key of its own; a bucket its name and that of a page.
const _: () = {
    let texts = KEY_BYTES_MAX + 3 * SLOT_BYTES_MAX;
    assert!(super::HANDLES_MAX * (size_of::<cas::Cas>() + texts) <= HELD_BYTES_MAX);
};

/// What is behind a handle.
#[derive(Debug, Clone)]
struct Bucket {
    /// What names of its slots begin with.
    prefix: String,
    key: Box<[u8]>,
    /// An event of the key, in the call that looked last.
    event: u32,
    /// The last key of the last page, and the number that was given for it.
    page: (u64, String),
}

impl Bucket {
    /// The slot of a key of the bucket.
    fn slot(&self, key: &str) -> Result<String, Error> {
        let longest = SLOT_BYTES_MAX.saturating_sub(self.prefix.len());
        if key.len() > longest {
            let name = self.prefix.trim_end_matches('/');
            return Err(Error::Other(format!(
                "a key of the bucket {name} has at most {longest} bytes, this one {}",
                key.len()
            )));
        }
        Ok(format!("{}{key}", self.prefix))
    }
}

/// What has a bucket behind its handle. One thing for each handle: images of instances count on it.
trait HasBucket: Send + 'static {
    fn bucket(&mut self) -> &mut Bucket;
}

impl HasBucket for Bucket {
    fn bucket(&mut self) -> &mut Bucket {
        self
    }
}

/// State of the bucket's key, and the bucket.
struct Reached<'a> {
    state: &'a mut KeyedState,
    bucket: &'a mut Bucket,
}

impl Reached<'_> {
    fn get(&self, key: &str) -> Result<Option<&[u8]>, Error> {
        let slot = self.bucket.slot(key)?;
        Ok(self.state.get(&self.bucket.key, slot.as_bytes()))
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), Error> {
        let slot = self.bucket.slot(key)?;
        let put = self.state.put(&self.bucket.key, slot.as_bytes(), value);
        put.map_err(|refusal| Error::other(&refusal))
    }

    fn delete(&mut self, key: &str) -> Result<(), Error> {
        let slot = self.bucket.slot(key)?;
        self.state.delete(&self.bucket.key, slot.as_bytes());
        Ok(())
    }

    /// Adds to a counter: 8 bytes, little-endian; an absent one counts as 0.
    fn increment<T: Counter>(&mut self, key: &str, delta: T) -> Result<T, Error> {
        let old = match self.get(key)? {
            None => T::default(),
            Some(value) => match value.try_into() {
                Ok(bytes) => T::of(bytes),
                Err(_) => {
                    let bytes = value.len();
                    let text = format!("the value has {bytes} bytes, a counter has 8");
                    return Err(Error::Other(text));
                }
            },
        };
        let Some(new) = old.add(delta) else {
            return Err(Error::Other("the counter has no room for that".to_owned()));
        };
        self.set(key, &new.bytes())?;
        Ok(new)
    }

    /// The keys of the next page, and whether there may be more.
    fn page(&self, after: Option<&str>) -> (Vec<String>, bool) {
        let prefix = self.bucket.prefix.as_bytes();
        let after = after.map(|key| format!("{}{key}", self.bucket.prefix)).unwrap_or_default();
        let slots = self.state.scan_after(&self.bucket.key, prefix, after.as_bytes());
        let key = |slot: &[u8]| String::from_utf8_lossy(&slot[prefix.len()..]).into_owned();
        let keys: Vec<String> = slots.take(PAGE_KEYS).map(|(slot, _)| key(slot)).collect();
        let full = keys.len() == PAGE_KEYS;
        (keys, full)
    }
}

/// Where a page begins; the drafts differ.
trait Cursor {
    /// Bytes the guest handed over for it.
    fn bytes(&self) -> usize;
}

impl Cursor for u64 {
    fn bytes(&self) -> usize {
        0
    }
}

impl Cursor for String {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// What a counter counts in; the drafts differ.
trait Counter: Default {
    fn of(bytes: [u8; 8]) -> Self;
    fn bytes(&self) -> [u8; 8];
    fn add(self, delta: Self) -> Option<Self>;
}

impl Counter for u64 {
    fn of(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }

    fn bytes(&self) -> [u8; 8] {
        self.to_le_bytes()
    }

    fn add(self, delta: Self) -> Option<Self> {
        self.checked_add(delta)
    }
}

impl Counter for i64 {
    fn of(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }

    fn bytes(&self) -> [u8; 8] {
        self.to_le_bytes()
    }

    fn add(self, delta: Self) -> Option<Self> {
        self.checked_add(delta)
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for version in [FIRST, SECOND] {
        let mut store = linker.instance(&format!("wasi:keyvalue/store@{version}"))?;
        add_store(&mut store)?;
        let mut many = linker.instance(&format!("wasi:keyvalue/batch@{version}"))?;
        batch::add_to_linker(&mut many)?;
    }
    let mut store = linker.instance(&format!("wasi:keyvalue/store@{FIRST}"))?;
    add_pages(&mut store, |reached, cursor: Option<u64>| {
        let (number, last) = reached.bucket.page.clone();
        let after = match cursor {
            None => None,
            Some(cursor) if cursor == number && number > 0 => Some(last),
            Some(_) => {
                let text = "only the cursor of the last page of a handle can be gone on from";
                return Err(Error::Other(text.to_owned()));
            }
        };
        let (keys, full) = reached.page(after.as_deref());
        let last = keys.last().filter(|_| full).cloned();
        let cursor = last.map(|last| {
            reached.bucket.page = (number + 1, last);
            number + 1
        });
        Ok(Page { keys, cursor })
    })?;
    let mut store = linker.instance(&format!("wasi:keyvalue/store@{SECOND}"))?;
    add_pages(&mut store, |reached, cursor: Option<String>| {
        let (keys, full) = reached.page(cursor.as_deref());
        let cursor = keys.last().filter(|_| full).cloned();
        Ok(Page { keys, cursor })
    })?;
    add_increment::<u64>(&mut linker.instance(&format!("wasi:keyvalue/atomics@{FIRST}"))?)?;
    let mut atomics = linker.instance(&format!("wasi:keyvalue/atomics@{SECOND}"))?;
    add_increment::<i64>(&mut atomics)?;
    cas::add_to_linker(&mut atomics)
}

fn add_store(store: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    store.resource("bucket", ResourceType::host::<Bucket>(), |mut cx, rep| {
        cx.data_mut().table.delete(Resource::<Bucket>::new_own(rep))?;
        Ok(())
    })?;
    store.func_wrap_async("open", |mut cx, (identifier,): (WasmStr,)| {
        Box::new(async move {
            let identifier = text(&mut cx, &identifier).await?;
            let looks = events(&mut cx)?;
            spend(&mut cx, looks * LOOK_FUEL).await?;
            Ok((open(cx.data_mut(), &identifier)?,))
        })
    })?;
    store.func_wrap_async(
        "[method]bucket.get",
        |mut cx, (bucket, key): (Resource<Bucket>, WasmStr)| {
            Box::new(async move {
                let key = text(&mut cx, &key).await?;
                let found =
                    reach(&mut cx, &bucket, |reached| Ok(reached.get(&key)?.map(<[u8]>::to_vec)));
                let found = found.await?;
                let bytes = found.as_ref().ok().and_then(|value| Some(value.as_ref()?.len()));
                charge(&mut cx, bytes.unwrap_or_default()).await?;
                Ok((found,))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.set",
        |mut cx, (bucket, key, value): (Resource<Bucket>, WasmStr, WasmList<u8>)| {
            Box::new(async move {
                charge(&mut cx, value.len()).await?;
                let key = text(&mut cx, &key).await?;
                let value = value.as_le_slice(&cx).to_vec();
                Ok((reach(&mut cx, &bucket, |reached| reached.set(&key, &value)).await?,))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.delete",
        |mut cx, (bucket, key): (Resource<Bucket>, WasmStr)| {
            Box::new(async move {
                let key = text(&mut cx, &key).await?;
                Ok((reach(&mut cx, &bucket, |reached| reached.delete(&key)).await?,))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.exists",
        |mut cx, (bucket, key): (Resource<Bucket>, WasmStr)| {
            Box::new(async move {
                let key = text(&mut cx, &key).await?;
                let found = reach(&mut cx, &bucket, |reached| Ok(reached.get(&key)?.is_some()));
                Ok((found.await?,))
            })
        },
    )
}

fn add_pages<C>(
    store: &mut LinkerInstance<'_, Host>,
    page: fn(&mut Reached<'_>, Option<C>) -> Result<Page<C>, Error>,
) -> wasmtime::Result<()>
where
    C: Cursor + ComponentType + Lift + Lower + Send + Sync + 'static,
{
    store.func_wrap_async(
        "[method]bucket.list-keys",
        move |mut cx, (bucket, cursor): (Resource<Bucket>, Option<C>)| {
            Box::new(async move {
                charge(&mut cx, cursor.as_ref().map_or(0, Cursor::bytes)).await?;
                let listed = reach(&mut cx, &bucket, |reached| page(reached, cursor)).await?;
                let keys = listed.as_ref().map_or(&[][..], |page| &page.keys);
                let bytes = keys.iter().map(|key| key.len() + size_of::<String>()).sum();
                charge(&mut cx, bytes).await?;
                Ok((listed,))
            })
        },
    )
}

fn add_increment<T>(atomics: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()>
where
    T: Counter + ComponentType + Lift + Lower + Send + Sync + 'static,
{
    atomics.func_wrap_async(
        "increment",
        |mut cx, (bucket, key, delta): (Resource<Bucket>, WasmStr, T)| {
            Box::new(async move {
                let key = text(&mut cx, &key).await?;
                Ok((reach(&mut cx, &bucket, |reached| reached.increment(&key, delta)).await?,))
            })
        },
    )
}

/// Opens a bucket: `name` where a call has events of one key, else `name/key`.
fn open(host: &mut Host, identifier: &str) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
    let buckets = &host.settings.buckets;
    let (name, key) = match identifier.split_once('/') {
        Some((name, key)) => (name, Some(key.as_bytes())),
        None => (identifier, None),
    };
    if !buckets.names.iter().any(|known| known == name) {
        return Ok(Err(Error::NoSuchStore));
    }
    let one_key = buckets.one_key;
    let prefix = format!("{name}/");
    let layer = super::layer(host)?;
    let found = match key {
        Some(key) => find(layer, key),
        None if one_key => layer.key(0).map(|_| 0),
        None => {
            let text = format!(
                "calls of this stage have events of several keys: open \"{name}/KEY\" with the \
                 key of an event, or write scope = \"key\" in the manifest"
            );
            return Ok(Err(Error::Other(text)));
        }
    };
    let Some((event, key)) = found.and_then(|event| Some((event, layer.key(event)?.into()))) else {
        return Ok(Err(Error::AccessDenied));
    };
    let bucket = Bucket { prefix, key, event, page: (0, String::new()) };
    Ok(host.table.push(bucket).map_err(Error::from))
}

/// The events of the call in progress.
fn events(cx: &mut StoreContextMut<'_, Host>) -> wasmtime::Result<u64> {
    Ok(super::layer(cx.data_mut())?.frame().len() as u64)
}

/// An event of the call that is of this key.
fn find(layer: &Layer, key: &[u8]) -> Option<u32> {
    let mut events = layer.frame().events().zip(0..);
    events.find_map(|(event, at)| (event.key == key).then_some(at))
}

/// Does something to a bucket, if the call has an event of its key.
async fn reach<T: HasBucket, R>(
    cx: &mut StoreContextMut<'_, Host>,
    handle: &Resource<T>,
    act: impl FnOnce(&mut Reached<'_>) -> Result<R, Error>,
) -> wasmtime::Result<Result<R, Error>> {
    let Host { table, layer, .. } = cx.data_mut();
    let bucket = table.get_mut(handle)?.bucket();
    if !layer.as_deref_mut().is_some_and(|layer| is_near(layer, bucket)) {
        let looks = events(cx)?;
        spend(cx, looks * LOOK_FUEL).await?;
    }
    let Host { table, layer, .. } = cx.data_mut();
    let bucket = table.get_mut(handle)?.bucket();
    let Some(layer) = layer.as_deref_mut() else { return Ok(Err(Error::AccessDenied)) };
    if !is_near(layer, bucket) {
        let Some(event) = find(layer, &bucket.key) else { return Ok(Err(Error::AccessDenied)) };
        bucket.event = event;
    }
    Ok(act(&mut Reached { state: layer.state(), bucket }))
}

/// Whether the event that was looked at last is of the bucket's key in this call too.
fn is_near(layer: &mut Layer, bucket: &Bucket) -> bool {
    layer.keyed(bucket.event).is_some_and(|(_, key)| *key == *bucket.key)
}
