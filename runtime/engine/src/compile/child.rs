//! Compiling a component in a short-lived process of its own: that process.
//!
//! Keeps true: its limits are in force before it reads the first byte of the component; it opens
//! no file, writes none, starts no program, and ends with the node or before it. All it says on
//! standard output is one reply.
//!
//! Leaves to others: telling apart the ways it may die without a reply (`compile`).

use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use wasmtime::Engine;

use super::wire::{REQUEST_BYTES, Reply, Request, Status, says_out_of_memory};
use crate::error::engine_text;
use crate::image::instrument;
use crate::tuning::{Fingerprint, compile_engine};

/// Descriptors it may hold: the standard streams and a few that the runtime opens.
const FILES_MAX: u64 = 32;

/// Claim on the processor, on a scale where 0 is usual and 19 the lowest.
const NICENESS: i32 = 10;

/// Largest component that is read, whatever the node asks for.
const WASM_BYTES_MAX: u64 = 1 << 30;

/// The compile process: reads a request on standard input, answers on standard output.
///
/// Called first thing in the process, on its main thread, while there is no other.
#[must_use]
pub fn compile_main() -> ExitCode {
    let mut stdin = std::io::stdin().lock();
    let mut head = [0; REQUEST_BYTES];
    if let Err(error) = end_with_node().and_then(|()| stdin.read_exact(&mut head)) {
        return complain(&format!("no request: {error}"));
    }
    let Some(request) = Request::decode(&head) else {
        return complain("the request is of another version of the program");
    };
    if let Err(error) = confine(&request) {
        return complain(&format!("limits cannot be set: {error}"));
    }
    let wasm = match read_component(&mut stdin, request.wasm_bytes) {
        Ok(wasm) => wasm,
        Err(error) => return complain(&format!("the component is cut off: {error}")),
    };
    let engine = match compile_engine(request.threads as usize) {
        Ok(engine) => engine,
        Err(error) => return complain(&error.to_string()),
    };
    let fingerprint = Fingerprint::of(&engine);
    let (status, body) = match compiled(&engine, &wasm) {
        Ok(code) if code.len() as u64 > request.output_bytes_max => {
            (Status::OutputTooLarge, Vec::new())
        }
        Ok(code) => (Status::Compiled, code),
        Err(text) if says_out_of_memory(&text) => (Status::OutOfMemory, text.into_bytes()),
        Err(text) => (Status::Refused, text.into_bytes()),
    };
    let reply = Reply { status, fingerprint, body_bytes: body.len() as u64 };
    match answer(&reply, &body) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("nobody hears the answer: {error}")),
    }
}

/// Makes a component ready for images, then compiles it.
fn compiled(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, String> {
    let wasm = instrument(wasm)?;
    engine.precompile_component(&wasm).map_err(|error| engine_text(&error))
}

/// The kernel kills this process when the node's thread that started it ends. A node that ended
/// before this line closed the pipe, and the request is cut off.
fn end_with_node() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Puts the limits of the request in force, and those that never vary.
fn confine(request: &Request) -> std::io::Result<()> {
    // When memory is short this process goes first. Refused in some containers, and then so be it.
    std::fs::write("/proc/self/oom_score_adj", "1000").unwrap_or_default();
    // Lowering one's own claim is allowed; a sandbox that forbids it costs only fairness.
    rustix::process::nice(NICENESS).ok();
    limit(Resource::As, request.memory_bytes, 0)?;
    limit(Resource::Cpu, request.cpu_seconds, 1)?;
    limit(Resource::Nofile, FILES_MAX, 0)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)
}

/// Sets a limit, and `slack` above it the one that cannot be lifted. Never raises what is set.
fn limit(resource: Resource, value: u64, slack: u64) -> std::io::Result<()> {
    let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let maximum = value.saturating_add(slack).min(allowed);
    setrlimit(resource, Rlimit { current: Some(value.min(maximum)), maximum: Some(maximum) })?;
    Ok(())
}

fn read_component(stdin: &mut impl Read, bytes: u64) -> std::io::Result<Vec<u8>> {
    if bytes > WASM_BYTES_MAX {
        return Err(std::io::Error::other("it is too large"));
    }
    let mut wasm = Vec::new();
    stdin.take(bytes).read_to_end(&mut wasm)?;
    if wasm.len() as u64 != bytes {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(wasm)
}

fn answer(reply: &Reply, body: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&reply.encode())?;
    stdout.write_all(body)?;
    stdout.flush()
}

/// Says what is wrong where the node looks for it, and fails.
fn complain(text: &str) -> ExitCode {
    // Nobody is left to tell if this fails too.
    writeln!(std::io::stderr(), "{text}").unwrap_or_default();
    ExitCode::FAILURE
}
