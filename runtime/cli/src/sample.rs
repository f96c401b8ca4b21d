//! `sample`: this machine's figures as lines of JSON, for `send` or for other programs.

use tokio::time::MissedTickBehavior;

use crate::args::SampleCommand;
use crate::failure::{Cause, Failure};
use crate::host_metrics::{Reading, Sampler};
use crate::screen::Screen;

/// `sample`
pub(crate) async fn run(screen: Screen, command: SampleCommand) -> Result<(), Failure> {
    let SampleCommand::Host(args) = command;
    let mut sampler = Sampler::default();
    // Rates need a first sample to begin from.
    sampler.sample()?;
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        ticks.tick().await;
        screen.bytes(&ndjson(&sampler.sample()?)?)?;
        left -= 1;
    }
    Ok(())
}

/// One line a reading.
pub(crate) fn ndjson(readings: &[Reading]) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    for reading in readings {
        serde_json::to_writer(&mut text, reading)
            .map_err(|error| Failure::new(Cause::Internal, error.to_string()))?;
        text.push(b'\n');
    }
    Ok(text)
}
