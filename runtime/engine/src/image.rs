//! Images of instances: what an instance is between two calls, so that a fresh one can go on.
//!
//! - All that can change in an instance with images is its memories and its mutable globals; what
//!   else a component might have stops `instrument`, and there are none. Of the host it holds
//!   handles of the standard streams at most, which a fresh instance is given again.
//! - An image is of one component and one start: the digest of the upload and that of what a fresh
//!   instance has are in its head.
//! - Taking one changes nothing. Going on from one is bounded like any start, and by the same
//!   limits, quotas and permits. Neither runs any of the guest's code besides that of its start.
//! - Where there can be none of the memory, a stage that says itself what it knows has an image of
//!   that (`snapshot`), and what is said above of its code holds no more.
//!
//! `instrument` adds the accessor at upload, `access` calls it, `fresh` is what an image is told
//! apart from, `head` what is in one besides pages. Leaves to others: which instance (`wasm`).

mod access;
mod fresh;
pub(crate) mod head;
mod instrument;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sluicebox_core::image::{Image, page_number, page_place, trimmed};
use sluicebox_core::limits::{IMAGE_BYTES_MAX, IMAGE_PAGE_BYTES};

use crate::error::engine_text;
use crate::invoker::NoImage;
use crate::snapshot;
use crate::stage::StageCode;
use access::WASM_PAGE_BYTES;
pub(crate) use access::{Access, Accessor};
pub(crate) use fresh::Fresh;
pub use fresh::FreshCell;
use fresh::Noting;
use head::{HANDLES_MAX, Head};
pub use instrument::instrument;
pub(crate) use instrument::{RESERVED, VERSION};

/// An image's head as it is understood, written again; nothing if it is none.
#[must_use]
pub fn reread_head(bytes: &[u8]) -> Option<Bytes> {
    Head::decode(bytes).map(|head| head.encode())
}

/// Pages of 4 KiB in one of 64.
const PAGES_PER_WASM_PAGE: u32 = (WASM_PAGE_BYTES / IMAGE_PAGE_BYTES as u64) as u32;

fn failed(error: &wasmtime::Error) -> NoImage {
    NoImage::Failed(engine_text(error))
}

fn unfit(text: &str) -> NoImage {
    NoImage::Failed(text.to_owned())
}

/// Looks at an instance that has not been called yet.
pub(crate) async fn note(access: &mut Access<'_>) -> Result<Fresh, NoImage> {
    let memories = access.sizes().await.map_err(|error| failed(&error))?;
    let globals = access.globals().await.map_err(|error| failed(&error))?;
    let mut noting = Noting::new(memories.len());
    for (memory, pages) in memories.iter().enumerate() {
        let bytes = u64::from(*pages) * WASM_PAGE_BYTES;
        let seen = access.pages(memory, bytes, |_, page| noting.page(memory, page)).await;
        seen.map_err(|error| failed(&error))?;
    }
    Ok(noting.finish(memories, globals))
}

/// Takes the image of an instance.
pub(crate) async fn capture(access: &mut Access<'_>, fresh: &Fresh) -> Result<Image, NoImage> {
    let handles = access.store.data_mut().standard_handles().ok_or(NoImage::OpenHandles)?;
    if handles.len() > HANDLES_MAX {
        return Err(NoImage::OpenHandles);
    }
    let memories = access.sizes().await.map_err(|error| failed(&error))?;
    let globals = access.globals().await.map_err(|error| failed(&error))?;
    let mut taken = Taken { pages: BTreeMap::new(), bytes: 0 };
    for (memory, pages) in memories.iter().enumerate() {
        let bytes = u64::from(*pages) * WASM_PAGE_BYTES;
        let seen = access.pages(memory, bytes, |page, bytes| taken.see(fresh, memory, page, bytes));
        seen.await.map_err(|error| failed(&error))?;
        if taken.bytes > IMAGE_BYTES_MAX {
            return Err(NoImage::TooLarge);
        }
    }
    let (code, base) = (access.accessor.code, fresh.digest);
    let head = Head { code, base, memories, globals, handles };
    Ok(Image { head: head.encode(), pages: taken.pages })
}

/// Pages that differ, up to what an image may have.
struct Taken {
    pages: BTreeMap<u32, Bytes>,
    bytes: usize,
}

impl Taken {
    fn see(&mut self, fresh: &Fresh, memory: usize, page: u32, bytes: &[u8]) {
        if self.bytes > IMAGE_BYTES_MAX || fresh.has(memory, page, bytes) {
            return;
        }
        let bytes = trimmed(bytes);
        // A page of zeros costs its number.
        self.bytes += bytes.len().max(size_of::<u32>());
        if self.bytes <= IMAGE_BYTES_MAX
            && let Some(number) = page_number(memory as u32, page)
        {
            self.pages.insert(number, Bytes::copy_from_slice(bytes));
        }
    }
}

/// What an instance goes on from, as it is understood.
pub(crate) enum Before<'a> {
    /// Memory.
    Memory(Head, &'a Image),
    /// What the stage said itself.
    Snapshot(Bytes),
}

/// Reads an image, if it is one of this code.
pub(crate) fn read<'a>(code: &StageCode, image: &'a Image) -> Result<Before<'a>, NoImage> {
    if snapshot::is_one(image) {
        let bytes = snapshot::of_image(image);
        return bytes.map(Before::Snapshot).ok_or_else(|| unfit("the image cannot be read"));
    }
    let accessor = code.accessor.as_ref();
    let accessor = accessor.map_err(|reason| NoImage::Unsupported(reason.clone()))?;
    head_of(accessor, image).map(|head| Before::Memory(head, image))
}

/// Reads an image's head, if it is of this code.
fn head_of(accessor: &Accessor, image: &Image) -> Result<Head, NoImage> {
    let head = Head::decode(&image.head).ok_or_else(|| unfit("the image cannot be read"))?;
    if head.code != accessor.code {
        return Err(unfit("the image is of another component"));
    }
    if head.memories.len() != accessor.memories() {
        return Err(unfit("the image has another number of memories"));
    }
    let fits = |(number, page): (&u32, &Bytes)| {
        let (memory, at) = page_place(*number);
        let pages = head.memories.get(memory as usize).copied().unwrap_or(0);
        page.len() <= IMAGE_PAGE_BYTES && at < pages.saturating_mul(PAGES_PER_WASM_PAGE)
    };
    if !image.pages.iter().all(fits) {
        return Err(unfit("the image has pages outside of its memories"));
    }
    Ok(head)
}

/// Makes a fresh instance what the image is of.
pub(crate) async fn restore(
    access: &mut Access<'_>,
    fresh: &Fresh,
    head: &Head,
    image: &Image,
) -> Result<(), NoImage> {
    if head.base != fresh.digest {
        return Err(unfit(
            "the image is of an instance that started differently: with other configuration, \
             assets or limits",
        ));
    }
    let sizes = access.sizes().await.map_err(|error| failed(&error))?;
    if sizes != fresh.memories || head.globals.len() != fresh.globals.len() {
        return Err(unfit("the instance started differently"));
    }
    for (memory, (now, then)) in sizes.iter().zip(&head.memories).enumerate() {
        let by = then.checked_sub(*now).ok_or_else(|| unfit("the image is too small"))?;
        let grown = by == 0 || access.grow(memory, by).await.map_err(|error| failed(&error))?;
        if !grown {
            return Err(unfit(
                "the image needs more memory than limits.memory, or the tenant's quota \
                 (memory-bytes) or the node's, allow",
            ));
        }
    }
    let put = write_pages(access, fresh, image).await;
    put.map_err(|error| failed(&error))?;
    let set = access.set_globals(&fresh.globals, &head.globals).await;
    set.map_err(|error| failed(&error))?;
    // Some languages open theirs when they start, Go for one: then a fresh instance has them.
    if access.store.data_mut().standard_handles().as_ref() == Some(&head.handles) {
        return Ok(());
    }
    match access.open(&head.handles).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(unfit("the instance cannot have the handles of the image")),
        Err(error) => Err(failed(&error)),
    }
}

async fn write_pages(
    access: &mut Access<'_>,
    fresh: &Fresh,
    image: &Image,
) -> wasmtime::Result<()> {
    for memory in 0..access.accessor.memories() {
        let number = memory as u32;
        let (Some(first), Some(last)) = (page_number(number, 0), page_number(number, PAGE_LAST))
        else {
            continue;
        };
        let places = image.pages.range(first..=last).map(|(number, bytes)| {
            let (_, page) = page_place(*number);
            let whole = bytes.len() == IMAGE_PAGE_BYTES || fresh.is_zero(memory, page);
            let bytes = if whole { bytes.clone() } else { padded(bytes) };
            (page * IMAGE_PAGE_BYTES as u32, bytes)
        });
        access.write(memory, places).await?;
    }
    Ok(())
}

/// The last page of a memory of 4 GiB.
const PAGE_LAST: u32 = (1 << 20) - 1;

/// The page with its zeros, where a fresh instance has others.
fn padded(bytes: &[u8]) -> Bytes {
    let mut page = BytesMut::zeroed(IMAGE_PAGE_BYTES);
    page[..bytes.len()].copy_from_slice(bytes);
    page.freeze()
}

#[cfg(test)]
mod tests;
