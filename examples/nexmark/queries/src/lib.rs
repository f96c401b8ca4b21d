//! The queries of Nexmark, one component for all of them.
//!
//! A query is one stage or two: the second wants another key. Which part of which query a stage is
//! says its setting `step`; a file here has the parts of one query. `read.rs` reads what comes in.
//!
//! What people see leaves as JSON, but for queries 0 and 1, which give every event or bid as it
//! came.

mod q0;
mod q1;
mod q11;
mod q12;
mod q2;
mod q3;
mod q4;
mod q5;
mod q7;
mod q8;
mod read;

use sluicebox_guest::{Events, Failure, Output, Result, config, stage};

#[stage]
fn query(events: Events<'_>, out: &mut Output) -> Result {
    let step = config::get("step").unwrap_or_default();
    match step.as_str() {
        "q0" => q0::pass(events, out),
        "q1" => q1::convert(events, out)?,
        "q2" => q2::select(events, out)?,
        "q3-local" => q3::local(events, out)?,
        "q3-join" => q3::join(events, out)?,
        "q4-winning" => q4::winning(events, out)?,
        "q4-average" => q4::average(events, out)?,
        "q5-count" => q5::count(events, out),
        "q5-hottest" => q5::hottest(events, out),
        "q7-highest" => q7::highest(events, out)?,
        "q7-highest-of-all" => q7::highest_of_all(events, out),
        "q8-split" => q8::split(events, out)?,
        "q8-join" => q8::join(events, out),
        "by-bidder" => q11::by_bidder(events, out)?,
        "q11-sessions" => q11::sessions(events, out),
        "q12-count" => q12::count(events, out),
        _ => return Err(Failure::reject(format!("config step = {step:?}: there is no such step"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
