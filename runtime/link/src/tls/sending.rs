//! The end of a connection that packets go into, and the task that writes them.
//!
//! Keeps true: packets taken and not known to be given out are at most the window, here, on the way
//! and there together. So what waits here is bounded, in two buffers used in turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::Settings;
use super::wire::{self, ALL, Head, cost};
use crate::ends::{End, Figures, Refusal, Sender};
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub struct TlsSender {
    shared: Arc<Shared>,
    /// The one task, which ends with this, or soon after.
    tasks: JoinSet<()>,
    packet_bytes_max: usize,
    figures: Figures,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Tells the task that there is something to write.
    work: Notify,
    window: u64,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be written.
    pending: Vec<u8>,
    /// What the packets ever taken count.
    head: u64,
    /// How much of it the receiver has given out.
    tail: u64,
    /// Bytes of the packet that found no room.
    wanted: u64,
    is_closing: bool,
    end: Option<End>,
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is over, and whoever waits is told.
    fn over(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The receiver says how far it is.
    fn given_out(&self, tail: u64) -> Result<(), Error> {
        let mut state = self.lock();
        if !(state.tail..=state.head).contains(&tail) {
            return Err(Error::Garbage { what: "the receiver is where it cannot be" });
        }
        state.tail = tail;
        if state.has_room(self.window) {
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
        Ok(())
    }
}

impl State {
    fn has_room(&self, window: u64) -> bool {
        self.head - self.tail + self.wanted <= window
    }
}

impl TlsSender {
    pub(super) fn new(stream: TlsStream<TcpStream>, window: u64, settings: Settings) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), work: Notify::new(), window });
        let mut tasks = JoinSet::new();
        tasks.spawn(run(shared.clone(), stream, settings.handshake_time_max));
        let (packet_bytes_max, figures) = (settings.packet_bytes_max, Figures::default());
        Self { shared, tasks, packet_bytes_max, figures }
    }

    /// Ready if something is there by now; else the task is woken for the next change.
    fn poll<T>(&mut self, cx: &mut Context<'_>, look: impl FnOnce(&State) -> Option<T>) -> Poll<T> {
        let mut state = self.shared.lock();
        if let Some(found) = look(&state) {
            return Poll::Ready(found);
        }
        state.waker = Some(cx.waker().clone());
        self.figures.sleeps += 1;
        Poll::Pending
    }
}

impl Sender for TlsSender {
    fn try_send(&mut self, parts: &[&[u8]]) -> Result<(), Refusal> {
        let bytes = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let bytes_max = self.packet_bytes_max;
        let mut state = self.shared.lock();
        if let Some(end) = &state.end {
            return Err(Refusal::Over(end.clone()));
        }
        if state.is_closing {
            return Err(Refusal::Over(End::Closed));
        }
        if bytes > bytes_max {
            return Err(Refusal::TooLarge { bytes_max });
        }
        let span = cost(bytes);
        state.wanted = span;
        if !state.has_room(self.shared.window) {
            self.figures.full += 1;
            return Err(Refusal::Full);
        }
        state.wanted = 0;
        state.head += span;
        let was_empty = state.pending.is_empty();
        state.pending.extend(Head::Packet(bytes).encode());
        parts.iter().for_each(|part| state.pending.extend_from_slice(part));
        drop(state);
        if was_empty {
            self.shared.work.notify_one();
        }
        self.figures.count(bytes);
        Ok(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let window = self.shared.window;
        self.poll(cx, |state| match &state.end {
            Some(end) => Some(Err(end.clone())),
            None => state.has_room(window).then_some(Ok(())),
        })
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.poll(cx, |state| state.end.clone())
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut state = self.shared.lock();
        if !std::mem::replace(&mut state.is_closing, true) {
            self.shared.work.notify_one();
        }
        drop(state);
        self.poll(cx, |state| match &state.end {
            Some(End::Closed) => Some(Ok(())),
            Some(end) => Some(Err(end.clone())),
            None => None,
        })
    }

    fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    fn figures(&self) -> Figures {
        self.figures
    }
}

impl Drop for TlsSender {
    fn drop(&mut self) {
        // With the task goes the connection: the receiver sees that nobody said farewell.
        self.tasks.abort_all();
    }
}

/// Writes what is to be written and reads how far the receiver is, until it is over.
async fn run(shared: Arc<Shared>, stream: TlsStream<TcpStream>, farewell: Duration) {
    let (reads, writes) = tokio::io::split(stream);
    let listens = listen(&shared, reads);
    tokio::pin!(listens);
    let end = tokio::select! {
        // First what the other end says: it may be why nothing can be written any more.
        biased;
        end = &mut listens => end,
        broken = write_all(&shared, writes) => {
            // That the other end has closed may be there to be read still.
            match tokio::time::timeout(farewell, listens).await {
                Ok(End::Closed) => End::Closed,
                _ => broken,
            }
        }
    };
    shared.over(end);
}

/// Until the receiver says that it has all, or goes.
async fn listen(shared: &Shared, mut from: impl AsyncRead + Unpin) -> End {
    loop {
        let told = match wire::read(&mut from).await.map(u64::from_le_bytes) {
            Ok(ALL) => return End::Closed,
            Ok(tail) => shared.given_out(tail),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            return End::Broken(error);
        }
    }
}

/// Until it cannot be written any more. Behind the last head it waits for the receiver's word.
async fn write_all(shared: &Shared, mut to: impl AsyncWrite + Unpin) -> End {
    let mut writing = Vec::new();
    loop {
        let is_last = {
            let mut state = shared.lock();
            std::mem::swap(&mut state.pending, &mut writing);
            state.is_closing && writing.is_empty()
        };
        if is_last {
            writing.extend(Head::Last.encode());
        } else if writing.is_empty() {
            shared.work.notified().await;
            continue;
        }
        if let Err(error) = wire::write(&mut to, &writing).await {
            return End::Broken(error);
        }
        if is_last {
            // Not a shutdown: the receiver has it when it says so, and then nothing matters.
            return std::future::pending().await;
        }
        writing.clear();
    }
}
