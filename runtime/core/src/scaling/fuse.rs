//! Whether a hot stage of a segment gets a segment of its own, and goes back.
//!
//! The stages of a segment run one after another, so that a partition does as much as its whole
//! tree costs. A stage by itself runs beside the others, on another thread or node: the partition
//! then does as much as the most expensive part, and pays for the hops. That is worth it when the
//! throughput gained, less the share that the hops cost, is above a threshold, and only if the
//! segment is short of throughput; else fused is always cheaper.
//!
//! Keeps true: what just changed stays for a while, and between apart and together lies a gap, so
//! that costs a little different change nothing. Ties go to the stage that comes first.

/// Index of a stage within its segment; 0 is the root.
pub type StageAt = usize;

/// What a stage costs, by event that enters the segment: calls times their cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageCost {
    /// The stage that feeds it, which comes before it; `None` for the root.
    pub fed_by: Option<StageAt>,
    /// Nanoseconds of its own, for each event that enters the segment.
    pub own_nanos: u64,
    /// Nanoseconds it would take to hand over what enters it, if that were a hop: sending and
    /// receiving, for each event that enters the segment.
    pub hop_nanos: u64,
}

/// When it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Per cent of throughput gained, less per cent of work added, for a stage to be set apart.
    pub gain_percent: u64,
    /// How busy the busiest partition must be, fused, for a stage to be set apart.
    pub busy_percent: u64,
    /// How busy it may be, fused, for the stage to come back.
    pub idle_percent: u64,
    /// Milliseconds after a change without another.
    pub hold_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { gain_percent: 30, busy_percent: 85, idle_percent: 60, hold_ms: 600_000 }
    }
}

/// What a decision is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured<'a> {
    /// The stages of the segment as it is when fused, each behind the one that feeds it.
    pub stages: &'a [StageCost],
    /// Events a second that enter the busiest partition, in thousandths.
    pub busiest: super::RateMilli,
    /// The stage that is apart now.
    pub apart: Option<StageAt>,
    /// Milliseconds since that changed.
    pub since_change_ms: u64,
}

/// What is to be, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The stage that is to have a segment of its own; `None`: all are fused.
    pub apart: Option<StageAt>,
    /// Why.
    pub why: Why,
}

/// Why stages are together or apart. Gains are per cent of throughput, less per cent of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The busiest partition has time to spare.
    Idle,
    /// No stage would gain enough by itself.
    NotWorth {
        /// What the best would gain.
        gains: i64,
    },
    /// It gains that much.
    Gains {
        /// How much.
        gains: i64,
    },
    /// It changed a short while ago.
    Held,
}

/// Decides whether a stage of a segment is to have a segment of its own.
///
/// # Panics
/// If a stage is fed by one that does not come before it.
#[must_use]
pub fn decide(measured: &Measured<'_>, policy: &Policy) -> Decision {
    let apart = measured.apart.filter(|stage| *stage < measured.stages.len());
    if measured.since_change_ms < policy.hold_ms {
        return Decision { apart, why: Why::Held };
    }
    let fused: u128 = measured.stages.iter().map(|stage| u128::from(stage.own_nanos)).sum();
    // Nanoseconds a second, by thousandths of events a second: 10^12 of them are all of a second.
    let busy_percent = fused.saturating_mul(u128::from(measured.busiest)) / 10_000_000_000;
    let needed = if apart.is_some() { policy.idle_percent } else { policy.busy_percent };
    if busy_percent < u128::from(needed) {
        return Decision { apart: None, why: Why::Idle };
    }
    let gains = |stage: StageAt| (gain(measured.stages, stage, fused), stage);
    if let Some(stage) = apart {
        let (gains, _) = gains(stage);
        if gains >= as_gain(u128::from(policy.gain_percent / 2)) {
            return Decision { apart, why: Why::Gains { gains } };
        }
    }
    let best =
        (0..measured.stages.len()).map(gains).max_by_key(|(gains, at)| (*gains, usize::MAX - at));
    match best {
        Some((gains, stage)) if gains >= as_gain(u128::from(policy.gain_percent)) => {
            Decision { apart: Some(stage), why: Why::Gains { gains } }
        }
        best => {
            let gains = best.map_or(0, |(gains, _)| gains);
            Decision { apart: None, why: Why::NotWorth { gains } }
        }
    }
}

/// Per cent of throughput gained if the stage is apart, less per cent of work added.
fn gain(stages: &[StageCost], apart: StageAt, fused: u128) -> i64 {
    let mut parts = vec![0_u128; stages.len()];
    let mut part_of = vec![0; stages.len()];
    let mut hops = 0_u128;
    for (at, stage) in stages.iter().enumerate() {
        let feeder = stage.fed_by.filter(|_| at > 0);
        assert!(feeder.is_none_or(|feeder| feeder < at), "stages come behind what feeds them");
        let hop = u128::from(stage.hop_nanos);
        part_of[at] = match feeder {
            Some(feeder) if at != apart && feeder != apart => part_of[feeder],
            Some(feeder) => {
                // Both ends have half of it.
                hops += hop;
                parts[part_of[feeder]] += hop / 2;
                parts[at] += hop - hop / 2;
                at
            }
            None => at,
        };
        parts[part_of[at]] += u128::from(stage.own_nanos);
    }
    let longest = parts.into_iter().max().unwrap_or(0).max(1);
    let throughput = fused * 100 / longest;
    as_gain(throughput) - 100 - as_gain(hops * 100 / fused.max(1))
}

/// Gains beyond measure are as good as none.
fn as_gain(percent: u128) -> i64 {
    i64::try_from(percent.min(1_000_000_000)).unwrap_or(i64::MAX)
}
