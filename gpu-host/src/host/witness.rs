//! Whose kernel it was if the driver takes the process with it.
//!
//! A driver may die of a kernel that it compiles or runs, and then nobody is left to say of which.
//! So it is said before: to a witness, who keeps it where it outlives the process. Keeps true:
//! whenever the device is given something or waited for, the witness was told last what
//! [`Host::suspect`] says.
//!
//! It is a suspicion: the driver runs what it was given when it likes, beside what it is given.

use super::Host;
use crate::device::Device;

/// Whose, and its hash.
type Suspect = (u64, [u8; 32]);

/// Tells it; none if the device has none.
type Tell = Box<dyn FnMut(Option<Suspect>) + Send>;

/// See the module.
#[derive(Default)]
pub(super) struct Witness {
    tell: Option<Tell>,
    told: Option<Suspect>,
    /// What the device is being given now.
    given: Option<Suspect>,
}

impl Witness {
    /// The device is about to be given a kernel, or work of one.
    pub(super) fn give(&mut self, tenant: u64, kernel: [u8; 32]) {
        self.given = Some((tenant, kernel));
        self.tell(self.given);
    }

    fn tell(&mut self, suspect: Option<Suspect>) {
        if self.told == suspect {
            return;
        }
        self.told = suspect;
        if let Some(tell) = &mut self.tell {
            tell(suspect);
        }
    }
}

impl<D: Device> Host<D> {
    /// Has a witness told whose kernel is suspect whenever that changes, before the device is
    /// given it: by the tenant's number and the kernel's hash, or none if the device has none. It
    /// is told on the thread that drives, a few times for each piece of work at most, and has to
    /// be quick.
    pub fn set_witness(&mut self, tell: Tell) {
        self.witness = Witness { tell: Some(tell), ..Witness::default() };
        self.tell_witness();
    }

    /// The tenant and the kernel that is to be suspected if the process dies now: what the device
    /// is being given, or else the oldest that it has not done.
    #[must_use]
    pub fn suspect(&self) -> Option<(u64, [u8; 32])> {
        let mut flown =
            self.flights.iter().filter_map(|flight| Some((flight.tenant.0, flight.kernel?)));
        self.witness.given.or_else(|| flown.next())
    }

    /// The device was given what it was to be, or has done something.
    pub(super) fn tell_witness(&mut self) {
        self.witness.given = None;
        let suspect = self.suspect();
        self.witness.tell(suspect);
    }
}
