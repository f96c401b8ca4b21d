//! What is on its way to the process: requests, and what it is told without an answer.
//!
//! Keeps true: what it is told comes before any request that was made later. Requests are bounded
//! in number, and who makes one more waits; what it is told is bounded by what there is to tell of.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use sluicebox_engine::gpu::{End, Outcome, Refused};
use sluicebox_gpu::wire::{self, Answer, Want};
use tokio::sync::{Notify, mpsc, oneshot};

use super::sending::{DIRECT_BYTES_MAX, Sending};
use super::{Sessions, refused};
use crate::mailbox::lock;

/// An answer, with its bytes.
pub(super) type Answered = Result<(Answer, Bytes), Refused>;

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) want: Want,
    pub(super) bytes: Bytes,
    pub(super) answer: oneshot::Sender<Answered>,
    /// Of a submission, once it has ended.
    pub(super) ended: oneshot::Sender<Outcome>,
}

/// How a submission ends.
#[derive(Debug)]
pub(super) struct Ending(oneshot::Receiver<Outcome>);

/// What is said of one whose process is gone, and with it whoever would say.
const LOST: Outcome = Outcome { end: End::Lost, device_nanos: 0 };

impl Ending {
    /// Waits for it.
    pub(super) async fn outcome(self) -> Outcome {
        self.0.await.unwrap_or(LOST)
    }

    /// Whether it was lost: nothing more is to be learnt by waiting for it.
    pub(super) fn is_lost(&mut self) -> bool {
        use oneshot::error::TryRecvError;
        matches!(self.0.try_recv(), Err(TryRecvError::Closed))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    queue: mpsc::Sender<Request>,
    /// While the process is up.
    sending: Mutex<Option<Sending>>,
    told: Mutex<Vec<Want>>,
    /// There is something to tell, or the process is wanted.
    news: Notify,
    wanted: Notify,
    /// The process is up, and what is asked gets there.
    is_heard: AtomicBool,
    sessions: Sessions,
    /// There is somebody to tell.
    is_on: bool,
}

impl Line {
    pub(super) fn new(queue: mpsc::Sender<Request>, is_on: bool) -> Self {
        Self {
            is_on,
            queue,
            sending: Mutex::default(),
            told: Mutex::default(),
            news: Notify::new(),
            wanted: Notify::new(),
            is_heard: AtomicBool::new(false),
            sessions: Sessions::default(),
        }
    }

    /// Instances that have something of the device.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The process is wanted.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Whether what is asked gets to the process.
    pub(super) fn set_heard(&self, is_heard: bool) {
        self.is_heard.store(is_heard, Ordering::SeqCst);
    }

    /// The sending side, while the process is up. Before what is told is looked at, this is locked.
    pub(super) const fn sending(&self) -> &Mutex<Option<Sending>> {
        &self.sending
    }

    /// The process is up, and has been told who there is.
    pub(super) fn set_sending(&self, sending: Sending) {
        *lock(&self.sending) = Some(sending);
    }

    /// Puts a request into the ring if that can be done at once. If not, it is given back.
    fn send_directly(&self, request: Request) -> Option<Request> {
        if request.bytes.len() > DIRECT_BYTES_MAX {
            return Some(request);
        }
        let Ok(mut sending) = self.sending.try_lock() else { return Some(request) };
        match &mut *sending {
            Some(sending) if sending.is_clear() && lock(&self.told).is_empty() => {
                sending.send(request);
                if !sending.is_clear() {
                    // The keeper is to look for room.
                    self.news.notify_one();
                }
                None
            }
            _ => Some(request),
        }
    }

    /// Nobody has wanted it until now who does not see that it is there.
    pub(super) fn forget_wanted(&self) {
        let _was_wanted = self.wanted.notified().now_or_never();
    }

    /// Waits until somebody wants it.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Tells the process something, if it is there.
    pub(super) fn tell(&self, want: Want) {
        if self.is_on {
            lock(&self.told).push(want);
            self.news.notify_one();
        }
    }

    /// What there is to tell, in its order.
    pub(super) fn take_told(&self) -> Vec<Want> {
        std::mem::take(&mut *lock(&self.told))
    }

    /// Waits until there is something to tell.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Asks, and waits for the answer. The other is how it ends, if it is a submission.
    ///
    /// # Errors
    /// It was refused, or the process was lost.
    pub(super) async fn ask(
        &self,
        want: Want,
        bytes: Bytes,
    ) -> Result<((Answer, Bytes), Ending), Refused> {
        let (answer, answered) = oneshot::channel();
        let (ended, ending) = oneshot::channel();
        let request = Request { want, bytes, answer, ended };
        if let Some(request) = self.send_directly(request) {
            self.queue.send(request).await.map_err(|_| lost())?;
            // It may have gone to rest since who asks has seen it.
            if !self.is_heard.load(Ordering::SeqCst) {
                self.want();
            }
        }
        let answered = answered.await.map_err(|_| lost())??;
        Ok((answered, Ending(ending)))
    }
}

/// How a submission has ended, as the engine has it.
pub(super) fn outcome(end: wire::End, device_nanos: u64) -> Outcome {
    let end = match end {
        wire::End::Whole => End::Whole,
        wire::End::Fuel => End::Fuel,
        wire::End::Cancelled => End::Cancelled,
        wire::End::Deadline => End::Deadline,
        wire::End::Overdue => End::Overdue,
        wire::End::Poisoned => End::Poisoned,
        wire::End::Refused => End::Refused,
        wire::End::Lost => End::Lost,
    };
    Outcome { end, device_nanos }
}

/// What those are told whose process is gone.
pub(super) fn lost() -> Refused {
    refused("gpu.lost", "the process that had the device has ended, with all that was in it")
}
