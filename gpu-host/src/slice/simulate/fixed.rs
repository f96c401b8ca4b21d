//! What sharing is compared with: partitions that each tenant has for itself, and one queue.
//!
//! A partition is a part of the device at all times, as hardware partitions are: a job takes its
//! time over the part. That is the best there is without sharing: slots in time would idle besides.
//! Jobs are done whole, in the order of their arrival.

use super::trace::Job;
use super::{Fared, GAP_NANOS};

/// Each tenant has its part of the device, and nothing else.
pub(crate) fn partitions(jobs: &[Job], parts: &[f64], span: u64, give_up: u64) -> Vec<Fared> {
    let mut fared = vec![Fared::default(); parts.len()];
    let mut free_at = vec![0; parts.len()];
    for job in jobs {
        let part = parts[job.tenant];
        run(&mut fared[job.tenant], &mut free_at[job.tenant], job, (part, span, give_up));
    }
    fared.iter_mut().for_each(|tenant| tenant.latencies.sort_unstable());
    fared
}

/// All tenants have one queue: first come, first served.
pub(crate) fn fifo(jobs: &[Job], tenants: usize, span: u64, give_up: u64) -> Vec<Fared> {
    let mut fared = vec![Fared::default(); tenants];
    let mut free_at = 0;
    for job in jobs {
        run(&mut fared[job.tenant], &mut free_at, job, (1.0, span, give_up));
    }
    fared.iter_mut().for_each(|tenant| tenant.latencies.sort_unstable());
    fared
}

fn run(fared: &mut Fared, free_at: &mut u64, job: &Job, bounds: (f64, u64, u64)) {
    let (part, span, give_up) = bounds;
    let begin = job.at.max(*free_at) + GAP_NANOS;
    if begin > job.at + give_up {
        fared.dropped += 1;
        return;
    }
    let end = begin + (job.nanos() as f64 / part) as u64;
    *free_at = end;
    if end <= span {
        fared.latencies.push(end - job.at);
    }
    let inside = end.min(span).saturating_sub(begin);
    fared.served += (inside as f64 * part) as u64;
}
