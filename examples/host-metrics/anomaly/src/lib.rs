//! Finds readings of a machine that stand out from those before them.
//!
//! A stream function: one instance for each series of readings, which remembers the last readings
//! in a local variable. Port 0, `stats`, gets every reading with mean and standard deviation of
//! those before it; port 1, `anomalies`, those further than a few deviations from the mean.
//!
//! Settings: `window`, how many readings are remembered (60); `deviations`, how far out an anomaly
//! is (4).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sluicebox_guest::{EventStream, Failure, Result, StreamOutput, config, stream};

const PORT_STATS: u16 = 0;
const PORT_ANOMALIES: u16 = 1;
const WINDOW_DEFAULT: usize = 60;
const WINDOW_MAX: usize = 100_000;
const DEVIATIONS_DEFAULT: f64 = 4.0;
/// Fewer readings than this say nothing about what is usual.
const READINGS_MIN: usize = 10;
/// A deviation below this share of the mean counts as this much: of a series that never changes,
/// every reading that differs in the last digit would be infinitely far out.
const DEVIATION_SHARE_MIN: f64 = 1e-3;

/// What comes in; other members, like a time, are left alone.
#[derive(Deserialize)]
struct Reading<'a> {
    #[serde(borrow)]
    series: std::borrow::Cow<'a, str>,
    value: f64,
}

/// What goes out.
#[derive(Serialize)]
struct Stats<'a> {
    series: &'a str,
    value: f64,
    mean: f64,
    deviation: f64,
}

#[stream]
async fn anomaly(mut events: EventStream, mut out: StreamOutput) -> Result {
    let mut window = Window::new(config::parse("window")?.unwrap_or(WINDOW_DEFAULT))?;
    let far = config::parse("deviations")?.unwrap_or(DEVIATIONS_DEFAULT);
    while let Some(event) = events.next().await {
        let Reading { series, value } = match event.json() {
            Ok(reading) => reading,
            Err(failure) => {
                out.fail(failure);
                continue;
            }
        };
        let (mean, deviation) = window.mean_and_deviation();
        let stats = Stats { series: &series, value, mean, deviation };
        out.draft().port(PORT_STATS).json(&stats);
        let usual = far * deviation.max(mean.abs() * DEVIATION_SHARE_MIN);
        if window.readings.len() >= READINGS_MIN && (value - mean).abs() > usual {
            out.draft().port(PORT_ANOMALIES).json(&stats);
        }
        window.push(value);
    }
    Ok(())
}

/// The last readings of a series.
struct Window {
    readings: VecDeque<f64>,
    length: usize,
}

impl Window {
    fn new(length: usize) -> Result<Self> {
        if !(READINGS_MIN..=WINDOW_MAX).contains(&length) {
            return Err(Failure::reject("config window is from 10 to 100,000 readings"));
        }
        Ok(Self { readings: VecDeque::new(), length })
    }

    fn push(&mut self, value: f64) {
        if self.readings.len() == self.length {
            self.readings.pop_front();
        }
        self.readings.push_back(value);
    }

    /// Mean and standard deviation; 0 and 0 of nothing. Added up anew each time: running sums drift
    /// when a large reading enters and leaves.
    fn mean_and_deviation(&self) -> (f64, f64) {
        if self.readings.is_empty() {
            return (0.0, 0.0);
        }
        let count = self.readings.len() as f64;
        let mean = self.readings.iter().sum::<f64>() / count;
        let squares = self.readings.iter().map(|value| (value - mean) * (value - mean));
        (mean, (squares.sum::<f64>() / count).sqrt())
    }
}

#[cfg(test)]
mod tests;
