//! A link inside a test that does everything a real one may do, by seed.
//!
//! - Packets are late: the receiver has to look for them some times before they are there.
//! - A link breaks at any packet. Of what was under way any part from the front still arrives, at
//!   its time, and the sender is not told how much of it: so whoever sends again on a fresh link
//!   sends some of it twice, and what the old link still has may come between.
//! - The network splits: nothing arrives on any link until it heals, or until somebody gives up.
//!
//! Keeps true: the promises of a link, and that the same calls with the same seed give the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::contract::{Dice, Wants};
use crate::ends::{End, Figures, Receiver, Refusal, Sender};
use crate::error::Error;

/// What is counted against the buffer besides a packet, so that empty ones are bounded too.
const HEAD_BYTES: usize = 8;

/// What goes wrong, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// A link breaks once in so many packets; 0 is never.
    pub break_once_in: u64,
    /// A packet is late by up to so many looks.
    pub looks_max: u64,
}

/// Links that have one fate.
#[derive(Debug, Clone)]
pub struct Network(Arc<Mutex<Net>>);

#[derive(Debug)]
struct Net {
    dice: Dice,
    faults: Faults,
    is_split: bool,
    pipes: Vec<Pipe>,
}

/// One link.
#[derive(Debug)]
struct Pipe {
    wants: Wants,
    /// Each with the look at which it is there.
    under_way: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// How often the receiver has looked.
    looks: u64,
    /// Bytes of the packet that found no room.
    wanted: usize,
    sender: Side,
    receiver: Side,
}

/// How an end stands.
#[derive(Debug, Default)]
struct Side {
    end: Option<End>,
    waker: Option<Waker>,
}

impl Side {
    fn over(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake();
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

impl Pipe {
    /// Both ends learn that the other is gone.
    fn break_off(&mut self) {
        self.sender.over(End::Broken(Error::Gone));
        self.receiver.over(End::Broken(Error::Gone));
    }

    fn has_room(&self) -> bool {
        self.bytes + self.wanted <= self.wants.buffer_bytes
    }
}

impl Network {
    /// One whose accidents follow from a seed.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        let dice = Dice::new(seed);
        Self(Arc::new(Mutex::new(Net { dice, faults, is_split: false, pipes: Vec::new() })))
    }

    /// A fresh link.
    ///
    /// # Panics
    /// The largest packet does not fit into the buffer.
    #[must_use]
    pub fn link(&self, wants: Wants) -> (SimSender, SimReceiver) {
        assert!(wants.packet_bytes_max + HEAD_BYTES <= wants.buffer_bytes, "no packet fits");
        let mut net = self.lock();
        let at = net.pipes.len();
        let (sender, receiver) = (Side::default(), Side::default());
        let under_way = VecDeque::new();
        net.pipes.push(Pipe { wants, under_way, bytes: 0, looks: 0, wanted: 0, sender, receiver });
        let end = || Pointer { network: self.clone(), at, figures: Figures::default() };
        (SimSender(end()), SimReceiver(end()))
    }

    /// From now on nothing arrives any more, on any link.
    pub fn split(&self) {
        self.lock().is_split = true;
    }

    /// What was held up goes on.
    pub fn heal(&self) {
        let mut net = self.lock();
        net.is_split = false;
        net.pipes.iter_mut().for_each(|pipe| pipe.receiver.wake());
    }

    /// Both ends of every link have waited long enough: all break. What was under way is lost.
    pub fn give_up(&self) {
        for pipe in &mut self.lock().pipes {
            pipe.under_way.clear();
            pipe.break_off();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Net {
    /// Puts a packet on its way, and breaks the link if it is time for that.
    fn send(&mut self, at: usize, packet: Bytes) {
        let Self { dice, faults, pipes, .. } = self;
        let pipe = &mut pipes[at];
        let late = dice.below(faults.looks_max + 1);
        let before = pipe.under_way.back().map_or(0, |(look, _)| *look);
        pipe.bytes += packet.len() + HEAD_BYTES;
        pipe.under_way.push_back(((pipe.looks + late).max(before), packet));
        if faults.break_once_in > 0 && dice.below(faults.break_once_in) == 0 {
            // All, nothing, or any part of it still arrives.
            let there = pipe.under_way.len() as u64;
            let arrives = [there, 0, dice.below(there + 1)][dice.below(3) as usize];
            pipe.under_way.truncate(arrives as usize);
            pipe.break_off();
        }
        pipe.receiver.wake();
    }

    /// What a receiver finds when it looks.
    fn look(&mut self, at: usize) -> Result<Option<Bytes>, End> {
        let pipe = &mut self.pipes[at];
        if pipe.receiver.end == Some(End::Closed) && pipe.under_way.is_empty() {
            return Err(End::Closed);
        }
        if self.is_split {
            return Ok(None);
        }
        pipe.looks += 1;
        let looks = pipe.looks;
        if let Some((_, packet)) = pipe.under_way.pop_front_if(|(look, _)| *look < looks) {
            pipe.bytes -= packet.len() + HEAD_BYTES;
            if pipe.has_room() {
                pipe.sender.wake();
            }
            return Ok(Some(packet));
        }
        match &pipe.receiver.end {
            Some(end) if pipe.under_way.is_empty() => Err(end.clone()),
            _ => Ok(None),
        }
    }
}

/// Which link of which network an end is of.
#[derive(Debug)]
struct Pointer {
    network: Network,
    at: usize,
    figures: Figures,
}

impl Pointer {
    fn with<T>(&self, act: impl FnOnce(&mut Pipe) -> T) -> T {
        act(&mut self.network.lock().pipes[self.at])
    }
}

/// See the module.
#[derive(Debug)]
pub struct SimSender(Pointer);

impl SimSender {
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut Pipe) -> Option<T>,
    ) -> Poll<T> {
        self.0.with(|pipe| match look(pipe) {
            Some(found) => Poll::Ready(found),
            None => {
                pipe.sender.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    }
}

impl Sender for SimSender {
    fn try_send(&mut self, parts: &[&[u8]]) -> Result<(), Refusal> {
        let packet = Bytes::from(parts.concat());
        let bytes = packet.len();
        let mut net = self.0.network.lock();
        let pipe = &mut net.pipes[self.0.at];
        let bytes_max = pipe.wants.packet_bytes_max;
        if let Some(end) = &pipe.sender.end {
            return Err(Refusal::Over(end.clone()));
        }
        if bytes > bytes_max {
            return Err(Refusal::TooLarge { bytes_max });
        }
        pipe.wanted = bytes + HEAD_BYTES;
        if !pipe.has_room() {
            self.0.figures.full += 1;
            return Err(Refusal::Full);
        }
        pipe.wanted = 0;
        net.send(self.0.at, packet);
        drop(net);
        self.0.figures.count(bytes);
        Ok(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.poll(cx, |pipe| match &pipe.sender.end {
            Some(end) => Some(Err(end.clone())),
            None => pipe.has_room().then_some(Ok(())),
        })
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.poll(cx, |pipe| pipe.sender.end.clone())
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        Poll::Ready(self.0.with(|pipe| {
            pipe.sender.over(End::Closed);
            pipe.receiver.over(End::Closed);
            match &pipe.sender.end {
                Some(End::Closed) | None => Ok(()),
                Some(end) => Err(end.clone()),
            }
        }))
    }

    fn packet_bytes_max(&self) -> usize {
        self.0.with(|pipe| pipe.wants.packet_bytes_max)
    }

    fn figures(&self) -> Figures {
        self.0.figures
    }
}

impl Drop for SimSender {
    fn drop(&mut self) {
        self.0.with(|pipe| pipe.receiver.over(End::Broken(Error::Gone)));
    }
}

/// See the module.
#[derive(Debug)]
pub struct SimReceiver(Pointer);

impl Receiver for SimReceiver {
    fn try_recv(&mut self) -> Result<Option<Bytes>, End> {
        let found = self.0.network.lock().look(self.0.at)?;
        if let Some(packet) = &found {
            self.0.figures.count(packet.len());
        }
        Ok(found)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        if let Some(found) = self.try_recv().transpose() {
            return Poll::Ready(found);
        }
        let mut net = self.0.network.lock();
        let is_split = net.is_split;
        let pipe = &mut net.pipes[self.0.at];
        if is_split || pipe.under_way.is_empty() {
            pipe.receiver.waker = Some(cx.waker().clone());
        } else {
            // Late is a number of looks: it looks again when others had their turn.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn close(&mut self) {
        self.0.with(|pipe| {
            pipe.under_way.clear();
            pipe.sender.over(End::Closed);
            pipe.receiver.end = Some(End::Closed);
        });
    }

    fn figures(&self) -> Figures {
        self.0.figures
    }
}

impl Drop for SimReceiver {
    fn drop(&mut self) {
        self.0.with(|pipe| pipe.sender.over(End::Broken(Error::Gone)));
    }
}

#[cfg(test)]
pub(crate) mod tests;
