//! Stages written in Rust; the reference invoker, for tests and simulation.
//!
//! - One made of a closure has no memory between calls, like a guest that keeps none.
//! - One made of [`NativeInstance`]s has one for each key or stream, or shares one, exactly as a
//!   guest's instances do; its image is what the instance exports.
//! - Nothing bounds either but its layer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sluicebox_core::frame::Kind;
use sluicebox_core::image::{Image, page_number, trimmed};
use sluicebox_core::layer::Layer;
use sluicebox_core::limits::{IMAGE_BYTES_MAX, IMAGE_PAGE_BYTES};
use sluicebox_core::partition::{Serves, Verdict};

use crate::image::head::Head;
use crate::invoker::{Capturing, Invocation, Invoker, Invoking, NoImage, Outcome, PuttingAway};
use crate::invoker::{Reviving, Said, Snapshotting, Usage};
use crate::owned::Owned;

/// What a native stage does with a call.
pub type Handler = Arc<dyn Fn(&mut Layer) -> Verdict>;

/// An instance with a memory of its own.
pub trait NativeInstance {
    /// Handles one call.
    fn handle(&mut self, layer: &mut Layer) -> Verdict;

    /// All there is to remember, if that can be put into bytes.
    fn export(&self) -> Option<Vec<u8>> {
        None
    }

    /// Remembers what another instance exported. False if it is nothing of the kind.
    fn import(&mut self, state: &[u8]) -> bool {
        let _ = state;
        false
    }
}

/// Makes a fresh instance.
pub type Maker = Arc<dyn Fn() -> Box<dyn NativeInstance>>;

/// See the module.
pub struct NativeStage {
    kind: NativeKind,
    shared: Vec<Box<dyn NativeInstance>>,
    own: Owned<Box<dyn NativeInstance>>,
}

enum NativeKind {
    Closure(Handler),
    Instances(Instances),
}

#[derive(Clone)]
struct Instances {
    /// Stands for the code in an image.
    code: [u8; 32],
    make: Maker,
    /// Instances of keys that are kept.
    keys_max: usize,
}

impl NativeStage {
    /// A stage that does this.
    #[must_use]
    pub fn new(handler: Handler) -> Self {
        Self::of(NativeKind::Closure(handler))
    }

    /// A stage whose instances remember. `name` stands for its code: images of stages of one name
    /// fit each other. Of instances for keys `keys_max` are kept.
    #[must_use]
    pub fn with_instances(name: &str, make: Maker, keys_max: usize) -> Self {
        let code = *blake3::hash(name.as_bytes()).as_bytes();
        Self::of(NativeKind::Instances(Instances { code, make, keys_max }))
    }

    fn of(kind: NativeKind) -> Self {
        Self { kind, shared: Vec::new(), own: Owned::new() }
    }

    fn run(&mut self, invocation: Invocation) -> Outcome {
        let Invocation { serves, mut layer, last, .. } = invocation;
        let instances = match &self.kind {
            NativeKind::Closure(handler) => {
                let verdict = handler(&mut layer);
                return outcome(layer, verdict, false);
            }
            NativeKind::Instances(instances) => instances.clone(),
        };
        let taken = match &serves {
            Serves::Any => self.shared.pop(),
            own => self.own.take(own),
        };
        let opens = layer.frame().events().next().is_some_and(|e| e.head.kind == Kind::Open);
        if taken.is_none() && matches!(serves, Serves::Stream(..)) && !opens {
            let text = "the stream's instance is gone".to_owned();
            return outcome(layer, Verdict::Trapped(text), false);
        }
        let cold = taken.is_none();
        let mut instance = taken.unwrap_or_else(|| (instances.make)());
        let verdict = instance.handle(&mut layer);
        let alive = matches!(verdict, Verdict::Returned(_)) && !last;
        match serves {
            _ if !alive => {}
            Serves::Any => self.shared.push(instance),
            own => self.own.put(own, instance, instances.keys_max),
        }
        outcome(layer, verdict, cold)
    }

    fn capture_now(&mut self, serves: &Serves) -> Result<Image, NoImage> {
        let instance = self.own.get(serves).ok_or(NoImage::NoInstance)?;
        let NativeKind::Instances(Instances { code, .. }) = &self.kind else {
            return Err(NoImage::Unsupported("a closure keeps nothing".to_owned()));
        };
        let Some(state) = instance.export() else {
            return Err(NoImage::Unsupported("the instance exports nothing".to_owned()));
        };
        if state.len() > IMAGE_BYTES_MAX {
            return Err(NoImage::TooLarge);
        }
        let head = Head {
            code: *code,
            base: [0; 32],
            memories: Vec::new(),
            globals: vec![state.len() as u64],
            handles: Vec::new(),
        };
        let mut pages = BTreeMap::new();
        for (page, at) in state.chunks(IMAGE_PAGE_BYTES).zip(0..) {
            let number = page_number(0, at).ok_or(NoImage::TooLarge)?;
            let page = trimmed(page);
            // A fresh instance stands for zeros.
            if !page.is_empty() {
                pages.insert(number, Bytes::copy_from_slice(page));
            }
        }
        Ok(Image { head: head.encode(), pages })
    }

    fn snapshot_now(&mut self, serves: &Serves) -> Result<Bytes, NoImage> {
        let instance = self.own.get(serves).ok_or(NoImage::NoInstance)?;
        let exported = instance.export().map(Bytes::from);
        exported.ok_or_else(|| NoImage::Unsupported("the instance exports nothing".to_owned()))
    }

    fn restore_now(&mut self, serves: Serves, snapshot: &[u8]) -> Result<(), NoImage> {
        if serves == Serves::Any {
            return Err(NoImage::NoInstance);
        }
        drop(self.own.take(&serves));
        let NativeKind::Instances(Instances { make, keys_max, .. }) = &self.kind else {
            return Err(NoImage::Unsupported("a closure keeps nothing".to_owned()));
        };
        let mut instance = make();
        if !instance.import(snapshot) {
            let why = "it did not take the snapshot: it is nothing of the kind";
            return Err(NoImage::Failed(why.to_owned()));
        }
        self.own.put(serves, instance, *keys_max);
        Ok(())
    }

    fn revive_now(&mut self, serves: Serves, image: &Image) -> Result<(), NoImage> {
        if serves == Serves::Any {
            return Err(NoImage::NoInstance);
        }
        drop(self.own.take(&serves));
        let NativeKind::Instances(Instances { code, make, keys_max }) = &self.kind else {
            return Err(NoImage::Unsupported("a closure keeps nothing".to_owned()));
        };
        let failed = |text: &str| Err(NoImage::Failed(text.to_owned()));
        let head = Head::decode(&image.head).filter(|head| head.code == *code);
        let Some(bytes) = head.and_then(|head| head.globals.first().copied()) else {
            return failed("the image is not of this code");
        };
        let Some(state) = whole(bytes, image) else {
            return failed("the image has pages beyond its end");
        };
        let mut instance = make();
        if !instance.import(&state) {
            return failed("the instance does not understand the image");
        }
        self.own.put(serves, instance, *keys_max);
        Ok(())
    }
}

/// Puts the pages of an image together.
fn whole(bytes: u64, image: &Image) -> Option<Vec<u8>> {
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= IMAGE_BYTES_MAX)?;
    let mut state = vec![0; bytes];
    for (number, page) in &image.pages {
        let start = usize::try_from(*number).ok()?.checked_mul(IMAGE_PAGE_BYTES)?;
        state.get_mut(start..start.checked_add(page.len())?)?.copy_from_slice(page);
    }
    Some(state)
}

fn outcome(layer: Box<Layer>, verdict: Verdict, cold: bool) -> Outcome {
    let usage = Usage { cold, ..Usage::default() };
    Outcome { layer, verdict, usage, said: Said::default() }
}

impl fmt::Debug for NativeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NativeStage")
    }
}

impl Invoker for NativeStage {
    fn invoke(&mut self, invocation: Invocation) -> Invoking<'_> {
        Box::pin(std::future::ready(self.run(invocation)))
    }

    fn capture<'a>(&'a mut self, serves: &'a Serves) -> Capturing<'a> {
        Box::pin(std::future::ready(self.capture_now(serves)))
    }

    fn revive<'a>(&'a mut self, serves: Serves, image: &'a Image) -> Reviving<'a> {
        Box::pin(std::future::ready(self.revive_now(serves, image)))
    }

    fn snapshot<'a>(&'a mut self, serves: &'a Serves) -> Snapshotting<'a> {
        Box::pin(std::future::ready(self.snapshot_now(serves)))
    }

    fn restore(&mut self, serves: Serves, snapshot: Bytes) -> Reviving<'_> {
        Box::pin(std::future::ready(self.restore_now(serves, &snapshot)))
    }

    fn holds(&self, serves: &Serves) -> bool {
        self.own.holds(serves)
    }

    fn drop_instance(&mut self, serves: &Serves) {
        drop(self.own.take(serves));
    }

    fn spare(&mut self, most: usize) {
        self.own.spare(most);
    }

    fn trim(&mut self) {
        self.shared.clear();
        self.own.trim();
    }

    fn put_away(&mut self) -> PuttingAway<'_> {
        // They cost nothing but what they remember.
        Box::pin(std::future::ready(()))
    }

    fn abandon(&mut self) {
        self.own.clear();
    }

    fn live(&self) -> usize {
        self.shared.len() + self.own.len()
    }
}
