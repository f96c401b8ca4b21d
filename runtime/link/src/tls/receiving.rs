//! The end of a connection that packets come out of, and the task that reads them.
//!
//! Keeps true: packets that are here, or that the sender may still send, are at most the
//! window. A sender that sends more has broken its word, and the link ends. A head is checked
//! before memory is asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use super::Settings;
use super::wire::{self, ALL, Head, cost};
use crate::ends::{End, Figures, Receiver};
use crate::error::Error;

/// Read from the connection at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct TlsReceiver {
    shared: Arc<Shared>,
    /// The one task, which ends with this, or soon after.
    tasks: JoinSet<()>,
    figures: Figures,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Tells the task that there is something to say.
    work: Notify,
    window: u64,
    packet_bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Bytes>,
    /// What the packets ever begun to read count.
    head: u64,
    /// How much of it was given out.
    tail: u64,
    /// How much of that the sender knows.
    told: u64,
    /// This end has closed.
    is_closed: bool,
    /// How it ended, behind the packets that are there.
    end: Option<End>,
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        result
    }

    fn over(&self, end: End) {
        self.change(|state| {
            state.end.get_or_insert(end);
        });
    }

    /// Makes room for a packet that begins.
    fn begin(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.packet_bytes_max {
            return Err(Error::Garbage { what: "a packet is larger than was agreed" });
        }
        let mut state = self.lock();
        let head = state.head + cost(bytes);
        if head - state.told > self.window {
            return Err(Error::Garbage { what: "more is under way than there is room for" });
        }
        state.head = head;
        Ok(())
    }
}

impl TlsReceiver {
    pub(super) fn new<S>(stream: TlsStream<S>, settings: Settings) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Notify::new(),
            window: settings.window_bytes as u64,
            packet_bytes_max: settings.packet_bytes_max,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(run(shared.clone(), stream, settings.handshake_time_max));
        Self { shared, tasks, figures: Figures::default() }
    }

    /// Nothing more is read, for tests.
    #[cfg(test)]
    pub(super) fn is_over(&self) -> bool {
        self.shared.lock().end.is_some()
    }

    /// The next packet, how it ended, or nothing; then the waker is told of what comes.
    fn take(&mut self, waker: Option<&Waker>) -> Result<Option<Bytes>, End> {
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(End::Closed);
        }
        let Some(packet) = state.packets.pop_front() else {
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            state.waker = waker.cloned();
            return Ok(None);
        };
        state.tail += cost(packet.len());
        if state.tail - state.told >= self.shared.window / 4 {
            self.shared.work.notify_one();
        }
        drop(state);
        self.figures.count(packet.len());
        Ok(Some(packet))
    }
}

impl Receiver for TlsReceiver {
    fn try_recv(&mut self) -> Result<Option<Bytes>, End> {
        self.take(None)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        // A sender that is never out of packets leaves others of this thread their turn.
        let turn = std::task::ready!(tokio::task::coop::poll_proceed(cx));
        match self.take(Some(cx.waker())).transpose() {
            Some(taken) => {
                turn.made_progress();
                Poll::Ready(taken)
            }
            None => {
                self.figures.sleeps += 1;
                Poll::Pending
            }
        }
    }

    fn close(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.packets.clear();
        drop(state);
        self.shared.work.notify_one();
    }

    fn figures(&self) -> Figures {
        self.figures
    }
}

impl Drop for TlsReceiver {
    fn drop(&mut self) {
        let state = self.shared.lock();
        let says_farewell = state.is_closed || state.end == Some(End::Closed);
        drop(state);
        if says_farewell {
            // It says so and ends, in a time that is bounded.
            self.tasks.detach_all();
        } else {
            self.tasks.abort_all();
        }
    }
}

/// Reads what comes and says how far this end is, until it is over.
async fn run<S>(shared: Arc<Shared>, stream: TlsStream<S>, farewell: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reads, mut writes) = tokio::io::split(stream);
    let mut reads = BufReader::with_capacity(BUFFER_BYTES, reads);
    let end = tokio::select! {
        biased;
        end = read_all(&shared, &mut reads) => end,
        end = tell(&shared, &mut writes) => end,
    };
    if end != End::Closed {
        shared.over(end);
        return;
    }
    // Before anybody here knows of it, and may drop this end: the sender waits for it.
    let all = ALL.to_le_bytes();
    let says = wire::write(&mut writes, &all);
    // Whoever does not listen is gone anyway.
    let _said = tokio::time::timeout(farewell, says).await;
    shared.over(end);
    // What the sender has written must be read, or the system cuts the connection at once, and the
    // sender may not read what was said.
    let ends = async {
        writes.shutdown().await?;
        tokio::io::copy_buf(&mut reads, &mut tokio::io::sink()).await
    };
    let _ended = tokio::time::timeout(farewell, ends).await;
}

/// Until the sender says that nothing more comes, or goes.
async fn read_all(shared: &Shared, mut from: impl AsyncRead + Unpin) -> End {
    loop {
        match read_one(shared, &mut from).await {
            Ok(Some(packet)) => shared.change(|state| {
                if !state.is_closed {
                    state.packets.push_back(packet);
                }
            }),
            Ok(None) => return End::Closed,
            Err(error) => return End::Broken(error),
        }
    }
}

async fn read_one(
    shared: &Shared,
    mut from: impl AsyncRead + Unpin,
) -> Result<Option<Bytes>, Error> {
    let Head::Packet(bytes) = Head::decode(wire::read(&mut from).await?)? else {
        return Ok(None);
    };
    shared.begin(bytes)?;
    let mut packet = vec![0; bytes];
    from.read_exact(&mut packet).await.map_err(Error::io("read"))?;
    Ok(Some(packet.into()))
}

/// Until this end has closed, or nothing can be said any more.
async fn tell(shared: &Shared, mut to: impl AsyncWrite + Unpin) -> End {
    loop {
        let (tail, is_closed) = {
            let mut state = shared.lock();
            let is_news = state.tail - state.told >= shared.window / 4;
            if is_news {
                state.told = state.tail;
            }
            (is_news.then_some(state.tail), state.is_closed)
        };
        if is_closed {
            return End::Closed;
        }
        let Some(tail) = tail else {
            shared.work.notified().await;
            continue;
        };
        if let Err(error) = wire::write(&mut to, &tail.to_le_bytes()).await {
            return End::Broken(error);
        }
    }
}
