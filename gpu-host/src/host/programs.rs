//! Kernels and graphs: made and dropped.
//!
//! A kernel is looked up, checked if it is not known, and loaded. Checking takes up to some tenths
//! of a second and needs nothing of the host: who does not want to wait looks it up
//! ([`Host::find_kernel`]), checks it elsewhere ([`Kernel::check`]) and brings what it came to
//! ([`Host::admit_kernel`]).

use std::sync::Arc;

use super::graph::{Bounds, Graph};
use super::kernels::{Known, Ready};
use super::space::What;
use super::words::{Op, Owner};
use super::{Host, Refused};
use crate::Error;
use crate::device::Device;
use crate::kernel::{Kernel, Rejected, Slot};
use crate::slice::Tenant;

impl<D: Device> Host<D> {
    /// Makes a handle of a kernel from its source. `entry` names a compute entry point.
    ///
    /// # Errors
    /// Why it is not accepted; it has hung the device before; the owner's tenant has as many as it
    /// may.
    pub fn kernel(&mut self, who: Owner, source: &str, entry: &str) -> Result<u64, Refused> {
        let hash = Kernel::hash_of(source, entry);
        if let Some(handle) = self.find_kernel(who, hash)? {
            return Ok(handle);
        }
        let checked = Kernel::check(source, entry, &self.space(who)?.terms.limits.kernel);
        self.admit_kernel(who, hash, checked.map(Arc::new))
    }

    /// Makes a handle of a kernel that is known by its [`Kernel::hash_of`]; none if it is not.
    ///
    /// # Errors
    /// As of [`kernel`](Self::kernel).
    pub fn find_kernel(&mut self, who: Owner, hash: [u8; 32]) -> Result<Option<u64>, Refused> {
        let space = self.space_mut(who)?;
        space.room_for_kernel()?;
        match space.cache.get(&hash) {
            None => Ok(None),
            Some(Known::Refused(why)) => Err(why),
            Some(Known::Checked(kernel)) => {
                let ready = self.load(who, hash, &kernel)?;
                self.name_kernel(who, ready).map(Some)
            }
            Some(Known::Ready(ready)) => self.name_kernel(who, ready).map(Some),
        }
    }

    /// Makes a handle of a kernel that was checked, with the tenant's limits, or remembers why it
    /// was refused.
    ///
    /// # Errors
    /// As of [`kernel`](Self::kernel).
    pub fn admit_kernel(
        &mut self,
        who: Owner,
        hash: [u8; 32],
        checked: Result<Arc<Kernel>, Rejected>,
    ) -> Result<u64, Refused> {
        // Somebody else may have brought it meanwhile.
        if let Some(handle) = self.find_kernel(who, hash)? {
            return Ok(handle);
        }
        let space = self.space_mut(who)?;
        let most = space.terms.limits.kernels;
        let mut gone = Vec::new();
        let room = space.cache.make_room(most, &mut gone);
        if let Some(device) = &mut self.device {
            gone.into_iter().for_each(|kernel| device.unload(kernel));
        }
        room?;
        let cache = &mut self.space_mut(who)?.cache;
        match checked {
            Ok(kernel) => {
                let hash = kernel.hash();
                cache.put(hash, Known::Checked(Arc::clone(&kernel)));
                let ready = self.load(who, hash, &kernel)?;
                self.name_kernel(who, ready)
            }
            Err(why) => {
                let why = Refused::Kernel(why);
                // A thread that could not be had says nothing of the source.
                if !matches!(why, Refused::Kernel(Rejected::Failed(_))) {
                    cache.put(hash, Known::Refused(why.clone()));
                }
                Err(why)
            }
        }
    }

    /// The slots of a kernel, in their order.
    ///
    /// # Errors
    /// It is not there.
    pub fn slots(&self, who: Owner, kernel: u64) -> Result<Vec<Slot>, Refused> {
        let found = self.space(who)?.kernel(who, kernel);
        let found = found.ok_or_else(|| self.numbers.missing("kernel", kernel))?;
        Ok(found.kernel.slots().to_vec())
    }

    /// Has a tenant's kernel not run again: it has hung the device, in a process before this one.
    pub fn quarantine(&mut self, tenant: Tenant, kernel: [u8; 32]) {
        if let Some(space) = self.spaces.get_mut(&tenant.0) {
            space.cache.quarantine(kernel);
        }
    }

    /// Makes a graph of steps, which is checked once. What is bound to its slots is said at each
    /// submission.
    ///
    /// # Errors
    /// What is wrong with a step; the owner's tenant has as many as it may; the graph is too large.
    pub fn record(&mut self, who: Owner, ops: &[Op]) -> Result<u64, Refused> {
        let space = self.space(who)?;
        space.room_for_graph()?;
        let dispatch_groups = space.terms.limits.dispatch_groups;
        let (kind, device) = (self.info.kind, self.info.limits);
        let bounds = Bounds { kind, device, dispatch_groups };
        let graph = Graph::record(ops, &bounds, |handle| {
            let found = space.kernel(who, handle);
            found.ok_or_else(|| self.numbers.missing("kernel", handle))
        })?;
        let handle = self.numbers.next()?;
        self.space_mut(who)?.insert(handle, who, What::Graph(Arc::new(graph)));
        Ok(handle)
    }

    /// Has the device have a kernel that is known to be right.
    fn load(
        &mut self,
        who: Owner,
        hash: [u8; 32],
        kernel: &Arc<Kernel>,
    ) -> Result<Arc<Ready>, Refused> {
        self.settle_before(self.info.loads_wait)?;
        self.device()?;
        self.witness.give(who.tenant().0, hash);
        let answer = self.device().map(|device| device.load(kernel));
        self.tell_witness();
        let answer = answer?;
        let known = match &answer {
            Ok(loaded) => {
                Known::Ready(Arc::new(Ready { kernel: Arc::clone(kernel), loaded: *loaded }))
            }
            // It would be no other the next time.
            Err(why @ (Error::Wrong(_) | Error::Driver(_))) => {
                Known::Refused(Refused::Device(why.clone()))
            }
            Err(_) => Known::Checked(Arc::clone(kernel)),
        };
        self.space_mut(who)?.cache.put(hash, known.clone());
        self.noted(answer)?;
        match known {
            Known::Ready(ready) => Ok(ready),
            Known::Refused(why) => Err(why),
            Known::Checked(_) => Err(Error::Lost("it was lost meanwhile".to_owned()).into()),
        }
    }

    fn name_kernel(&mut self, who: Owner, ready: Arc<Ready>) -> Result<u64, Refused> {
        let handle = self.numbers.next()?;
        self.space_mut(who)?.insert(handle, who, What::Kernel(ready));
        Ok(handle)
    }
}
