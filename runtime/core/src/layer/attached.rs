//! Attachments: buffers of a device that events name by their handles.
//!
//! - An emitted event names what its call holds and nothing else: what the events of the call have
//!   attached, and what the host has found to be the instance's own and told by [`Layer::hold`].
//! - A buffer is there until its batch ends. So no event takes one out of its segment, where it
//!   may be kept or sent for longer; what is put aside inside is kept without.
//!
//! Handles are numbers here. Whose buffers they are is known to the host that lends them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{EmitError, Layer, Ports};
use crate::frame::{CheckedEvents, Event, Frame, field};
use crate::limits::ATTACHMENTS_MAX;

/// What the call in progress holds, and where it may go.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached {
    held: BTreeSet<u64>,
    /// What the call's events have attached is among it. Most calls never need to know.
    is_read: bool,
    /// Whether all that a port leads to is in the segment, by port.
    stays: Arc<[bool]>,
}

impl Layer {
    /// The same in a segment: `inside` says of each target whether it is one of its stages.
    /// Without this no attachment goes anywhere.
    #[must_use]
    pub fn in_segment<T>(mut self, inside: &[Option<T>]) -> Self {
        self.attached.stays = self.ports.leads_to(|target| {
            let stage = inside.get(target);
            stage.is_some_and(Option::is_some)
        });
        self
    }

    /// The call in progress may name this handle in what it emits.
    pub fn hold(&mut self, handle: u64) {
        self.attached.held.insert(handle);
    }

    /// The handles that a packed frame names and the call does not hold, each once, in the order
    /// in which they are named first. To be asked before [`Layer::emit`], which takes none of
    /// them.
    ///
    /// # Errors
    /// As of [`Layer::emit`]; there are more than a frame may name.
    pub fn unheld(&mut self, bytes: &[u8]) -> Result<Vec<u64>, EmitError> {
        let limits = self.emit_limits(bytes.len())?;
        let mut events = CheckedEvents::new(bytes, &limits)?;
        let Self { ports, input, attached, .. } = self;
        let (mut found, mut known) = (Vec::new(), BTreeSet::new());
        loop {
            while let Some(event) = events.peek_simple() {
                events.skip(&event);
            }
            let Some(event) = events.next_event()? else { return Ok(found) };
            for handle in attached.named(&event, ports)?.1 {
                let handle = u64::from_le_bytes(*handle);
                if !attached.has(handle, &input.frame) && known.insert(handle) {
                    found.push(handle);
                }
            }
            if found.len() > ATTACHMENTS_MAX {
                return Err(EmitError::Attachments(ATTACHMENTS_MAX));
            }
        }
    }
}

impl Attached {
    /// A call begins.
    pub(super) fn begin(&mut self) {
        self.held.clear();
        self.is_read = false;
    }

    /// The same for another layer, which holds nothing yet.
    pub(super) fn aside(&self) -> Self {
        Self { stays: self.stays.clone(), ..Self::default() }
    }

    /// What an emitted event has attached, packed: nothing that the call does not hold.
    pub(super) fn check<'e>(
        &mut self,
        event: &Event<'e>,
        ports: &Ports,
        input: &Frame,
    ) -> Result<&'e [u8], EmitError> {
        let (value, handles) = self.named(event, ports)?;
        let is_held = |handle: &[u8; 8]| self.has(u64::from_le_bytes(*handle), input);
        if handles.iter().all(is_held) { Ok(value) } else { Err(EmitError::Attachment) }
    }

    /// The field of an event with its handles, which may go where the event does.
    fn named<'e>(
        &self,
        event: &Event<'e>,
        ports: &Ports,
    ) -> Result<(&'e [u8], &'e [[u8; 8]]), EmitError> {
        let value = event.fields.get(field::ATTACHMENTS).unwrap_or_default();
        let (handles, rest) = value.as_chunks();
        if !rest.is_empty() {
            return Err(EmitError::AttachmentBytes(value.len()));
        }
        if handles.len() > ATTACHMENTS_MAX {
            return Err(EmitError::Attachments(ATTACHMENTS_MAX));
        }
        let port = event.head.port;
        if !handles.is_empty() && !self.stays.get(usize::from(port)).is_some_and(|stays| *stays) {
            ports.of_port(port).ok_or(EmitError::Port(port))?;
            return Err(EmitError::AttachmentLeaves(port));
        }
        Ok((value, handles))
    }

    fn has(&mut self, handle: u64, input: &Frame) -> bool {
        if !self.is_read {
            self.is_read = true;
            let frame = Some(input).filter(|frame| !frame.is_plain());
            let values = frame.into_iter().flat_map(Frame::events);
            let values = values.filter_map(|event| event.fields.get(field::ATTACHMENTS));
            let handles = values.flat_map(|value| value.as_chunks().0);
            self.held.extend(handles.map(|handle| u64::from_le_bytes(*handle)));
        }
        self.held.contains(&handle)
    }
}

#[cfg(test)]
mod tests;
