//! Streams whose instances are put away: an image each, until something comes for them.
//!
//! - Only of streams whose instances cannot be made again from anything else.
//! - An image has a part of the memory its instance had of the quotas, so that putting one away
//!   takes nothing and gives back the rest; it has it until it is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluicebox_core::image::Image;
use sluicebox_core::partition::Serves;

use crate::stage::{Charge, StageSettings};

/// What a page costs besides its bytes, about.
const PAGE_BYTES: u64 = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PutAway(BTreeMap<Serves, Away>);

/// What is kept of an instance.
#[derive(Debug)]
pub(crate) struct Away {
    pub image: Image,
    settings: Arc<StageSettings>,
    _charge: Charge,
}

impl Away {
    pub(crate) fn new(image: Image, settings: &Arc<StageSettings>, charge: Charge) -> Self {
        settings.away.fetch_add(1, Ordering::Relaxed);
        Self { image, settings: settings.clone(), _charge: charge }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.settings.away.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that an image is charged with.
pub(crate) fn cost(image: &Image) -> u64 {
    image.bytes() + image.pages.len() as u64 * PAGE_BYTES
}

impl PutAway {
    pub(crate) fn put(&mut self, serves: Serves, away: Away) {
        self.0.insert(serves, away);
    }

    pub(crate) fn take(&mut self, serves: &Serves) -> Option<Away> {
        self.0.remove(serves)
    }

    pub(crate) fn get(&self, serves: &Serves) -> Option<&Away> {
        self.0.get(serves)
    }

    pub(crate) fn holds(&self, serves: &Serves) -> bool {
        self.0.contains_key(serves)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
