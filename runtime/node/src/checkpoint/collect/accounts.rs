//! What tenants used: a part of what is collected that others look at as well.

use std::sync::{Arc, Mutex};

use sluicebox_core::bill::{Books, Used, Whose};
use sluicebox_store::log::Position;

use super::Collected;
use crate::checkpoint::entries;
use crate::mailbox::lock;

impl Collected {
    /// What tenants used, as far as it was read.
    pub(crate) fn books(&self) -> &Arc<Mutex<Books>> {
        &self.books
    }

    /// A record at a position, of a time, says that somebody used so much.
    pub(super) fn bill(&self, whose: Whose<'_>, when: (u64, u64), used: &Used) {
        lock(&self.books).used(whose, when, used);
    }

    /// Puts the accounts among the changes that have changed since this was done, each whole.
    pub(super) fn keep_accounts(&mut self, end: Position) {
        let mut books = lock(&self.books);
        for tenant in books.take_changed() {
            self.dirty.put(&entries::account(&tenant), &books.keep(&tenant, end.0));
        }
    }
}
