//! The invoker that runs Wasm: which instance takes a call, when one is made, kept, dropped.
//!
//! - A warm instance of scope `shared` may serve any partition of its stage on the same worker.
//! - Instances of keys are kept up to the manifest's number a partition, see `owned`; one of a
//!   stream lives as long as its stream.
//! - Where a stream is its instance, no more of them are kept than that number either: the least
//!   recently used is put away as an image, and made again when something comes for it. If none can
//!   be put away no stream opens; one that is open goes beyond the number.
//! - A trap drops the instance it happened in and no other.
//! - Who finds no room for an instance lets go of what only saves time, and tries again for a
//!   while. That is so for want of a place in the pool, and of a stream for want of memory. One
//!   that is made again must not be other than it was: it has all the memory it asks for.
//! - Nobody waits for ever on behalf of a stream.

mod images;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use sluicebox_core::image::Image;
use sluicebox_core::partition::{Serves, Verdict};

use crate::away::{Away, PutAway, cost};
use crate::host::yield_once;
use crate::image::{self, Before};
use crate::instance::{Instance, StartError};
use crate::invoker::{Capturing, Invocation, Invoker, Invoking, NoImage, Outcome, PuttingAway};
use crate::invoker::{Reviving, Said, Short, Snapshotting, Usage};
use crate::owned::Owned;
use crate::sandbox::{CallPermit, InstancePermit, Sandbox};
use crate::stage::{StageCode, StageSettings, TenantSlots};

/// Idle instances of scope `shared`, for all partitions of one stage on one worker.
pub type WarmPool = Rc<RefCell<Vec<Idle>>>;

/// An instance nobody uses right now.
#[derive(Debug)]
pub struct Idle(Instance);

/// How often instantiation is tried again when there is no room in spite of a permit.
const START_TRIES: u32 = 50;
/// The same where the one before did not start: so often that what was let go of for it is seen.
const START_TRIES_FULL: u32 = 3;
/// How long to wait in between.
const START_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// What is said when there was no place in the pool for as long as somebody waited.
const NO_PLACE: &str = "no instance is free: all that the tenant or the node may have at once \
                        (engine.instances) are in use; allow more, or have fewer streams open";

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
    away: PutAway,
    /// Why the last one that was to be put away was not.
    stays: String,
    /// Those of streams are made again when they are gone.
    makes_again: bool,
    /// The last that started found no room: whoever comes next need not wait as long.
    full: bool,
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
        let (own, away, stays) = (Owned::new(), PutAway::default(), String::new());
        let (makes_again, full) = (false, false);
        Self { sandbox, code, settings, warm, own, away, stays, makes_again, full }
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
            // In a box, so that calls of warm instances do not make room for it.
            None => match Box::pin(self.make(&invocation, &permit)).await {
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

    /// Makes the instance of a call.
    async fn make(
        &mut self,
        invocation: &Invocation,
        permit: &CallPermit,
    ) -> Result<Instance, NotStarted> {
        let serves = &invocation.serves;
        if let Some(away) = self.away.take(serves) {
            return self.wake(&away, permit).await;
        }
        if is_lost_stream(invocation) {
            return Err(NotStarted("the stream's instance is gone".to_owned(), None));
        }
        if is_stream(serves) {
            self.make_place().await?;
        }
        self.start_for(serves, permit).await
    }

    /// Makes an instance again that was put away.
    async fn wake(&mut self, away: &Away, permit: &CallPermit) -> Result<Instance, NotStarted> {
        // It may be more than there are to be, rather than being lost.
        let _full = self.make_place().await;
        let code = self.code.clone();
        let before = image::read(&code, &away.image);
        let before = before.map_err(|error| NotStarted(error.to_string(), None))?;
        let again = Start { from: Some(before), of_stream: true, whole: true };
        self.start(permit, again).await.map_err(|NotStarted(text, short)| {
            let text = format!("its instance was put away and cannot be made again: {text}");
            NotStarted(text, short)
        })
    }

    /// Puts instances of streams away until there is a place for one more.
    async fn make_place(&mut self) -> Result<(), NotStarted> {
        let most = self.settings.limits.instances as usize;
        while !self.makes_again && self.own.len() >= most {
            if !self.put_away_one().await {
                let text = format!(
                    "the stage has {most} instances of open streams in this partition, which is \
                     all it may have (limits.instances), and none of them can be put away: {}; \
                     allow more of them, or have more partitions",
                    self.stays
                );
                return Err(NotStarted(text, None));
            }
        }
        Ok(())
    }

    /// Puts away the instance of a stream: the least recently used one that can be. False if none
    /// can. An instance has the stack of its last call, so that this needs no permit: whoever holds
    /// one may be waiting for the place.
    async fn put_away_one(&mut self) -> bool {
        if self.makes_again {
            return false;
        }
        if let Err(reason) = self.code.images() {
            self.stays = NoImage::Unsupported(reason).to_string();
            return false;
        }
        while let Some((serves, mut instance, used_at)) = self.own.take_oldest() {
            match instance.capture().await {
                Ok(image) => {
                    let charge = instance.end(cost(&image));
                    self.away.put(serves, Away::new(image, &self.settings, charge));
                    return true;
                }
                // After an error of the engine nothing is known of the instance.
                Err(NoImage::Failed(reason) | NoImage::NoRoom(reason)) => {
                    tracing::warn!(%reason, "an instance was lost as it was put away");
                    return true;
                }
                Err(reason) => {
                    self.stays = reason.to_string();
                    self.own.put_back(serves, instance, used_at);
                }
            }
        }
        false
    }

    async fn put_all_away(&mut self) {
        if self.makes_again || self.own.len() == 0 {
            return;
        }
        while self.put_away_one().await {
            yield_once().await;
        }
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
        let of_stream = is_stream(serves);
        let first = || Start { from: None, of_stream, whole: of_stream && self.makes_again };
        let (first, second) = (first(), first());
        let mut instance = self.start(permit, first).await?;
        if !matches!(serves, Serves::Any)
            && self.code.accessor.is_ok()
            && let Err(reason) = instance.fresh().await
        {
            tracing::warn!(%reason, "a stage will have no images");
            // It may be half looked at.
            return self.start(permit, second).await;
        }
        Ok(instance)
    }

    /// Starts an instance. A stream waits for a place or for memory as long as it is worth it.
    async fn start(
        &mut self,
        permit: &CallPermit,
        wanted: Start<'_>,
    ) -> Result<Instance, NotStarted> {
        // A stream that is open is lost if it does not start, and gets all there are.
        let may_fail = wanted.from.is_none() && !self.makes_again;
        let tries = if self.full && may_fail { START_TRIES_FULL } else { START_TRIES };
        let waits =
            |why: Short| wanted.of_stream && (why == Short::Others || wanted.from.is_some());
        let mut short = String::new();
        for _ in 0..tries {
            let tenant = self.settings.tenant.clone();
            let slot = match self.sandbox.try_instance(&tenant, self.code.weight) {
                Ok(slot) => Some(slot),
                Err(why) => {
                    self.press_once(&short, why);
                    // Our own idle instances may be what is missing.
                    self.make_way().await;
                    self.place(&tenant, wanted.of_stream).await?
                }
            };
            let Some(slot) = slot else {
                short = NO_PLACE.to_owned();
                continue;
            };
            match self.start_once((slot, permit), &wanted).await {
                Ok(instance) => {
                    self.full = false;
                    return Ok(instance);
                }
                Err(StartError::Full(text)) => short = text,
                // A quota that is too small may be made larger, for what is there already.
                Err(StartError::Short(text, why)) if waits(why) => {
                    self.press_once(&short, why);
                    short = text;
                }
                Err(StartError::Short(text, why)) => return Err(NotStarted(text, Some(why))),
                Err(StartError::Guest(text)) => return Err(NotStarted(text, None)),
            }
            self.make_way().await;
            tokio::time::sleep(START_PAUSE).await;
        }
        self.full = wanted.of_stream;
        Err(NotStarted(short, Some(Short::Others)))
    }

    /// Lets others know what is short, if that is news.
    fn press_once(&self, short: &str, why: Short) {
        if short.is_empty() {
            self.sandbox.press(&self.settings.tenant, why);
        }
    }

    /// Waits for a place in the pool; on behalf of a stream not for long, then there is none.
    async fn place(
        &self,
        tenant: &TenantSlots,
        of_stream: bool,
    ) -> Result<Option<InstancePermit>, NotStarted> {
        let found = self.sandbox.instance(tenant, self.code.weight);
        if !of_stream {
            return found.await.map(Some).ok_or_else(shutting_down);
        }
        match tokio::time::timeout(START_PAUSE, found).await {
            Ok(found) => found.map(Some).ok_or_else(shutting_down),
            Err(_) => Ok(None),
        }
    }

    async fn start_once(
        &self,
        (slot, permit): (InstancePermit, &CallPermit),
        wanted: &Start<'_>,
    ) -> Result<Instance, StartError> {
        let mut instance = Instance::start(&self.code, &self.settings, slot, permit).await?;
        let restored = match &wanted.from {
            Some(from) => instance.restore(from).await,
            None => Ok(()),
        };
        match restored {
            Err(error) => match instance.short() {
                Some(short) => Err(StartError::Short(error.to_string(), short)),
                None => Err(StartError::Guest(error.to_string())),
            },
            Ok(()) => match instance.short().filter(|_| wanted.whole) {
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

    /// Lets go of what others may need more. If everybody who waits does so, nobody waits for ever.
    async fn make_way(&mut self) {
        self.trim();
        let most = self.own.len() / 2;
        if self.makes_again {
            self.own.spare(most);
        }
        while self.own.len() > most && self.put_away_one().await {}
    }
}

/// What is asked of an instance that starts.
struct Start<'a> {
    /// It goes on from this.
    from: Option<Before<'a>>,
    of_stream: bool,
    /// It has all the memory it asks for.
    whole: bool,
}

fn is_stream(serves: &Serves) -> bool {
    matches!(serves, Serves::Stream(..))
}

/// A stream's first call carries its open event; any later one needs the instance it had.
fn is_lost_stream(invocation: &Invocation) -> bool {
    let opens = |kind| kind == sluicebox_core::frame::Kind::Open;
    is_stream(&invocation.serves)
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

    fn snapshot<'a>(&'a mut self, serves: &'a Serves) -> Snapshotting<'a> {
        Box::pin(self.take_snapshot(serves))
    }

    fn restore(&mut self, serves: Serves, snapshot: Bytes) -> Reviving<'_> {
        Box::pin(self.go_on_from_snapshot(serves, snapshot))
    }

    fn holds(&self, serves: &Serves) -> bool {
        self.own.holds(serves) || self.away.holds(serves)
    }

    fn drop_instance(&mut self, serves: &Serves) {
        drop(self.own.take(serves));
        drop(self.away.take(serves));
    }

    fn spare(&mut self, most: usize) {
        self.makes_again = true;
        self.own.spare(most);
    }

    fn trim(&mut self) {
        self.warm.borrow_mut().clear();
        self.own.trim();
    }

    fn put_away(&mut self) -> PuttingAway<'_> {
        Box::pin(self.put_all_away())
    }

    fn abandon(&mut self) {
        self.own.clear();
        self.away.clear();
    }

    fn live(&self) -> usize {
        self.warm.borrow().len() + self.own.len()
    }
}
