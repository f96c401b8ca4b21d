//! The invoker that runs Wasm: which instance takes a call, when one is made, kept, dropped.
//!
//! - A warm instance of scope `shared` may serve any partition of its stage on the same worker.
//! - Instances of keys are kept up to the manifest's number a partition, see `owned`; one of a
//!   stream lives as long as its stream.
//! - A trap drops the instance it happened in and no other.
//! - Who finds no room for an instance lets go of what only saves time, and tries again for a
//!   while. That is so for want of a place in the pool; and, for an instance of a stream that is
//!   made again, for want of memory, since it must not be other than it was.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use sluicebox_core::image::Image;
use sluicebox_core::partition::{Serves, Verdict};

use crate::image;
use crate::instance::{Before, Instance, StartError};
use crate::invoker::{Capturing, Invocation, Invoker, Invoking, NoImage, Outcome, Reviving};
use crate::invoker::{Said, Short, Usage};
use crate::owned::Owned;
use crate::sandbox::{CallPermit, InstancePermit, Sandbox};
use crate::stage::{StageCode, StageSettings};

/// Idle instances of scope `shared`, for all partitions of one stage on one worker.
pub type WarmPool = Rc<RefCell<Vec<Idle>>>;

/// An instance nobody uses right now.
#[derive(Debug)]
pub struct Idle(Instance);

/// How often instantiation is tried again when there is no room in spite of a permit.
const START_TRIES: u32 = 50;
/// How long to wait in between.
const START_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// What is said when there are no permits any more.
const SHUTTING_DOWN: &str = "the engine is shutting down";

/// See the module.
#[derive(Debug)]
pub struct WasmStage {
    sandbox: Arc<Sandbox>,
    code: Arc<StageCode>,
    settings: Arc<StageSettings>,
    warm: WarmPool,
    own: Owned<Instance>,
    /// Those of streams are made again when they are gone.
    makes_again: bool,
}

impl WasmStage {
    /// A stage that shares `warm` with the other partitions of the stage on this worker.
    #[must_use]
    pub fn new(
        sandbox: Arc<Sandbox>,
        code: Arc<StageCode>,
        settings: Arc<StageSettings>,
        warm: WarmPool,
    ) -> Self {
        Self { sandbox, code, settings, warm, own: Owned::new(), makes_again: false }
    }

    async fn run(&mut self, mut invocation: Invocation) -> Outcome {
        let Some(permit) = self.sandbox.call(&self.settings.tenant).await else {
            return refused(invocation, shutting_down());
        };
        let taken = match &invocation.serves {
            Serves::Any => self.warm.borrow_mut().pop().map(|idle| idle.0),
            own => self.own.take(own),
        };
        let cold = taken.is_none();
        let mut instance = match taken {
            Some(instance) => instance,
            None if is_lost_stream(&invocation) => {
                let text = "the stream's instance is gone".to_owned();
                return refused(invocation, NotStarted(text, None));
            }
            // In a box, so that calls of warm instances do not make room for it.
            None => match Box::pin(self.start_for(&invocation.serves, &permit)).await {
                Ok(instance) => instance,
                Err(not_started) => return refused(invocation, not_started),
            },
        };
        let serves = std::mem::replace(&mut invocation.serves, Serves::Any);
        let last = invocation.last;
        let (mut outcome, keep) = instance.call(invocation).await;
        outcome.usage.cold = cold;
        match serves {
            Serves::Any if keep => self.warm.borrow_mut().push(Idle(instance)),
            Serves::Key(_) if keep => self.keep(serves, instance),
            // Past its high-water mark a stream goes on: its limit is the limit itself.
            Serves::Stream(..) if matches!(outcome.verdict, Verdict::Returned(_)) && !last => {
                self.keep(serves, instance);
            }
            _ => drop(instance),
        }
        outcome
    }

    async fn take_image(&mut self, serves: &Serves) -> Result<Image, NoImage> {
        if !self.own.holds(serves) {
            return Err(NoImage::NoInstance);
        }
        self.code.images().map_err(NoImage::Unsupported)?;
        let fresh = self.settings.fresh.get().ok_or_else(|| {
            NoImage::Failed("what a fresh instance has could not be found out".to_owned())
        })?;
        let Some(_permit) = self.sandbox.call(&self.settings.tenant).await else {
            return Err(NoImage::NoRoom(SHUTTING_DOWN.to_owned()));
        };
        let mut instance = self.own.take(serves).ok_or(NoImage::NoInstance)?;
        let image = instance.capture(&fresh).await;
        // After an error of the engine nothing is known of the instance.
        if !matches!(image, Err(NoImage::Failed(_))) {
            self.keep(serves.clone(), instance);
        }
        image
    }

    async fn go_on_from(&mut self, serves: Serves, image: &Image) -> Result<(), NoImage> {
        if serves == Serves::Any {
            return Err(NoImage::NoInstance);
        }
        drop(self.own.take(&serves));
        let code = self.code.clone();
        let accessor = code.accessor.as_ref();
        let accessor = accessor.map_err(|reason| NoImage::Unsupported(reason.clone()))?;
        let head = image::head_of(accessor, image)?;
        let Some(permit) = self.sandbox.call(&self.settings.tenant).await else {
            return Err(NoImage::NoRoom(SHUTTING_DOWN.to_owned()));
        };
        let instance = self.start(&permit, (true, Some((head, image)))).await;
        let instance = instance.map_err(|NotStarted(text, short)| match short {
            Some(_) => NoImage::NoRoom(text),
            None => NoImage::Failed(text),
        })?;
        self.keep(serves, instance);
        Ok(())
    }

    fn keep(&mut self, serves: Serves, instance: Instance) {
        self.own.put(serves, instance, self.settings.limits.instances as usize);
    }

    /// Starts an instance. The first that serves somebody shows what all have before their first
    /// call; later it could not be told from what calls left.
    async fn start_for(
        &mut self,
        serves: &Serves,
        permit: &CallPermit,
    ) -> Result<Instance, NotStarted> {
        let waits = self.makes_again && matches!(serves, Serves::Stream(..));
        let mut instance = self.start(permit, (waits, None)).await?;
        if !matches!(serves, Serves::Any)
            && self.code.accessor.is_ok()
            && let Err(reason) = instance.fresh().await
        {
            tracing::warn!(%reason, "a stage will have no images");
            // It may be half looked at.
            return self.start(permit, (waits, None)).await;
        }
        Ok(instance)
    }

    /// Starts an instance, from an image if there is one. One that `waits` for memory has all it
    /// asked for.
    async fn start(
        &mut self,
        permit: &CallPermit,
        (waits, from): (bool, Option<Before<'_>>),
    ) -> Result<Instance, NotStarted> {
        let mut short = String::new();
        for _ in 0..START_TRIES {
            let tenant = &self.settings.tenant;
            let slot = match self.sandbox.try_instance(tenant, self.code.weight) {
                Some(slot) => slot,
                None => {
                    // Our own idle instances may be what is missing.
                    self.make_way();
                    let found = self.sandbox.instance(&self.settings.tenant, self.code.weight);
                    found.await.ok_or_else(shutting_down)?
                }
            };
            match self.start_once((slot, permit), (waits, from.as_ref())).await {
                Ok(instance) => return Ok(instance),
                Err(StartError::Full(text)) => short = text,
                // A quota that is too small may be made larger, for what is there already.
                Err(StartError::Short(text, why))
                    if waits && (why == Short::Others || from.is_some()) =>
                {
                    if short.is_empty() {
                        self.sandbox.press();
                    }
                    short = text;
                }
                Err(StartError::Short(text, why)) => return Err(NotStarted(text, Some(why))),
                Err(StartError::Guest(text)) => return Err(NotStarted(text, None)),
            }
            self.make_way();
            tokio::time::sleep(START_PAUSE).await;
        }
        Err(NotStarted(short, Some(Short::Others)))
    }

    async fn start_once(
        &self,
        (slot, permit): (InstancePermit, &CallPermit),
        (waits, from): (bool, Option<&Before<'_>>),
    ) -> Result<Instance, StartError> {
        let mut instance = Instance::start(&self.code, &self.settings, slot, permit).await?;
        let restored = match from {
            Some(from) => instance.restore(from).await,
            None => Ok(()),
        };
        match restored {
            Err(error) => match instance.short() {
                Some(short) => Err(StartError::Short(error.to_string(), short)),
                None => Err(StartError::Guest(error.to_string())),
            },
            Ok(()) => match instance.short().filter(|_| waits) {
                // A guest may start with less memory than it asks for, but not as it would have.
                Some(short) => {
                    let text = "it needs more memory to start than is left of the tenant's quota \
                                (memory-bytes) or of the node's";
                    Err(StartError::Short(text.to_owned(), short))
                }
                None => Ok(instance),
            },
        }
    }

    /// Drops what others may need more. If everybody who waits does so, nobody waits for ever.
    fn make_way(&mut self) {
        self.trim();
        if self.makes_again {
            self.own.spare(self.own.len() / 2);
        }
    }
}

/// A stream's first call carries its open event; any later one needs the instance it had.
fn is_lost_stream(invocation: &Invocation) -> bool {
    let opens = |kind| kind == sluicebox_core::frame::Kind::Open;
    matches!(invocation.serves, Serves::Stream(..))
        && !invocation.layer.frame().events().next().is_some_and(|first| opens(first.head.kind))
}

/// Why there is no instance, and whether it is for want of room.
#[derive(Debug)]
struct NotStarted(String, Option<Short>);

fn shutting_down() -> NotStarted {
    NotStarted(SHUTTING_DOWN.to_owned(), Some(Short::Others))
}

fn refused(invocation: Invocation, NotStarted(text, short): NotStarted) -> Outcome {
    Outcome {
        layer: invocation.layer,
        verdict: Verdict::Trapped(text),
        usage: Usage { short, ..Usage::default() },
        said: Said::default(),
    }
}

impl Invoker for WasmStage {
    fn invoke(&mut self, invocation: Invocation) -> Invoking<'_> {
        Box::pin(self.run(invocation))
    }

    fn capture<'a>(&'a mut self, serves: &'a Serves) -> Capturing<'a> {
        Box::pin(self.take_image(serves))
    }

    fn revive<'a>(&'a mut self, serves: Serves, image: &'a Image) -> Reviving<'a> {
        Box::pin(self.go_on_from(serves, image))
    }

    fn holds(&self, serves: &Serves) -> bool {
        self.own.holds(serves)
    }

    fn drop_instance(&mut self, serves: &Serves) {
        drop(self.own.take(serves));
    }

    fn spare(&mut self, most: usize) {
        self.makes_again = true;
        self.own.spare(most);
    }

    fn trim(&mut self) {
        self.warm.borrow_mut().clear();
        self.own.trim();
    }

    fn abandon(&mut self) {
        self.own.clear();
    }

    fn live(&self) -> usize {
        self.warm.borrow().len() + self.own.len()
    }
}
