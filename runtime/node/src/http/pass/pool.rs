//! Connections that are kept for the next request.
//!
//! Keeps true: a connection is only ever used for the life of the other end it was made in, and by
//! one request at a time; at most [`KEPT_MAX`] wait for each.

use std::cell::RefCell;
use std::collections::HashMap;

use hyper::client::conn::http1::SendRequest;

use super::Carried;
use super::way::{End, Reached};

/// Connections to one end that a worker keeps.
const KEPT_MAX: usize = 64;

/// Connections of one worker to processes and nodes, for the next request.
#[derive(Debug, Default)]
pub(in crate::http) struct Pool(RefCell<HashMap<End, Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Of this life of the other end.
    generation: u64,
    idle: Vec<SendRequest<Carried>>,
}

impl Pool {
    pub(super) fn take(&self, reached: &Reached) -> Option<SendRequest<Carried>> {
        let mut all = self.0.borrow_mut();
        let kept = all.get_mut(&reached.end())?;
        if kept.generation == reached.generation() { kept.idle.pop() } else { None }
    }

    pub(super) fn put(&self, reached: &Reached, sender: SendRequest<Carried>) {
        if sender.is_closed() {
            return;
        }
        let mut all = self.0.borrow_mut();
        let kept = all.entry(reached.end()).or_default();
        if kept.generation < reached.generation() {
            *kept = Kept { generation: reached.generation(), idle: Vec::new() };
        }
        if kept.generation == reached.generation() && kept.idle.len() < KEPT_MAX {
            kept.idle.push(sender);
        }
    }
}
