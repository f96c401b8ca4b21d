//! Stream functions: an async function that reads one stream from its first event to its end.
//!
//! ```text
//!   host                     instance (serves one stream)
//!   handle(open, a, b) ────► starts the future, polls it: it takes a and b, then waits
//!   handle(c)          ────► polls it: it takes c, then waits
//!   handle(end)        ────► polls it: `next` gives nothing, the function returns
//! ```
//!
//! - Between calls the function is a future in the instance's memory; nothing of it is on a stack.
//! - An event is borrowed from the stream until the next one is asked for, so it cannot be used as
//!   a cause in a later call, where its index would mean another event.
//! - The only thing a stream function can wait for is its next event. If it waits for anything
//!   else, nothing will wake it; the events it left unread fail, and say why.
//! - No event is lost silently: after a function has given back an error, later events fail. After
//!   one has given back nothing it has seen enough, and later events are ignored.
//!
//! When a stream opens and ends is decided by the host; it needs `scope = "stream"` in the
//! manifest.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use serde::Serialize;

use crate::event::{Event, Events, Kind};
use crate::failure::{Failed, Failure, Outcome, Result};
use crate::frame;
use crate::output::{Cause, Draft, Origin, Output};
use crate::stage::Stage;

/// What the function's two ends and the runner share.
struct Shared {
    output: RefCell<Output>,
    /// The frame of the current call until the stream takes it.
    inbox: RefCell<Option<Rc<Vec<u8>>>>,
    /// The event taken last, or the first of the call if none was taken yet: always an event of
    /// the current call, so always good as a cause.
    current: Cell<Origin>,
    /// How many events of the current call were taken.
    taken: Cell<u32>,
}

/// The events of a stream, in order. Given to a stream function.
pub struct EventStream {
    shared: Rc<Shared>,
    frame: Rc<Vec<u8>>,
    /// Where the next event begins in `frame`.
    at: usize,
    index: u32,
    key: Option<Box<[u8]>>,
    ended: bool,
}

impl EventStream {
    fn new(shared: Rc<Shared>) -> Self {
        Self { shared, frame: Rc::default(), at: 0, index: 0, key: None, ended: false }
    }

    /// The next event; nothing when the stream has ended.
    pub async fn next(&mut self) -> Option<Event<'_>> {
        let (at, index) = poll_fn(|_| self.take()).await?;
        Some(Event::first_of(&self.frame[at..], index).0)
    }

    /// Takes the next event that is for the author: place in the frame, and index.
    fn take(&mut self) -> Poll<Option<(usize, u32)>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if self.at == self.frame.len() {
                let Some(frame) = self.shared.inbox.take() else {
                    return Poll::Pending;
                };
                self.frame = frame;
                self.at = frame::HEADER_BYTES;
                self.index = 0;
                continue;
            }
            let frame = Rc::clone(&self.frame);
            let (event, rest) = Event::first_of(&frame[self.at..], self.index);
            let place = (self.at, self.index);
            self.at = frame.len() - rest.len();
            self.index += 1;
            self.shared.taken.set(self.index);
            self.shared.current.set(event.origin());
            if !self.is_ours(&event) {
                continue;
            }
            match event.kind() {
                Kind::Open => {}
                Kind::End => self.ended = true,
                Kind::Data | Kind::Timer => return Poll::Ready(Some(place)),
            }
        }
    }

    /// Whether the event belongs to this stream. It does, unless the stage runs with another scope
    /// than it was written for; then keys would mix unseen, so the event fails.
    fn is_ours(&mut self, event: &Event<'_>) -> bool {
        let key = self.key.get_or_insert_with(|| event.key_bytes().into());
        if **key == *event.key_bytes() {
            return true;
        }
        let failure = Failure::reject("a stream function needs scope = \"stream\" in the manifest");
        self.shared.output.borrow_mut().fail(event, failure);
        false
    }
}

/// What a stream function emits. The cause is the event taken last, or the end of the stream.
pub struct StreamOutput {
    shared: Rc<Shared>,
}

impl StreamOutput {
    /// Emits a payload on port 0 with the time of the event taken last.
    pub fn emit(&mut self, payload: impl AsRef<[u8]>) {
        self.draft().emit(payload);
    }

    /// Emits a value as JSON on port 0. If it cannot be written as JSON, the event taken last
    /// fails.
    pub fn json(&mut self, value: &impl Serialize) {
        self.draft().json(value);
    }

    /// Begins an event with a port, key, time or fields of its own. Not to be kept across an
    /// `await`.
    pub fn draft(&mut self) -> Draft<'_, RefMut<'_, Output>> {
        Draft::new(self.shared.output.borrow_mut(), self.shared.current.get())
    }

    /// Says that the event taken last could not be handled; the stream goes on.
    pub fn fail(&mut self, failure: impl Into<Failure>) {
        let event = self.shared.current.get().index;
        self.shared.output.borrow_mut().fail_at(event, failure.into());
    }
}

type Run = Pin<Box<dyn Future<Output = Result>>>;

/// How far the function of this instance has come.
pub(crate) enum Progress {
    /// It waits for the next event.
    Waiting(Run),
    /// It has seen enough.
    Returned,
    /// It gave back this error.
    Failed(String),
}

/// An instance of a stream function.
pub(crate) struct StreamStage<F> {
    function: F,
    shared: Rc<Shared>,
    progress: Option<Progress>,
}

impl<F, R> StreamStage<F>
where
    F: Fn(EventStream, StreamOutput) -> R,
    R: Future<Output: Outcome> + 'static,
{
    pub(crate) fn new(function: F) -> Self {
        let shared = Shared {
            output: RefCell::new(Output::new()),
            inbox: RefCell::new(None),
            current: Cell::new(Origin::default()),
            taken: Cell::new(0),
        };
        Self { function, shared: Rc::new(shared), progress: None }
    }

    fn start(&self) -> Progress {
        let events = EventStream::new(Rc::clone(&self.shared));
        let output = StreamOutput { shared: Rc::clone(&self.shared) };
        let run = (self.function)(events, output);
        Progress::Waiting(Box::pin(async move { run.await.into_result() }))
    }
}

impl<F, R> Stage for StreamStage<F>
where
    F: Fn(EventStream, StreamOutput) -> R,
    R: Future<Output: Outcome> + 'static,
{
    fn handle(&mut self, frame: Vec<u8>) -> Vec<Failed> {
        let frame = Rc::new(frame);
        let events = Events::open(&frame);
        let Some(first) = events.iter().next() else {
            return Vec::new();
        };
        let earlier = self.progress.take().filter(|_| first.kind() != Kind::Open);
        let progress = earlier.unwrap_or_else(|| self.start());
        self.shared.current.set(first.origin());
        self.shared.taken.set(0);
        self.shared.inbox.replace(Some(Rc::clone(&frame)));
        self.progress = Some(self.advance(progress, events));
        self.shared.inbox.take();
        self.shared.output.borrow_mut().finish()
    }
}

impl<F> StreamStage<F> {
    /// How far the function has come; nothing if it has not begun.
    pub(crate) fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// Goes on as if it had come so far. One that has not begun begins with the next event.
    pub(crate) fn set_progress(&mut self, progress: Option<Progress>) {
        self.progress = progress;
    }

    /// Lets the function read the events of one call.
    fn advance(&self, progress: Progress, events: Events<'_>) -> Progress {
        let mut run = match progress {
            Progress::Waiting(run) => run,
            Progress::Returned => return Progress::Returned,
            Progress::Failed(message) => {
                self.fail_rest(events, &format!("the stream function failed before: {message}"));
                return Progress::Failed(message);
            }
        };
        // Nothing ever wakes the function but the next call, and that always polls.
        match run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Progress::Returned,
            Poll::Ready(Err(failure)) => {
                let message = failure.message().to_owned();
                let event = self.shared.current.get().index;
                self.shared.output.borrow_mut().fail_at(event, failure);
                self.fail_rest(events, &format!("the stream function failed before: {message}"));
                Progress::Failed(message)
            }
            Poll::Pending if (self.shared.taken.get() as usize) < events.len() => {
                let message = "the stream function waits for something else than its next event";
                self.fail_rest(events, message);
                Progress::Failed(message.to_owned())
            }
            Poll::Pending => Progress::Waiting(run),
        }
    }

    /// Fails the events of this call that were not taken.
    #[cold]
    fn fail_rest(&self, events: Events<'_>, message: &str) {
        let mut output = self.shared.output.borrow_mut();
        for event in events.iter().skip(self.shared.taken.get() as usize) {
            if matches!(event.kind(), Kind::Data | Kind::Timer) {
                output.fail(&event, Failure::reject(message));
            }
        }
    }
}

#[cfg(test)]
mod tests;
