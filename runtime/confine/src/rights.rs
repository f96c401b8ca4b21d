//! No capabilities, none to be gained by executing a program, no dumps of memory and no tracers.
//!
//! Keeps true: all sets of capabilities are empty, also for root, and are read back to be sure.
//! Root is then a user who owns files and no more.
//!
//! Not dumpable means that files below `/proc/self` belong to root. The process itself still reads
//! them (`status`, `statm`, `exe`), if Landlock lets it; it can no longer write any. A program that
//! it starts is dumpable again; the limit of core dumps and the filter of calls hold there too.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use crate::{Error, Outcome};

/// The row in the report.
pub(crate) const CAPABILITIES: &str = "capabilities";

/// The row in the report.
pub(crate) const DUMPABLE: &str = "dumpable";

/// Numbers a capability can have.
const NUMBERS: u32 = u64::BITS;

/// Empties all sets of capabilities.
pub(crate) fn drop_capabilities() -> Result<Outcome, Error> {
    let now = capabilities(None).map_err(Error::measure(CAPABILITIES, "capget"))?;
    let detail = if now.effective.contains(CapabilitySet::SETPCAP) {
        forbid_root()?;
        empty_bounding_set()?;
        "none, and none can be gained"
    } else {
        "none; the bounding set stays, which gives nothing without new privileges"
    };
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there was no such set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(Error::measure(CAPABILITIES, "the ambient set")(errno)),
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(Error::measure(CAPABILITIES, "capset"))?;
    let left = capabilities(None).map_err(Error::measure(CAPABILITIES, "capget"))?;
    if left != sets {
        let why = format!("some are left: {left:?}");
        return Err(Error::Measure { measure: CAPABILITIES, why });
    }
    Ok(Outcome::InPlace(detail.to_owned()))
}

/// A program executed by root gains nothing by that.
fn forbid_root() -> Result<(), Error> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(Error::measure(CAPABILITIES, "secure bits"))
}

fn empty_bounding_set() -> Result<(), Error> {
    for number in 0..NUMBERS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            // This kernel has no capability of that number, nor of any above.
            Err(Errno::INVAL) => break,
            Ok(false) => {}
            Ok(true) => remove_capability_from_bounding_set(capability)
                .map_err(Error::measure(CAPABILITIES, "the bounding set"))?,
            Err(errno) => return Err(Error::measure(CAPABILITIES, "the bounding set")(errno)),
        }
    }
    Ok(())
}

/// No dump of memory is written, and nobody without rights may look into the process.
pub(crate) fn forbid_dumps() -> Result<Outcome, Error> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Error::measure(DUMPABLE, "prctl"))?;
    Ok(Outcome::InPlace("no dumps of memory, no tracers".to_owned()))
}
