//! What the device has to do: submissions under way, each with all that it uses.
//!
//! - Each is numbered by the value the device's count comes to when it is done. Until then it holds
//!   its memory and its kernels, whoever has given them back since: nothing is destroyed that is in
//!   use.
//! - Memory is read and written here alone, and not where a submission that was not seen to be done
//!   uses it.
//! - No wait is without a bound. A device that does not answer is lost, and never waited for again.

#![expect(unsafe_code, reason = "what is handed over must not be touched, which is known here")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::adapter::Use;
use super::buffer::Buffer;
use super::command::{Command, Part};
use super::gpu::Gpu;
use super::recording::Recording;
use crate::Error;
use crate::device::Done;

/// How long a copy or the compiler may take, with all work that was submitted before.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// How long work may take to end once it was told to, when the device is given back.
const END_TIME_MAX: Duration = Duration::from_secs(3);
/// Recordings that are kept to be used again.
const IDLE_MAX: usize = 8;
/// Bytes of each of the two buffers that copies go through.
const STAGING_BYTES: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    gpu: Arc<Gpu>,
    /// The number of the latest submission.
    submitted: u64,
    flights: BTreeMap<u64, Flight>,
    /// How work ended that nobody has asked for yet.
    ended: BTreeMap<u64, Done>,
    idle: Vec<Recording>,
    staging: Vec<Staging>,
}

#[derive(Debug)]
struct Flight {
    recording: Recording,
    commands: Vec<Command>,
    /// Somebody will ask how it ended; the rest is our own.
    is_work: bool,
}

#[derive(Debug)]
struct Staging {
    buffer: Arc<Buffer>,
    /// The submission that uses it.
    used_by: u64,
}

impl Queue {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Self {
        Self {
            gpu: Arc::clone(gpu),
            submitted: 0,
            flights: BTreeMap::new(),
            ended: BTreeMap::new(),
            idle: Vec::new(),
            staging: Vec::new(),
        }
    }

    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Submits work that somebody will ask for. Its number.
    ///
    /// # Errors
    /// What the driver says. Nothing of it is done, then.
    pub(super) fn submit(&mut self, commands: Vec<Command>) -> Result<u64, Error> {
        self.land()?;
        self.hand_over(commands, true)
    }

    /// Does something of our own, and waits for it.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn run(&mut self, command: Command) -> Result<(), Error> {
        let number = self.hand_over(vec![command], false)?;
        self.expect(number)
    }

    /// Whether there is such work, and nobody has been told how it ended.
    pub(super) fn has(&self, number: u64) -> bool {
        self.ended.contains_key(&number)
            || self.flights.get(&number).is_some_and(|flight| flight.is_work)
    }

    /// How work ended, if it has after so long. It is told once.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn wait(&mut self, number: u64, longest: Duration) -> Result<Option<Done>, Error> {
        if !self.ended.contains_key(&number) && self.gpu.wait(number, longest)? {
            self.land()?;
        }
        Ok(self.ended.remove(&number))
    }

    /// Has the kernels of some work end soon.
    pub(super) fn cancel(&self, number: u64) {
        if let Some(flight) = self.flights.get(&number) {
            flight.recording.cancel();
        }
    }

    /// Gives back what is done.
    ///
    /// # Errors
    /// The device is lost.
    pub(super) fn land(&mut self) -> Result<(), Error> {
        if self.flights.is_empty() {
            return Ok(());
        }
        let count = self.gpu.count()?;
        while let Some(entry) = self.flights.first_entry() {
            if *entry.key() > count {
                break;
            }
            let (number, flight) = entry.remove_entry();
            if flight.is_work {
                let end = flight.recording.end();
                let took = Duration::from_nanos(flight.recording.nanos());
                self.ended.insert(number, Done { took, end });
            }
            if self.idle.len() < IDLE_MAX {
                self.idle.push(flight.recording);
            }
        }
        Ok(())
    }

    /// Makes new memory all zeros. By the processor where it can, as that waits for no work.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn clear(&mut self, buffer: &Arc<Buffer>) -> Result<(), Error> {
        if buffer.is_mapped() {
            assert!(!self.is_used(buffer, 0, buffer.bytes(), true), "it is new");
            // SAFETY: no work uses it, and this is the only place that uses it otherwise.
            unsafe { buffer.clear() };
            return Ok(());
        }
        self.hand_over(vec![Command::fill(Part::all(buffer), 0)], false).map(|_| ())
    }

    /// Writes to memory.
    ///
    /// # Errors
    /// Work uses it; what the driver says.
    pub(super) fn write(
        &mut self,
        buffer: &Arc<Buffer>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.expect_unused(buffer, offset, bytes.len() as u64, true)?;
        if buffer.is_mapped() {
            // SAFETY: no work uses these bytes, and this is the only place that does otherwise.
            unsafe { buffer.write(offset, bytes) };
            return Ok(());
        }
        let mut to = offset;
        for chunk in bytes.chunks(STAGING_BYTES as usize) {
            let staged = self.stage()?;
            // SAFETY: what used it last was waited for, and this is the only place that uses it
            // otherwise.
            unsafe { staged.write(0, chunk) };
            let from = Part::new(&staged, 0, chunk.len() as u64);
            self.transfer(from, Part::new(buffer, to, chunk.len() as u64))?;
            to += chunk.len() as u64;
        }
        Ok(())
    }

    /// Reads memory. If the processor does not reach it, all that was submitted before is waited
    /// for.
    ///
    /// # Errors
    /// Work writes it; what the driver says.
    pub(super) fn read(
        &mut self,
        buffer: &Arc<Buffer>,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), Error> {
        self.expect_unused(buffer, offset, into.len() as u64, false)?;
        if buffer.is_mapped() {
            // SAFETY: no work writes these bytes, and this is the only place that does otherwise.
            unsafe { buffer.read(offset, into) };
            return Ok(());
        }
        let mut from = offset;
        for chunk in into.chunks_mut(STAGING_BYTES as usize) {
            let staged = self.stage()?;
            let to = Part::new(&staged, 0, chunk.len() as u64);
            let number = self.transfer(Part::new(buffer, from, chunk.len() as u64), to)?;
            self.expect(number)?;
            // SAFETY: what used it last was waited for, and this is the only place that uses it
            // otherwise.
            unsafe { staged.read(0, chunk) };
            from += chunk.len() as u64;
        }
        Ok(())
    }

    fn hand_over(&mut self, commands: Vec<Command>, is_work: bool) -> Result<u64, Error> {
        let idle = self.idle.pop();
        let mut recording = idle.map_or_else(|| Recording::new(&self.gpu), Ok)?;
        // SAFETY: the device does not have it, as it is not among the flights.
        unsafe { recording.record(&commands, is_work) }?;
        let number = self.submitted + 1;
        // SAFETY: it was recorded just now. It becomes a flight, with the commands, which hold what
        // they use, and stays one until the count is at its number (`land`, `drop`). The number is
        // a new one. This is `&mut`, and the only place that submits.
        unsafe { self.gpu.submit(recording.raw(), number) }?;
        self.submitted = number;
        self.flights.insert(number, Flight { recording, commands, is_work });
        Ok(number)
    }

    /// Waits for something of our own.
    fn expect(&mut self, number: u64) -> Result<(), Error> {
        if self.gpu.wait(number, ANSWER_TIME_MAX)? {
            return self.land();
        }
        Err(Error::Lost(format!("no answer in {} s", ANSWER_TIME_MAX.as_secs())))
    }

    /// Whether work that was not seen to be done writes some bytes of a buffer, or, `for_write`,
    /// reads them.
    fn is_used(&self, buffer: &Arc<Buffer>, offset: u64, bytes: u64, for_write: bool) -> bool {
        // Our own comes in order with what we do next.
        let work = self.flights.values().filter(|flight| flight.is_work || buffer.is_mapped());
        work.flat_map(|flight| &flight.commands).any(|command| {
            let [reads, writes] = command.uses(buffer, offset, bytes);
            writes || (for_write && reads)
        })
    }

    fn expect_unused(
        &mut self,
        buffer: &Arc<Buffer>,
        offset: u64,
        bytes: u64,
        for_write: bool,
    ) -> Result<(), Error> {
        if self.is_used(buffer, offset, bytes, for_write) {
            self.land()?;
            if self.is_used(buffer, offset, bytes, for_write) {
                return Err(Error::Wrong("work that has not ended uses the memory".to_owned()));
            }
        }
        Ok(())
    }

    /// A buffer to copy through, which nothing uses now; in turns, so that one is filled while the
    /// other is emptied.
    fn stage(&mut self) -> Result<Arc<Buffer>, Error> {
        if self.staging.len() < 2 {
            let buffer = Arc::new(Buffer::new(&self.gpu, STAGING_BYTES, Use::Host)?);
            self.staging.push(Staging { buffer, used_by: 0 });
        }
        self.staging.rotate_left(1);
        let Staging { buffer, used_by } = &self.staging[0];
        let (buffer, used_by) = (Arc::clone(buffer), *used_by);
        self.expect(used_by)?;
        Ok(buffer)
    }

    /// Copies from or to the buffer that was staged last.
    fn transfer(&mut self, from: Part, to: Part) -> Result<u64, Error> {
        let number = self.hand_over(vec![Command::copy(from, to)], false)?;
        self.staging[0].used_by = number;
        Ok(number)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        for flight in self.flights.values() {
            flight.recording.cancel();
        }
        // What is lost is done as well.
        if matches!(self.gpu.wait(self.submitted, END_TIME_MAX), Ok(false)) {
            self.gpu.abandon();
        }
    }
}
