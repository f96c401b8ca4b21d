//! What an instance has of the GPU: the engine's port, answered by the process.
//!
//! An instance is an owner there, by a number that is never used again, from the first time it
//! asks until it is dropped. Bytes go in pieces that a packet takes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluicebox_core::ids::Name;
use sluicebox_engine::gpu::{
    Access, Asking, Device, Gpu, Kind, Order, Outcome, Part, Refused, Session, Slot, Step,
};
use sluicebox_gpu::host::{self, Op, Owner, TenantLimits};
use sluicebox_gpu::slice::Stage;
use sluicebox_gpu::wire::{Act, Answer, TAIL_BYTES_MAX, Terms, Want};
use sluicebox_gpu::{device, kernel};

use super::line::{Ending, lost, outcome};
use super::status::Phase;
use super::{Gpus, UP_TIME_MAX, refused};
use crate::mailbox::lock;

/// Bytes that are read or written at once: they are in memory here meanwhile.
const BYTES_MAX: u64 = 64 << 20;

/// What a stage has of the GPU.
pub(crate) struct StageGpu {
    gpus: Arc<Gpus>,
    tenant: Name,
    stage: Stage,
    terms: Terms,
    deadline: Duration,
    /// Hashes of assets that are not too large, by their names.
    hashes: BTreeMap<String, [u8; 32]>,
    /// Who holds at the device what was attached in batches that have not ended.
    holders: Mutex<BTreeMap<u64, u64>>,
}

impl fmt::Debug for StageGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageGpu").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl StageGpu {
    pub(super) fn new(
        gpus: Arc<Gpus>,
        (tenant, stage): (Name, Stage),
        (terms, deadline): (Terms, Duration),
        hashes: Hashes,
    ) -> Self {
        let (hashes, holders) = (hashes.0, Mutex::default());
        Self { gpus, tenant, stage, terms, deadline, hashes, holders }
    }

    /// An owner for what is attached in a batch.
    fn holder(&self, batch: u64) -> u64 {
        let next = || self.gpus.owners.fetch_add(1, Ordering::Relaxed);
        *lock(&self.holders).entry(batch).or_insert_with(next)
    }
}

/// By what a device knows the assets of a stage.
#[derive(Debug, Default)]
pub(crate) struct Hashes(BTreeMap<String, [u8; 32]>);

impl Hashes {
    /// Of those that a device takes. May take tenths of a second: not on a worker.
    pub(crate) fn of(assets: &BTreeMap<String, Bytes>) -> Self {
        let known = assets.iter().filter(|(_, bytes)| bytes.len() as u64 <= BYTES_MAX);
        let hash = |bytes: &Bytes| *blake3::hash(bytes).as_bytes();
        Self(known.map(|(name, bytes)| (name.clone(), hash(bytes))).collect())
    }
}

impl Drop for StageGpu {
    fn drop(&mut self) {
        self.gpus.drop_stage(&self.tenant, self.stage);
    }
}

/// A stage as the engine has it.
#[derive(Debug, Clone)]
pub(crate) struct Granted(pub(crate) Arc<StageGpu>);

impl Gpu for Granted {
    fn losses(&self) -> u64 {
        self.0.gpus.status().losses()
    }

    fn end_batch(&self, batch: u64) {
        if let Some(instance) = lock(&self.0.holders).remove(&batch) {
            let owner = Owner { stage: self.0.stage, instance };
            self.0.gpus.line().tell(Want::DropOwner { owner });
        }
    }

    fn open(&self) -> Box<dyn Session> {
        let stage = self.0.clone();
        let instance = stage.gpus.owners.fetch_add(1, Ordering::Relaxed);
        let owner = Owner { stage: stage.stage, instance };
        stage.gpus.line().sessions().add();
        let (has_asked, endings) = (AtomicBool::new(false), Mutex::default());
        Box::new(InstanceGpu { stage, owner, has_asked, endings })
    }
}

/// What an instance has of it.
#[derive(Debug)]
struct InstanceGpu {
    stage: Arc<StageGpu>,
    owner: Owner,
    /// The process may know it.
    has_asked: AtomicBool,
    /// Of submissions that were not waited for.
    endings: Mutex<BTreeMap<u64, Ending>>,
}

impl Drop for InstanceGpu {
    fn drop(&mut self) {
        let line = self.stage.gpus.line();
        if *self.has_asked.get_mut() {
            line.tell(Want::DropOwner { owner: self.owner });
        }
        line.sessions().remove();
    }
}

impl InstanceGpu {
    async fn act(&self, act: Act, bytes: Bytes) -> Result<((Answer, Bytes), Ending), Refused> {
        self.stage.gpus.wait_up(UP_TIME_MAX).await?;
        self.has_asked.store(true, Ordering::Relaxed);
        self.stage.gpus.line().ask(Want::Of(self.owner, act), bytes).await
    }

    async fn plain(&self, act: Act) -> Result<Answer, Refused> {
        Ok(self.act(act, Bytes::new()).await?.0.0)
    }

    async fn handle(&self, act: Act, bytes: Bytes) -> Result<u64, Refused> {
        match self.act(act, bytes).await?.0.0 {
            Answer::Handle(handle) => Ok(handle),
            _ => Err(lost()),
        }
    }

    async fn done(&self, act: Act, bytes: Bytes) -> Result<(), Refused> {
        match self.act(act, bytes).await?.0.0 {
            Answer::Done => Ok(()),
            _ => Err(lost()),
        }
    }

    /// The device there is: asked for, as what was known may be gone.
    fn describe_now(&self) -> Result<Device, Refused> {
        let phases = self.stage.gpus.status().phases();
        let phase = phases.borrow();
        let Phase::Up(up) = &*phase else { return Err(lost()) };
        let (info, terms, limits) = (&up.info, &self.stage.terms, TenantLimits::default());
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Device {
            name: info.name.clone(),
            driver: info.driver.clone(),
            kind: match info.kind {
                device::Kind::Discrete => Kind::Discrete,
                device::Kind::Integrated => Kind::Integrated,
                device::Kind::Software => Kind::Software,
                device::Kind::Fake => Kind::Interpreter,
            },
            generation: up.generation,
            groups: info.limits.groups,
            dispatch_groups: limits.dispatch_groups,
            group_threads: info.limits.group_threads.min(limits.kernel.group_threads),
            group_bytes: info.limits.group_bytes.min(limits.kernel.group_bytes),
            bindings: info.limits.bindings,
            binding_bytes: info.limits.binding_bytes,
            offset_bytes: small(info.limits.offset_bytes),
            fuel: limits.fuel,
            memory_guaranteed: terms.guaranteed_bytes,
            memory_borrowable: terms.borrowable_bytes,
            queue: small(limits.queue as u64),
        })
    }

    async fn write_all(&self, buffer: u64, offset: u64, bytes: Bytes) -> Result<(), Refused> {
        let mut at = 0;
        loop {
            let to = (at + TAIL_BYTES_MAX).min(bytes.len());
            let act = Act::Write { buffer, offset: offset.saturating_add(at as u64) };
            self.done(act, bytes.slice(at..to)).await?;
            at = to;
            if at == bytes.len() {
                return Ok(());
            }
        }
    }

    async fn read_all(&self, buffer: u64, offset: u64, bytes: u64) -> Result<Bytes, Refused> {
        if bytes > BYTES_MAX {
            let text = format!("{bytes} bytes at once, at most {BYTES_MAX}: read it in parts");
            return Err(refused("gpu.range", &text));
        }
        let mut all = BytesMut::new();
        loop {
            let left = bytes - all.len() as u64;
            let part = left.min(TAIL_BYTES_MAX as u64);
            let from = offset.saturating_add(all.len() as u64);
            let act = Act::Read { buffer, offset: from, bytes: part };
            let ((_, read), _) = self.act(act, Bytes::new()).await?;
            if read.len() as u64 != part {
                return Err(lost());
            }
            // The usual case is one part, which is not copied.
            if part == bytes {
                return Ok(read);
            }
            all.extend_from_slice(&read);
            if all.len() as u64 == bytes {
                return Ok(all.freeze());
            }
        }
    }

    async fn constant_of(&self, name: String, bytes: Bytes) -> Result<u64, Refused> {
        let Some(hash) = self.stage.hashes.get(&name).copied() else {
            let text = format!("an asset of {} bytes, at most {BYTES_MAX}", bytes.len());
            return Err(refused("gpu.limit", &text));
        };
        match self.plain(Act::FindConstant { hash }).await? {
            Answer::Handle(handle) => return Ok(handle),
            Answer::Unknown => {}
            _ => return Err(lost()),
        }
        let (total, mut at) = (bytes.len() as u64, 0);
        loop {
            let to = (at + TAIL_BYTES_MAX).min(bytes.len());
            let act = Act::Constant { hash, bytes: total, offset: at as u64 };
            let ((answer, _), _) = self.act(act, bytes.slice(at..to)).await?;
            at = to;
            match answer {
                Answer::Handle(handle) => return Ok(handle),
                Answer::Done if at < bytes.len() => {}
                _ => return Err(lost()),
            }
        }
    }

    /// Submissions that were not waited for, but for those of which nothing more can be learnt.
    fn unheard(&self) -> usize {
        let mut endings = lock(&self.endings);
        endings.retain(|_, ending| !ending.is_lost());
        endings.len()
    }

    /// Has the device do something, and waits until it has ended.
    async fn run(&self, order: Order) -> Result<Outcome, Refused> {
        let ((answer, _), _) = self.act(self.order(order, true), Bytes::new()).await?;
        match answer {
            Answer::Ended { end, device_nanos } => Ok(outcome(end, device_nanos)),
            _ => Err(lost()),
        }
    }

    /// The same without waiting: by what it is known.
    async fn begin(&self, order: Order) -> Result<u64, Refused> {
        if self.unheard() >= TenantLimits::default().queue {
            let text = "submissions that have ended were not waited for: wait for them";
            return Err(refused("gpu.would-block", text));
        }
        let ((answer, _), ending) = self.act(self.order(order, false), Bytes::new()).await?;
        let Answer::Handle(handle) = answer else { return Err(lost()) };
        lock(&self.endings).insert(handle, ending);
        Ok(handle)
    }

    fn order(&self, order: Order, waits: bool) -> Act {
        let most = self.stage.deadline;
        let bindings = order.bindings.into_iter().map(|binding| host::Binding {
            buffer: binding.buffer,
            offset: binding.offset,
            bytes: binding.bytes,
        });
        Act::Submit {
            graph: order.graph,
            bindings: bindings.collect(),
            time_max: order.time_max.unwrap_or(most).min(most),
            waits,
        }
    }
}

impl Session for InstanceGpu {
    fn describe(&self) -> Asking<'_, Device> {
        Box::pin(async move {
            self.stage.gpus.wait_up(UP_TIME_MAX).await?;
            self.describe_now()
        })
    }

    fn create(&self, bytes: u64) -> Asking<'_, u64> {
        Box::pin(self.handle(Act::Create { bytes }, Bytes::new()))
    }

    fn write(&self, buffer: u64, offset: u64, bytes: Bytes) -> Asking<'_, ()> {
        Box::pin(self.write_all(buffer, offset, bytes))
    }

    fn read(&self, buffer: u64, offset: u64, bytes: u64) -> Asking<'_, Bytes> {
        Box::pin(self.read_all(buffer, offset, bytes))
    }

    fn size(&self, buffer: u64) -> Asking<'_, u64> {
        Box::pin(async move {
            match self.plain(Act::Size { buffer }).await? {
                Answer::Bytes(bytes) => Ok(bytes),
                _ => Err(lost()),
            }
        })
    }

    fn constant(&self, name: String, bytes: Bytes) -> Asking<'_, u64> {
        Box::pin(self.constant_of(name, bytes))
    }

    fn kernel(&self, source: String, entry: String) -> Asking<'_, u64> {
        Box::pin(self.handle(Act::Kernel { entry }, source.into_bytes().into()))
    }

    fn slots(&self, kernel: u64) -> Asking<'_, Vec<Slot>> {
        Box::pin(async move {
            match self.plain(Act::Slots { kernel }).await? {
                Answer::Slots(slots) => Ok(slots.into_iter().map(slot).collect()),
                _ => Err(lost()),
            }
        })
    }

    fn graph(&self, steps: Vec<Step>) -> Asking<'_, u64> {
        let steps = steps.into_iter().map(op).collect();
        Box::pin(self.handle(Act::Record { steps }, Bytes::new()))
    }

    fn submit(&self, order: Order) -> Asking<'_, Outcome> {
        Box::pin(self.run(order))
    }

    fn try_submit(&self, order: Order) -> Asking<'_, u64> {
        Box::pin(self.begin(order))
    }

    fn wait(&self, submission: u64) -> Asking<'_, Outcome> {
        Box::pin(async move {
            let ending = lock(&self.endings).remove(&submission);
            let none = || refused("gpu.handle", "there is no such submission of this instance");
            Ok(ending.ok_or_else(none)?.outcome().await)
        })
    }

    fn cancel(&self, submission: u64) -> Asking<'_, ()> {
        Box::pin(async move {
            if !lock(&self.endings).contains_key(&submission) {
                return Err(refused("gpu.handle", "there is no such submission of this instance"));
            }
            match self.done(Act::Cancel { submission }, Bytes::new()).await {
                // It has ended, and it was not waited for yet.
                Err(why) if why.code == "gpu.handle" || why.code == "gpu.lost" => Ok(()),
                done => done,
            }
        })
    }

    fn attach(&self, buffer: u64, batch: u64) -> Asking<'_, ()> {
        let holder = self.stage.holder(batch);
        Box::pin(self.done(Act::Attach { buffer, holder }, Bytes::new()))
    }

    fn free(&self, handle: u64) -> Asking<'_, ()> {
        Box::pin(self.done(Act::Free { handle }, Bytes::new()))
    }
}

fn slot(slot: kernel::Slot) -> Slot {
    let access = match slot.access {
        kernel::Access::Uniform => Access::Uniform,
        kernel::Access::Read => Access::Read,
        kernel::Access::ReadWrite => Access::ReadWrite,
    };
    Slot { number: slot.number, access, bytes_min: slot.bytes_min }
}

fn op(step: Step) -> Op {
    let part = |part: Part| host::Part { slot: part.slot, offset: part.offset, bytes: part.bytes };
    match step {
        Step::Dispatch { kernel, grid, slots } => Op::Dispatch { kernel, grid, slots },
        Step::Copy { from, to } => Op::Copy { from: part(from), to: part(to) },
        Step::Fill { at, word } => Op::Fill { at: part(at), word },
    }
}
