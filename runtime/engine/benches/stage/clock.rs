//! Processor time, and what is made of samples of it.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds this thread has run.
pub(crate) fn cpu_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// How long something took: on the processor, and on the wall. In nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

/// Measures one run of `work`.
pub(crate) fn measure<R>(work: impl FnOnce() -> R) -> (R, Took) {
    let (cpu, wall) = (cpu_nanos(), Instant::now());
    let result = work();
    let wall = wall.elapsed().as_nanos() as f64;
    (result, Took { cpu: cpu_nanos() - cpu, wall })
}

/// The value below which `share` of the samples are.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    sorted[((last as f64 * share).round() as usize).min(last)]
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Runs all `cases` in turn, `rounds` times after one to warm up. Each run gives one sample; gives
/// back the samples of each case.
pub(crate) fn take_turns(rounds: usize, cases: &mut [Case<'_>]) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            let sample = case();
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    samples
}

/// One case: does its work once and says what it cost.
pub(crate) type Case<'a> = Box<dyn FnMut() -> f64 + 'a>;
