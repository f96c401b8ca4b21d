//! The guest of tests of GPUs: does one thing on a device for each event, and says in a text what
//! came of it.
//!
//! A payload is a command and its words. What the host refuses is answered by its code, so that a
//! test reads both what works and what does not; only what is no command fails.
//!
//! | command | does | answers |
//! |---|---|---|
//! | `double N...` | doubles numbers by a map | `2 4 6` |
//! | `device` | asks for the device | `kind=… generation=… …` |
//! | `loop [GROUPS]`, `nan`, `zero`, `oob`, `two` | submits what it says | see `kernels.rs` |
//! | `bomb`, `kernels N [FIRST]` | makes kernels | `made N` and the code of what was refused |
//! | `hold BYTES`, `create-many N` | makes buffers and keeps them | `handle H`, `made N` |
//! | `drop` | frees what is kept | `dropped N` |
//! | `forge HANDLE`, `peek BYTES` | reads a buffer, by a number or a new one | `zeros BYTES` |
//! | `constant ASSET` | sums the words of an asset on the device | `sum S` |
//! | `begin`, `wait` | begins a loop without end; cancels it and waits | `begun`, `ended E` |
//! | `flood N` | begins N loops without end, and ends them | `begun N` and a code |
//! | `die` | begins one and traps | |
//! | `attach BYTES WORD [PAYLOAD]` | emits a buffer of a word | PAYLOAD, or `attached BYTES` |
//! | `attach-twice …` | the same with two events | |
//! | `attach-foreign HANDLE` | emits a number that is none of its own | a trap |
//!
//! An event with attachments is no command. By its payload:
//!
//! | payload | does | answers |
//! |---|---|---|
//! | `write…`, `write-step…` | tries to write to them, or the device | `written N` |
//! | `pass PAYLOAD` | passes them on | the payload |
//! | any other | sums their words on the device | `sum S of BYTES` |

mod attached;
mod buffers;
mod kernels;
mod sources;

use sluicebox_guest::gpu::{self, Error, Map};
use sluicebox_guest::{Event, Failure, Output, Result, stage};

/// What the host would not do is an answer as well.
type Answer = std::result::Result<String, Error>;

static DOUBLE: Map<u32, u32> = Map::new(sources::DOUBLE, "double");

#[stage]
fn command(event: Event<'_>, out: &mut Output) -> Result {
    if event.buffers().next().is_some() {
        return attached::received(&event, out);
    }
    let text = event.text()?;
    let (command, words) = text.split_once(' ').unwrap_or((text, ""));
    if command == "double" {
        return double(&event, words, out);
    }
    if let Some(done) = attached::command(&event, command, words, out) {
        return done;
    }
    let answer = answer(command, words)?;
    out.emit(&event, answer.unwrap_or_else(|error| format!("refused {}", error.code())));
    Ok(())
}

/// The words of one event are as many records; the map is given them as events of their own.
fn double(event: &Event<'_>, words: &str, out: &mut Output) -> Result {
    let numbers = words.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let (mut given, mut doubled) = (numbers.iter(), Vec::new());
    DOUBLE.run(
        numbers.iter().map(|_| *event),
        out,
        |_| given.next().copied().ok_or_else(|| Failure::reject("more events than numbers")),
        |_, number, _| doubled.push(number.to_string()),
    );
    // If the device did nothing the event has failed, and what is emitted does not stand.
    out.emit(event, doubled.join(" "));
    Ok(())
}

fn answer(command: &str, words: &str) -> Result<Answer> {
    let number = || words.split_whitespace().next().unwrap_or_default().parse::<u64>();
    Ok(match command {
        "device" => device(),
        "loop" => kernels::endless(number().unwrap_or(1024)),
        "nan" => kernels::nan(),
        "zero" => kernels::zero(),
        "oob" => kernels::out_of_bounds(),
        "two" => kernels::two(),
        "bomb" => kernels::bomb(),
        "kernels" => kernels::many(number()?, words.split_whitespace().nth(1)),
        "hold" => buffers::hold(number()?),
        "create-many" => buffers::create_many(number()?),
        "drop" => Ok(buffers::drop_all()),
        "forge" => return Ok(buffers::forge(number()?)),
        "peek" => buffers::peek(number()?),
        "constant" => kernels::constant(words),
        "begin" => kernels::begin(),
        "wait" => kernels::wait(),
        "flood" => kernels::flood(number()?),
        "die" => kernels::die(),
        _ => return Err(Failure::reject(format!("there is no command {command:?}"))),
    })
}

fn device() -> Answer {
    let device = gpu::device()?;
    let kind = format!("{:?}", device.kind).to_lowercase();
    Ok(format!(
        "kind={kind} generation={} groups={} threads={} bindings={} fuel={} guaranteed={} \
         borrowable={} queue={} name={}",
        device.generation,
        device.groups,
        device.group_threads,
        device.bindings,
        device.fuel,
        device.memory_guaranteed,
        device.memory_borrowable,
        device.queue,
        device.name
    ))
}

#[cfg(test)]
mod tests;
