//! Snapshots: what a stage itself says of an instance, so that a fresh one can go on, also one of
//! other code.
//!
//! - A component has them if it exports `sluicebox:stage/snapshot`. Both functions of it are called
//!   between two calls of `handle`, without events: state, timers and output are not to be had
//!   there, time and randomness are what the instance saw last.
//! - They are bounded as a start is, in work, time and memory; a snapshot has at most
//!   [`IMAGE_BYTES_MAX`] bytes.
//! - An instance that says no is as it was. One that traps is of no more use.
//!
//! Here is as well what a snapshot is as an image, for components of whose memory there is none.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sluicebox_core::image::{Image, page_number, trimmed};
use sluicebox_core::limits::{IMAGE_BYTES_MAX, IMAGE_PAGE_BYTES};
use wasmtime::component::{Component, ComponentExportIndex};

use crate::component::SNAPSHOT_TRACK;
use crate::error::shown;
use crate::invoker::NoImage;

/// The first byte of the head of an image that is a snapshot; behind it are the bytes it has, as a
/// number of 8 bytes. Heads of images of memory begin with another.
pub(crate) const VERSION: u8 = 2;

/// Bytes of what a stage says why it says no.
const REASON_BYTES_MAX: usize = 512;

/// What a component without them is told.
pub(crate) const NONE: &str = "the component does not export `sluicebox:stage/snapshot@0.1.0`";

/// The functions of a component that has snapshots.
#[derive(Debug)]
pub(crate) struct Exports {
    pub(crate) take: ComponentExportIndex,
    pub(crate) restore: ComponentExportIndex,
}

impl Exports {
    pub(crate) fn of(component: &Component) -> Option<Self> {
        let ty = component.component_type();
        let mut names = ty.exports(component.engine()).map(|(name, _)| name);
        let name = names.find(|name| name.starts_with(SNAPSHOT_TRACK))?;
        let interface = component.get_export_index(None, name)?;
        let find = |name| component.get_export_index(Some(&interface), name);
        Some(Self { take: find("take")?, restore: find("restore")? })
    }
}

/// Why a stage gave none, or took none.
pub(crate) fn refused(what: &str, reason: &str) -> NoImage {
    NoImage::Refused(format!("{what}: {}", shown(reason, REASON_BYTES_MAX)))
}

/// A snapshot as an image.
pub(crate) fn image_of(snapshot: &[u8]) -> Image {
    let mut head = BytesMut::with_capacity(1 + size_of::<u64>());
    head.extend_from_slice(&[VERSION]);
    head.extend_from_slice(&(snapshot.len() as u64).to_le_bytes());
    let pages = snapshot.chunks(IMAGE_PAGE_BYTES).map(trimmed).map(Bytes::copy_from_slice);
    let numbers = (0..).map_while(|page| page_number(0, page));
    Image { head: head.freeze(), pages: numbers.zip(pages).collect() }
}

/// Whether an image is a snapshot.
pub(crate) fn is_one(image: &Image) -> bool {
    image.head.first() == Some(&VERSION)
}

/// The snapshot that an image is. Nothing if it is none.
pub(crate) fn of_image(image: &Image) -> Option<Bytes> {
    let (&version, length) = image.head.split_first()?;
    let length = u64::from_le_bytes(length.try_into().ok()?);
    let length = usize::try_from(length).ok().filter(|length| *length <= IMAGE_BYTES_MAX)?;
    if version != VERSION || image.pages.len() != length.div_ceil(IMAGE_PAGE_BYTES) {
        return None;
    }
    joined(length, &image.pages)
}

fn joined(length: usize, pages: &BTreeMap<u32, Bytes>) -> Option<Bytes> {
    let mut snapshot = BytesMut::zeroed(length);
    for (at, (number, page)) in (0..).zip(pages) {
        let chunk = snapshot[at as usize * IMAGE_PAGE_BYTES..].get_mut(..page.len())?;
        if page_number(0, at) != Some(*number) || page.len() > IMAGE_PAGE_BYTES {
            return None;
        }
        chunk.copy_from_slice(page);
    }
    Some(snapshot.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_snapshot_comes_back_from_its_image(
            parts in prop::collection::vec((any::<u8>(), 0..9_000_usize), 0..4),
        ) {
            let snapshot: Vec<u8> =
                parts.iter().flat_map(|(byte, times)| vec![*byte; *times]).collect();
            let image = image_of(&snapshot);
            prop_assert_eq!(of_image(&image), Some(Bytes::from(snapshot)));
        }
    }

    #[test]
    fn what_is_no_whole_snapshot_gives_none() {
        let whole = image_of(&[7; 10_000]);
        let broken = |change: fn(&mut Image)| {
            let mut image = whole.clone();
            change(&mut image);
            of_image(&image)
        };
        assert!(broken(|_| {}).is_some());
        assert_eq!(broken(|image| drop(image.pages.remove(&1))), None);
        assert_eq!(broken(|image| drop(image.pages.insert(9, Bytes::new()))), None);
        assert_eq!(broken(|image| drop(image.pages.insert(2, vec![1; 1809].into()))), None);
        assert_eq!(broken(|image| drop(image.pages.insert(0, vec![1; 4097].into()))), None);
        assert_eq!(broken(|image| image.head = image.head.slice(..8)), None);
        assert_eq!(broken(|image| image.head = Bytes::new()), None);
        for length in [9_999_u64, 10_001, 4096, 12_289, u64::MAX] {
            let mut image = whole.clone();
            image.head = [&[VERSION][..], &length.to_le_bytes()].concat().into();
            let fits = (8193..=12288).contains(&length) && length >= 10_000;
            assert_eq!(of_image(&image).is_some(), fits, "{length}");
        }
        let mut other = whole.clone();
        other.head = [&[1][..], &10_000_u64.to_le_bytes()].concat().into();
        assert_eq!(of_image(&other), None);
    }
}
