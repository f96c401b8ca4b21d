//! Why a call ended, for the stage's owner: the cause first, in the words of the manifest, then
//! where in the guest it was.

use wasmtime::{Trap, WasmBacktrace};

use crate::error::shown;
use crate::host::wasi::RANDOM_BYTES_MAX;
use crate::host::{HANDLES_MAX, Host, RefusedBy};
use crate::instance::START_FUEL;

/// Longest explanation.
const TEXT_BYTES_MAX: usize = 1024;

/// Functions named, the innermost first.
const FRAMES_SHOWN_MAX: usize = 4;

pub(crate) fn out_of_fuel(fuel: u64, events: u64) -> String {
    format!(
        "out of fuel: the call used more than the {fuel} units it had for {events} events \
         (limits.fuel-per-event)"
    )
}

/// Explains an error of the engine. `call` is the fuel and the number of events of the call, if
/// the instance had started.
pub(crate) fn explain(error: &wasmtime::Error, host: &Host, call: Option<(u64, u64)>) -> String {
    let mut text = match (error.downcast_ref::<Trap>(), call) {
        (Some(Trap::OutOfFuel), Some((fuel, events))) => out_of_fuel(fuel, events),
        (Some(Trap::OutOfFuel), None) => {
            format!("out of fuel: the component used more than {START_FUEL} units to start")
        }
        (Some(Trap::StackOverflow), _) => "the stack overflowed: recursion too deep".to_owned(),
        _ => in_our_words(&error.root_cause().to_string(), host),
    };
    match host.limiter.refused {
        Some(RefusedBy::Stage) => text.push_str(&format!(
            "; before that it asked for more memory than its limit of {} bytes (limits.memory)",
            host.settings.limits.memory
        )),
        Some(RefusedBy::Room(_)) => text.push_str(
            "; before that it asked for more memory than is left of the tenant's quota \
             (memory-bytes) or of the node's",
        ),
        None => {}
    }
    text.push_str(&place(error));
    shown(&text, TEXT_BYTES_MAX)
}

/// The engine's own bounds, by the names our users know them by.
fn in_our_words(cause: &str, host: &Host) -> String {
    let limits = &host.settings.limits;
    if cause.contains("allocated for hostcalls") {
        format!(
            "one import or export was given more data than limits.emit-bytes ({}) and twice \
             limits.event-bytes ({}) allow",
            limits.emit_bytes, limits.event_bytes
        )
    } else if cause.contains("resource table has no free keys") {
        format!("the stage holds more than {HANDLES_MAX} handles of WASI at once")
    } else if cause.contains("exceeds limit") && cause.contains("requested len") {
        format!("wasi:random was asked for more than {RANDOM_BYTES_MAX} bytes at once")
    } else if cause.contains("allowed for an event") {
        format!("{cause} (limits.event-bytes)")
    } else {
        cause.to_owned()
    }
}

/// Where it happened, if the guest kept its names.
fn place(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let names: Vec<&str> =
        trace.frames().iter().filter_map(|f| f.func_name()).take(FRAMES_SHOWN_MAX).collect();
    if names.is_empty() { String::new() } else { format!("; in {}", names.join(" < ")) }
}
