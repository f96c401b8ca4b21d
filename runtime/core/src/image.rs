//! The memory of one instance between two calls, taken so that a fresh instance can go on from it.
//!
//! - An image is plain data: whoever keeps it may split it into pages, compare these with those of
//!   an earlier image, and put it together again.
//! - Only the engine that made it reads `head`: what else an instance is made of, and which code it
//!   belongs to.
//! - Only pages are here that differ from a fresh instance of the same code, so that what a
//!   component was built with costs nothing.
//!
//! Leaves to others: taking images and going on from them (`engine`), keeping them (`store`).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::limits::IMAGE_PAGE_BYTES;

/// Bits of a page's number within its memory: 4 GiB of pages.
const PAGE_BITS: u32 = 20;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// For the engine alone: code, sizes, globals. Some hundred bytes.
    pub head: Bytes,
    /// Pages by number, see [`page_number`]. One that is shorter than [`IMAGE_PAGE_BYTES`] stands
    /// for one that is zero from there on.
    pub pages: BTreeMap<u32, Bytes>,
}

impl Image {
    /// Bytes of the head and all pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let pages: u64 = self.pages.values().map(|page| page.len() as u64).sum();
        self.head.len() as u64 + pages
    }
}

/// The number of a page in an image: memory and page in it. `None` beyond what 4 GiB have.
#[must_use]
pub fn page_number(memory: u32, page: u32) -> Option<u32> {
    (page >> PAGE_BITS == 0 && memory >> (u32::BITS - PAGE_BITS) == 0)
        .then_some(memory << PAGE_BITS | page)
}

/// Memory and page of a number.
#[must_use]
pub fn page_place(number: u32) -> (u32, u32) {
    (number >> PAGE_BITS, number & ((1 << PAGE_BITS) - 1))
}

/// A page without the zeros at its end.
#[must_use]
pub fn trimmed(page: &[u8]) -> &[u8] {
    debug_assert!(page.len() <= IMAGE_PAGE_BYTES);
    let end = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &page[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_number_and_is_found_by_it() {
        for (memory, page) in [(0, 0), (0, 0xf_ffff), (1, 0), (15, 7), (4095, 0xf_ffff)] {
            let number = page_number(memory, page).unwrap();
            assert_eq!(page_place(number), (memory, page));
        }
        assert!(page_number(0, 15) < page_number(1, 0), "pages of a memory are neighbours");
        assert_eq!(page_number(0, 1 << 20), None);
        assert_eq!(page_number(1 << 12, 0), None);
    }

    #[test]
    fn zeros_at_the_end_are_cut() {
        assert_eq!(trimmed(&[0, 1, 0, 2, 0, 0]), [0, 1, 0, 2]);
        assert_eq!(trimmed(&[0; 64]), [0; 0]);
        assert_eq!(trimmed(&[]), [0; 0]);
    }

    #[test]
    fn an_image_is_as_large_as_its_parts() {
        let page = Bytes::from_static(b"12345");
        let pages = BTreeMap::from([(0, page.clone()), (9, page)]);
        assert_eq!(Image { head: Bytes::from_static(b"123"), pages }.bytes(), 13);
    }
}
