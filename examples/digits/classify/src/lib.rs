//! Recognises digits in pictures of 12 × 12 bytes, on a GPU.
//!
//! A stage function over all events of a call, which are one batch: their pictures go to the
//! device at once, two kernels run there, and what comes back are a digit and a score for each. A
//! payload of another length fails alone.
//!
//! - The weights are an asset, `weights`. The device has it once for all instances of the stage.
//! - What the hidden layer comes to stays on the device.
//! - Kernels and buffers are kept from call to call; what was lost is made anew.
//!
//! Settings: `check`, whether the processor is to come to the same for each picture (false).

mod cpu;
mod device;

use std::cell::RefCell;

use serde::Serialize;
use sluicebox_guest::{Event, Events, Failure, Kind, Output, Result, assets, config, stage};

use crate::cpu::{ASSET_BYTES, Network, PIXELS, Verdict};
use crate::device::Device;

/// The name that the manifest gives the weights.
const WEIGHTS: &str = "weights";

/// How far the scores of device and processor may be apart: a device may keep more digits in
/// sums than `f32` has.
const SCORE_ERROR_MAX: f32 = 1e-3;

thread_local! {
    /// What this instance has made. It has one thread.
    static CLASSIFIER: RefCell<Option<Classifier>> = const { RefCell::new(None) };
}

#[stage]
fn classify(events: Events<'_>, out: &mut Output) -> Result {
    CLASSIFIER.with_borrow_mut(|made| {
        let classifier = match made {
            Some(classifier) => classifier,
            None => made.insert(Classifier::new()?),
        };
        classifier.classify(events, out)
    })
}

/// What is said of a picture.
#[derive(Debug, Clone, Copy, Serialize)]
struct Said {
    digit: u32,
    score: f32,
}

struct Classifier {
    device: Device,
    /// The network once more, if the processor is to come to the same.
    check: Option<Network>,
}

impl Classifier {
    fn new() -> Result<Self> {
        if assets::size(WEIGHTS) != Some(ASSET_BYTES as u64) {
            let why = format!("the asset {WEIGHTS} has {ASSET_BYTES} bytes; see the manifest");
            return Err(Failure::reject(why));
        }
        // Looked at here, as a kernel takes whatever bytes it is given for weights.
        let network = assets::read_all(WEIGHTS).and_then(|asset| Network::read(&asset));
        let network = network.ok_or_else(|| {
            Failure::reject(format!("the asset {WEIGHTS} has no weights of this network"))
        })?;
        let check = config::parse("check")?.unwrap_or(false);
        Ok(Self { device: Device::default(), check: check.then_some(network) })
    }

    fn classify(&mut self, events: Events<'_>, out: &mut Output) -> Result {
        let (shown, batch) = pictures(events, out);
        if shown.is_empty() {
            return Ok(());
        }
        let verdicts = self.device.verdicts(&batch)?;
        for ((event, picture), verdict) in shown.into_iter().zip(verdicts) {
            match self.check(picture, verdict) {
                Ok(()) => {
                    let Verdict { digit, score } = verdict;
                    out.json(&event, &Said { digit, score });
                }
                Err(failure) => out.fail(&event, failure),
            }
        }
        Ok(())
    }

    /// Holds what the device says against what the processor does, if that is wanted.
    fn check(&self, picture: &[u8; PIXELS], verdict: Verdict) -> Result {
        let Some(network) = &self.check else { return Ok(()) };
        let expected = network.verdict(picture);
        let apart = (verdict.score - expected.score).abs();
        if verdict.digit == expected.digit && apart <= SCORE_ERROR_MAX {
            return Ok(());
        }
        Err(Failure::reject(format!("the device says {verdict:?}, the processor {expected:?}")))
    }
}

/// The events that have a picture, and all their pictures one behind the other.
fn pictures<'a>(
    events: Events<'a>,
    out: &mut Output,
) -> (Vec<(Event<'a>, &'a [u8; PIXELS])>, Vec<u8>) {
    let (mut shown, mut batch) = (Vec::new(), Vec::new());
    // The end of a session is no picture.
    for event in events.iter().filter(|event| event.kind() == Kind::Data) {
        let payload = event.payload();
        match payload.as_array::<PIXELS>() {
            Some(picture) => {
                batch.extend_from_slice(picture);
                shown.push((event, picture));
            }
            None => {
                let found = payload.len();
                let why = format!("a picture has {PIXELS} bytes, 12 × 12, this has {found}");
                out.fail(&event, Failure::reject(why));
            }
        }
    }
    (shown, batch)
}

#[cfg(test)]
mod tests;
