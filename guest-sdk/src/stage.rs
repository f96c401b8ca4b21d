//! From a function of the author's to what the host calls.
//!
//! A stage function takes one of three forms; which one follows from its arguments:
//!
//! ```text
//! fn f(event: Event<'_>, out: &mut Output)            once for each event
//! fn f(value: Json<'_, T>, out: &mut Output)          once for each event, its payload read
//! fn f(events: Events<'_>, out: &mut Output)          once for all events of a call
//! ```
//!
//! - An `Err` of the first two forms is the failure of that event; the next event is handled.
//! - An `Err` of the third form names no event. So it asks the host to try each event of the call
//!   again, alone; a call with one event takes the `Err` as it is. In this way a batch function may
//!   use `?` and still only the event that cannot be handled is rejected. `Output::fail` is exact
//!   and cheaper.
//!
//! Stream functions are in `stream.rs`. The host sees neither: it sees `Stage`.

use std::cell::RefCell;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::event::{Event, Events, Kind};
use crate::failure::{Class, Failed, Failure, Outcome};
use crate::json::Json;
use crate::output::Output;

/// What an instance does when the host calls it.
pub(crate) trait Stage {
    /// Handles one frame; gives back the events that failed.
    fn handle(&mut self, frame: Vec<u8>) -> Vec<Failed>;

    /// What another instance needs to go on, in bytes of its own.
    fn take(&self) -> Result<Vec<u8>, String> {
        Err(NO_SNAPSHOTS.to_owned())
    }

    /// Goes on from what another gave.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let _ = snapshot;
        Err(NO_SNAPSHOTS.to_owned())
    }
}

/// What a stage without a [`Memory`](crate::Memory) says.
const NO_SNAPSHOTS: &str = "the stage has no snapshots";

/// A stage function in one of its forms. `Form` only tells the forms apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stage function",
    label = "not a stage function",
    note = "a stage function takes `(Event<'_>, &mut Output)`, `(Json<'_, T>, &mut Output)` or \
            `(Events<'_>, &mut Output)`, and returns nothing or a `Result<(), E>` whose error is a \
            `Failure` or a standard error"
)]
pub trait StageFunction<Form>: 'static {
    /// Handles the events of one call.
    fn run(&self, events: Events<'_>, out: &mut Output);
}

/// Form of a function called once for each event.
#[derive(Debug)]
pub struct EachEvent<R>(PhantomData<R>);
/// Form of a function called once for each event with what was read from its payload.
#[derive(Debug)]
pub struct EachJson<T, R>(PhantomData<(T, R)>);
/// Form of a function called once for all events of a call.
#[derive(Debug)]
pub struct AllEvents<R>(PhantomData<R>);

impl<F, R> StageFunction<EachEvent<R>> for F
where
    F: for<'a, 'o> Fn(Event<'a>, &'o mut Output) -> R + 'static,
    R: Outcome,
{
    fn run(&self, events: Events<'_>, out: &mut Output) {
        for event in events {
            if let Err(failure) = self(event, out).into_result() {
                out.fail_at(event.index(), failure);
            }
        }
    }
}

impl<F, T, R> StageFunction<EachJson<T, R>> for F
where
    F: for<'a, 'o> Fn(Json<'a, T>, &'o mut Output) -> R + 'static,
    T: DeserializeOwned,
    R: Outcome,
{
    fn run(&self, events: Events<'_>, out: &mut Output) {
        for event in events {
            if event.kind() != Kind::Data {
                continue;
            }
            let handled = Json::read(event).and_then(|value| self(value, out).into_result());
            if let Err(failure) = handled {
                out.fail_at(event.index(), failure);
            }
        }
    }
}

impl<F, R> StageFunction<AllEvents<R>> for F
where
    F: for<'a, 'o> Fn(Events<'a>, &'o mut Output) -> R + 'static,
    R: Outcome,
{
    fn run(&self, events: Events<'_>, out: &mut Output) {
        if let Err(failure) = self(events, out).into_result() {
            fail_all(events, &failure, out);
        }
    }
}

/// The failure of a call as failures of its events, see the head of this file.
#[cold]
fn fail_all(events: Events<'_>, failure: &Failure, out: &mut Output) {
    let alone = events.len() == 1;
    for event in events {
        let failure = failure.clone();
        out.fail(&event, if alone { failure } else { failure.with_class(Class::Retry) });
    }
}

/// An instance of a stage function.
pub(crate) struct FunctionStage<F, Form> {
    function: F,
    output: Output,
    form: PhantomData<Form>,
}

impl<F: StageFunction<Form>, Form> FunctionStage<F, Form> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, output: Output::new(), form: PhantomData }
    }
}

impl<F: StageFunction<Form>, Form> Stage for FunctionStage<F, Form> {
    fn handle(&mut self, frame: Vec<u8>) -> Vec<Failed> {
        self.function.run(Events::open(&frame), &mut self.output);
        self.output.finish()
    }
}

thread_local! {
    /// The stage of this instance, made by its first call. A Wasm instance has one thread.
    static INSTANCE: RefCell<Option<Box<dyn Stage>>> = const { RefCell::new(None) };
}

/// Does something with this instance's stage, making it if this comes first.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "natively the harness calls"))]
pub(crate) fn with<T>(
    make: impl FnOnce() -> Box<dyn Stage>,
    run: impl FnOnce(&mut dyn Stage) -> T,
) -> T {
    INSTANCE.with_borrow_mut(|instance| run(&mut **instance.get_or_insert_with(make)))
}

/// Calls this instance's stage.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "natively the harness calls"))]
pub(crate) fn handle(frame: Vec<u8>, make: impl FnOnce() -> Box<dyn Stage>) -> Vec<Failed> {
    with(make, |stage| stage.handle(frame))
}
