//! What a stream function knows, in a form that other code can go on with.
//!
//! ```text
//!   old code                          new code
//!   take()  ─► state, memory ───────► restore()
//!   (the function still waits)        the function begins with this memory at the next event
//! ```
//!
//! - The function is not carried over, only its memory: what it kept in local variables is gone.
//!   So it keeps there what it can do without, and begins as if it had just come to its loop.
//! - A function that has returned or failed has done so for other code, too.
//! - Bytes that were not written so are refused, and the stream stays where it was.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::fmt;
use std::rc::Rc;

use crate::failure::{Failed, Outcome};
use crate::kept::{Kept, read_all, read_bytes, write_bytes};
use crate::stage::Stage;
use crate::stream::{EventStream, Progress, StreamOutput, StreamStage};

/// The memory of a stream function with `#[stream(snapshot)]`: its third argument.
///
/// A stream whose stage gets other code goes on with it, from what is in here, if the manifest says
/// `on-update = "snapshot"`. The new code may be of another version of `T`, if that reads what the
/// old one wrote: with [`kept_as_json!`](crate::kept_as_json), for example, new members that have a
/// default.
///
/// It is a cell. What is borrowed of it is not to be held across an `await`; the stream could not
/// go over then, and the host's log says so.
pub struct Memory<T> {
    value: Rc<RefCell<T>>,
    resumed: Rc<Cell<bool>>,
}

impl<T: Default> Memory<T> {
    fn new() -> Self {
        Self { value: Rc::default(), resumed: Rc::default() }
    }
}

impl<T> Memory<T> {
    fn share(&self) -> Self {
        Self { value: Rc::clone(&self.value), resumed: Rc::clone(&self.resumed) }
    }

    /// Looks at it.
    ///
    /// # Panics
    /// If what [`Memory::borrow_mut`] gave is still there.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }

    /// Changes it.
    ///
    /// # Panics
    /// If what one of the two gave is still there.
    pub fn borrow_mut(&mut self) -> RefMut<'_, T> {
        self.value.borrow_mut()
    }

    /// Whether the function goes on with what another instance knew: then the stream's first events
    /// are not to come.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.resumed.get()
    }
}

impl<T: fmt::Debug> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The function, with its memory.
type Bound<R> = Box<dyn Fn(EventStream, StreamOutput) -> R>;

/// An instance of a stream function with a memory.
pub(crate) struct MemoryStage<R, T> {
    stage: StreamStage<Bound<R>>,
    memory: Memory<T>,
}

/// What comes first in a snapshot.
const WAITS: u8 = 0;
const RETURNED: u8 = 1;
const FAILED: u8 = 2;

impl<R, T> MemoryStage<R, T>
where
    R: Future<Output: Outcome> + 'static,
    T: Kept + Default + 'static,
{
    pub(crate) fn new(
        function: impl Fn(EventStream, StreamOutput, Memory<T>) -> R + 'static,
    ) -> Self {
        let memory = Memory::new();
        let shared = memory.share();
        let bound: Bound<R> = Box::new(move |events, out| function(events, out, shared.share()));
        Self { stage: StreamStage::new(bound), memory }
    }
}

impl<R, T> Stage for MemoryStage<R, T>
where
    R: Future<Output: Outcome> + 'static,
    T: Kept + Default + 'static,
{
    fn handle(&mut self, frame: Vec<u8>) -> Vec<Failed> {
        self.stage.handle(frame)
    }

    fn take(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        match self.stage.progress() {
            None | Some(Progress::Waiting(_)) => bytes.push(WAITS),
            Some(Progress::Returned) => bytes.push(RETURNED),
            Some(Progress::Failed(message)) => {
                bytes.push(FAILED);
                write_bytes(message.as_bytes(), &mut bytes);
            }
        }
        let memory = self.memory.value.try_borrow();
        let memory = memory.map_err(|_| {
            "the stream function holds what it borrowed of its memory while it waits".to_owned()
        })?;
        memory.write(&mut bytes);
        Ok(bytes)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let (progress, memory) =
            read(snapshot).ok_or_else(|| "it is not what this memory is written as".to_owned())?;
        self.stage.set_progress(progress);
        self.memory.value.replace(memory);
        self.memory.resumed.set(true);
        Ok(())
    }
}

fn read<T: Kept>(snapshot: &[u8]) -> Option<(Option<Progress>, T)> {
    let (state, mut rest) = snapshot.split_first()?;
    let progress = match *state {
        WAITS => None,
        RETURNED => Some(Progress::Returned),
        FAILED => {
            let message = str::from_utf8(read_bytes(&mut rest)?).ok()?;
            Some(Progress::Failed(message.to_owned()))
        }
        _ => return None,
    };
    Some((progress, read_all(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Result;
    use crate::testing::{Handled, Harness, Input};

    /// Emits the sum so far; says so when it begins, and fails on what is no number.
    async fn sum(
        mut events: EventStream,
        mut out: StreamOutput,
        mut memory: Memory<i64>,
    ) -> Result {
        if !memory.is_resumed() {
            out.emit("begin");
        }
        while let Some(event) = events.next().await {
            if event.payload() == b"stop" {
                return Ok(());
            }
            *memory.borrow_mut() += event.text()?.parse::<i64>()?;
            let sum = *memory.borrow();
            out.emit(sum.to_string());
        }
        Ok(())
    }

    /// The same, doubled.
    async fn twice(mut events: EventStream, mut out: StreamOutput, mut memory: Memory<i64>) {
        while let Some(event) = events.next().await {
            *memory.borrow_mut() += event.text().unwrap().parse::<i64>().unwrap();
            out.emit((*memory.borrow() * 2).to_string());
        }
        out.emit("end");
    }

    fn data(payload: &str) -> Input {
        Input::data("k", payload)
    }

    fn texts(handled: &Handled) -> Vec<&str> {
        handled.outputs.iter().map(|output| output.text()).collect()
    }

    #[test]
    fn other_code_goes_on_with_the_memory_at_the_next_event() {
        let mut old = Harness::stream_with_memory(sum);
        let handled = old.handle([Input::open("k"), data("1"), data("2")]);
        assert_eq!(texts(&handled), ["begin", "1", "3"]);
        let snapshot = old.take_snapshot().expect("it waits");
        assert_eq!(texts(&old.handle([data("4")])), ["7"], "taking one changes nothing");
        let mut same = Harness::stream_with_memory(sum).with_snapshot(&snapshot).expect("its own");
        assert_eq!(texts(&same.handle([data("4")])), ["7"]);
        let mut other = Harness::stream_with_memory(twice).with_snapshot(&snapshot).expect("so");
        assert_eq!(texts(&other.handle([data("4"), Input::end("k")])), ["14", "end"]);
    }

    #[test]
    fn a_function_that_has_returned_or_failed_has_done_so_for_other_code() {
        for (payload, says) in [("stop", None), ("x", Some("the stream function failed before"))] {
            let mut old = Harness::stream_with_memory(sum);
            old.handle([Input::open("k"), data(payload)]);
            let snapshot = old.take_snapshot().expect("it is over");
            let mut other = Harness::stream_with_memory(twice).with_snapshot(&snapshot).unwrap();
            let handled = other.handle([data("1")]);
            assert_eq!(texts(&handled), [""; 0]);
            let said = handled.failures.first().map(|failed| failed.failure.message().to_owned());
            assert_eq!(said.is_some(), says.is_some(), "{said:?}");
            assert!(says.is_none_or(|says| said.unwrap().starts_with(says)));
        }
    }

    #[test]
    fn what_is_not_the_memory_is_refused() {
        let mut old = Harness::stream_with_memory(sum);
        old.handle([Input::open("k"), data("300")]);
        let snapshot = old.take_snapshot().expect("it waits");
        let refuses = |bytes: &[u8]| Harness::stream_with_memory(sum).with_snapshot(bytes).is_err();
        assert!(!refuses(&snapshot));
        for cut in 0..snapshot.len() {
            assert!(refuses(&snapshot[..cut]), "{cut}");
        }
        assert!(refuses(&[&snapshot[..], b"x"].concat()));
        assert!(refuses(&[9, 0]));
        let plain = |mut events: EventStream, _: StreamOutput| async move {
            while events.next().await.is_some() {}
        };
        assert!(Harness::stream(plain).with_snapshot(&snapshot).is_err(), "it has none");
        assert!(Harness::stream(plain).take_snapshot().is_err());
    }

    #[test]
    fn a_memory_that_is_held_cannot_be_taken() {
        #[expect(clippy::await_holding_refcell_ref, reason = "it is what is tested")]
        async fn holds(mut events: EventStream, _: StreamOutput, mut memory: Memory<i64>) {
            let mut held = memory.borrow_mut();
            while events.next().await.is_some() {
                *held += 1;
            }
        }
        let mut harness = Harness::stream_with_memory(holds);
        harness.handle([Input::open("k")]);
        let said = harness.take_snapshot().expect_err("it is held");
        assert!(said.contains("while it waits"), "{said}");
    }
}
