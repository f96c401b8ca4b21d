//! The trace an event belongs to: a W3C `traceparent`, kept with it through every stage.
//!
//! An event's own, as CloudEvents carry one, counts before that of the request it came in. What is
//! malformed is left out, as the specification asks: an event is worth more than its trace.

use http::header::HeaderMap;
use sluicebox_core::frame::{Fields, TRACEPARENT_BYTES, TraceContext, field, push_field};

use crate::running::Running;

/// The header, and the attribute of a CloudEvent.
pub(super) const TRACEPARENT: &str = "traceparent";

/// The trace of a request.
pub(in crate::http) fn of_request(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.as_bytes())
}

/// The trace that the events of a session go on in. Where somebody wants traces it is not kept: a
/// session has no end, and its events are many.
pub(in crate::http) fn of_session(running: &Running, headers: &HeaderMap) -> Vec<u8> {
    let wanted = running.shared().tenant.traces().is_some();
    packed(of_request(headers).map(|from| if wanted { from.kept(false) } else { from }))
}

/// A trace as a packed field; nothing if there is none.
pub(in crate::http) fn packed(context: Option<TraceContext>) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Some(context) = context {
        let _fits = push_field(&mut fields, field::TRACE_CONTEXT, &context.to_text());
    }
    fields
}

/// The host's fields for an event that belongs to a trace of its own.
pub(super) fn with(host_fields: &[u8], own: Option<TraceContext>) -> Vec<u8> {
    let Some(own) = own else { return host_fields.to_vec() };
    let mut fields = Vec::with_capacity(host_fields.len() + 4 + TRACEPARENT_BYTES);
    let _fits = push_field(&mut fields, field::TRACE_CONTEXT, &own.to_text());
    let others = Fields::parse(host_fields).into_iter();
    for (id, value) in others.flat_map(|fields| fields.iter()) {
        if id != field::TRACE_CONTEXT {
            let _fits = push_field(&mut fields, id, value);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

    fn request(text: &'static str) -> Vec<u8> {
        let pair = (http::HeaderName::from_static(TRACEPARENT), HeaderValue::from_static(text));
        packed(of_request(&[pair].into_iter().collect()))
    }

    fn own(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text.as_bytes())
    }

    fn trace(packed: &[u8]) -> Option<&[u8]> {
        Fields::parse(packed).expect("well-formed").get(field::TRACE_CONTEXT)
    }

    #[test]
    fn only_a_well_formed_trace_context_is_taken() {
        assert_eq!(trace(&request(GOOD)), Some(GOOD.as_bytes()));
        for bad in [
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "",
        ] {
            assert!(request(bad).is_empty(), "{bad:?}");
            assert_eq!(with(&request(GOOD), own(bad)), request(GOOD), "{bad:?}");
        }
    }

    #[test]
    fn an_events_own_trace_counts_and_the_hosts_other_fields_stay() {
        let mut host = request(GOOD);
        assert!(push_field(&mut host, field::REQUEST, &[7; 8]));
        let fields = with(&host, own(OTHER));
        assert_eq!(trace(&fields), Some(OTHER.as_bytes()));
        let fields = Fields::parse(&fields).expect("well-formed");
        assert_eq!(fields.get(field::REQUEST), Some(&[7; 8][..]));
        assert_eq!(fields.iter().count(), 2);
        assert_eq!(with(&host, None), host);
    }
}
