//! How words of the wire and those of the host become each other.

use std::time::Duration;

use crate::host::{self, TenantLimits, TenantTerms};
use crate::slice::{Cap, WHOLE};
use crate::wire::{End, Terms};

/// A tenant with a cap may save up what it gets in so long: some pictures of a video.
const BURST_SPAN: Duration = Duration::from_millis(100);
/// What it may save up at least: nothing shorter is scheduled.
const BURST_TIME_MIN: Duration = Duration::from_millis(2);

/// What a host promises a tenant.
pub(super) fn promised(terms: &Terms, limits: TenantLimits) -> TenantTerms {
    TenantTerms {
        weight: terms.weight,
        cap: terms.cap.map(cap),
        guaranteed_bytes: terms.guaranteed_bytes,
        borrowable_bytes: terms.borrowable_bytes,
        limits,
    }
}

pub(super) const fn ended(end: &host::End) -> End {
    match end {
        host::End::Whole => End::Whole,
        host::End::Fuel => End::Fuel,
        host::End::Cancelled => End::Cancelled,
        host::End::Deadline => End::Deadline,
        host::End::Overdue => End::Overdue,
        host::End::Poisoned => End::Poisoned,
        host::End::Refused(_) => End::Refused,
        host::End::Lost | host::End::Recalled => End::Lost,
    }
}

/// A cap with what may be saved up under it. A rate that is none is the host's to refuse.
fn cap(rate: u32) -> Cap {
    let burst = BURST_SPAN.saturating_mul(rate) / WHOLE;
    Cap { rate, burst: burst.max(BURST_TIME_MIN) }
}
