//! Whose events a call has, for clients that ask what their event costs.

use std::collections::BTreeMap;

use sluicebox_core::frame::Frame;
use sluicebox_core::layer::request_of;

use super::partition::Driver;
use crate::requests::Shares;

impl Driver {
    /// The shares of a call in which there are events of clients that ask. Where nobody does, this
    /// is one load.
    pub(super) fn shares(&self, frame: &Frame) -> Option<Shares> {
        let requests = &self.segment.shared.requests;
        if !requests.is_any_asking() {
            return None;
        }
        let mut of = BTreeMap::new();
        for id in frame.events().filter_map(|event| request_of(&event)) {
            *of.entry(id).or_default() += 1;
        }
        requests.shares(of, frame.len() as u64)
    }
}
