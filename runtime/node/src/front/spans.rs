//! What a tenant's process says was seen in it, for traces that are kept.
//!
//! The front believes little of it: spans of odd shape are left out, texts and their number are
//! bounded, whose they are is said by the front, and they count against what the tenant may have. A
//! process that talks more than an honest one would is ended.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use prost::Message as _;
use rustix::net::SendFlags;
use sluicebox_core::ids::Name;

use super::control::{self, Tag};
use crate::node::Node;
use crate::traces::otlp::{Kind, ScopeSpans, Span, Value};
use crate::traces::{Budget, TenantTraces, cut};

/// Bytes of the spans of one message.
pub(crate) const SPANS_BYTES_MAX: usize = 60 * 1024;

/// Messages in a second of a process that says little, and how many spans a further one is for: an
/// honest process puts more of them into one.
const MESSAGES: u32 = 40;
const SPANS_A_MESSAGE: u32 = 16;

/// Of one span.
const NAME_BYTES_MAX: usize = 256;
const ATTRIBUTES_MAX: usize = 32;
const KEY_BYTES_MAX: usize = 64;

/// Says what was seen, without waiting.
pub(crate) fn say_spans(to: impl AsFd, body: &[u8]) -> io::Result<()> {
    control::send_with(to, (Tag::Spans, SendFlags::DONTWAIT), body, &[])
}

/// Those of one process.
#[derive(Debug)]
pub(super) struct Spans {
    traces: Option<Arc<TenantTraces>>,
    messages: Budget,
}

impl Spans {
    pub(super) fn of(node: &Node, tenant: &Name) -> Self {
        let config = &node.config().traces;
        let messages = MESSAGES.saturating_add(config.spans_per_second / SPANS_A_MESSAGE);
        let traces = node.traces.as_ref().map(|traces| traces.of_tenant(tenant));
        Self { traces, messages: Budget::new(messages) }
    }

    /// Takes a message in, or gives why its process has to end.
    pub(super) fn take(&self, body: &[u8]) -> Result<(), &'static str> {
        let traces = self.traces.as_ref().filter(|_| self.messages.draw());
        let traces = traces.ok_or("said nonsense")?;
        let said = ScopeSpans::decode(body).map_err(|_| "said nonsense")?;
        let all = said.spans.len();
        let mut sound: Vec<Span> = said.spans.into_iter().filter(is_sound).collect();
        traces.left_out("process", all - sound.len());
        // The id is the process's own; what is drawn is the right to one more.
        sound.retain(|_| traces.span().is_some());
        sound.iter_mut().for_each(bound);
        traces.record(sound);
        Ok(())
    }
}

/// What OTLP asks of a span, and our bounds: a collector may refuse all of a request for one odd
/// span, those of other tenants included.
fn is_sound(span: &Span) -> bool {
    let is_id = |id: &[u8], bytes: usize| id.len() == bytes && id.iter().any(|byte| *byte != 0);
    let mut keys: Vec<&str> = span.attributes.iter().map(|one| one.key.as_str()).collect();
    keys.sort_unstable();
    let keys_are_sound = keys.len() <= ATTRIBUTES_MAX
        && keys.iter().all(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
        && keys.windows(2).all(|two| two[0] != two[1]);
    is_id(&span.trace_id, 16)
        && is_id(&span.span_id, 8)
        && (span.parent_span_id.is_empty() || is_id(&span.parent_span_id, 8))
        && span.parent_span_id != span.span_id
        && (1..=NAME_BYTES_MAX).contains(&span.name.len())
        && Kind::try_from(span.kind).is_ok()
        && span.status.as_ref().is_none_or(|status| (0..=2).contains(&status.code))
        && keys_are_sound
        && span.attributes.iter().all(|one| one.value.as_ref().is_some_and(|of| of.value.is_some()))
        && span.start_nanos <= span.end_nanos
}

/// Cuts the texts in it.
fn bound(span: &mut Span) {
    let values = span.attributes.iter_mut().filter_map(|one| one.value.as_mut()?.value.as_mut());
    for value in values {
        if let Value::Text(text) = value {
            *text = cut(text).to_owned();
        }
    }
    if let Some(status) = &mut span.status {
        status.message = cut(&status.message).to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::otlp::{KeyValue, Status};
    use sluicebox_core::frame::TraceContext;

    fn span() -> Span {
        let context = TraceContext { trace: [1; 16], span: [2; 8], flags: 1 };
        Span::new((context, None), "n".to_owned(), Kind::Internal, (1, 2))
    }

    #[test]
    fn spans_of_odd_shape_are_left_out_and_texts_are_cut() {
        assert!(is_sound(&span()));
        for odd in [
            Span { trace_id: vec![1; 15], ..span() },
            Span { span_id: Vec::new(), ..span() },
            Span { parent_span_id: vec![1; 9], ..span() },
            Span { trace_id: vec![0; 16], ..span() },
            Span { span_id: vec![0; 8], ..span() },
            Span { parent_span_id: vec![0; 8], ..span() },
            Span { parent_span_id: vec![2; 8], ..span() },
            Span { kind: 6, ..span() },
            Span { kind: -1, ..span() },
            Span { name: String::new(), ..span() },
            Span { status: Some(Status { message: String::new(), code: 3 }), ..span() },
            Span { attributes: vec![KeyValue { key: "k".to_owned(), value: None }], ..span() },
            span().with("", true),
            span().with("k", true).with("k", "twice"),
            Span { name: "n".repeat(257), ..span() },
            Span { end_nanos: 0, ..span() },
            span().with(&"k".repeat(65), true),
            (0..33).fold(span(), |span, n| span.with(&format!("k{n}"), true)),
        ] {
            assert!(!is_sound(&odd), "{odd:?}");
        }
        let mut long = span().with("k", &*"x".repeat(5_000)).failed(Some("why"));
        long.status.as_mut().expect("it failed").message = "y".repeat(5_000);
        bound(&mut long);
        assert!(long.encoded_len() < 1_000);
    }
}
