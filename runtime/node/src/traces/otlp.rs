//! What OTLP says of traces, as far as a node says it: the messages of
//! `opentelemetry/proto/trace/v1` and `collector/trace/v1`, of version 1 of the protocol, whose
//! numbers never change.

use sluicebox_core::frame::TraceContext;

/// What is asked of a collector.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

/// What a collector answers.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// What it did not take.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// Spans of one program.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

/// The program.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

/// Spans of one part of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(crate) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) spans: Vec<Span>,
}

/// That part.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// Something that took some time.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
    #[prost(enumeration = "Kind", tag = "6")]
    pub(crate) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(crate) start_nanos: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) end_nanos: u64,
    #[prost(message, repeated, tag = "9")]
    pub(crate) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(crate) status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub(crate) flags: u32,
}

/// Which side of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    /// Nothing was said.
    Unspecified = 0,
    /// Within the program.
    Internal = 1,
    /// It answered somebody.
    Server = 2,
    /// It asked somebody.
    Client = 3,
    /// It handed something on.
    Producer = 4,
    /// It took something that was handed on.
    Consumer = 5,
}

/// What became of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    /// 2: it failed.
    #[prost(int32, tag = "3")]
    pub(crate) code: i32,
}

/// Something that is known of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<AnyValue>,
}

/// A value of one of the sorts that are used here.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    pub(crate) value: Option<Value>,
}

/// See [`AnyValue`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// Yes or no.
    #[prost(bool, tag = "2")]
    Flag(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl KeyValue {
    pub(crate) fn new(key: &str, value: impl Into<Value>) -> Self {
        let value = Some(AnyValue { value: Some(value.into()) });
        Self { key: key.to_owned(), value }
    }
}

impl Span {
    /// A span of a trace, from and to in microseconds since 1970.
    pub(crate) fn new(
        (context, parent): (TraceContext, Option<[u8; 8]>),
        name: String,
        kind: Kind,
        (from, to): (u64, u64),
    ) -> Self {
        Self {
            trace_id: context.trace.to_vec(),
            span_id: context.span.to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.to_vec()),
            name,
            kind: kind.into(),
            start_nanos: from * 1000,
            end_nanos: to.max(from) * 1000,
            attributes: Vec::new(),
            status: None,
            flags: u32::from(context.flags),
        }
    }

    /// With something that is known of it.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Sets something that is known of it, and nothing else under that name.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.attributes.retain(|known| known.key != key);
        self.attributes.push(KeyValue::new(key, value));
    }

    /// It failed, if there is a reason.
    pub(crate) fn failed(mut self, why: Option<&str>) -> Self {
        self.status =
            why.map(|why| Status { message: super::cut(why).to_owned(), code: 2 }).or(self.status);
        self
    }
}
