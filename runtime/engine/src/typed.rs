//! The records of the typed world, and how they become frames and come from them.

use sluicebox_core::frame::{Event, Frame, FrameBuilder, Head, Kind, field, push_field};
use sluicebox_core::layer::{Failure, FailureClass};
use wasmtime::component::{ComponentType, Lift, Lower};

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum WitKind {
    #[component(name = "data")]
    Data,
    #[component(name = "timer")]
    Timer,
    #[component(name = "open")]
    Open,
    #[component(name = "end")]
    End,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct FieldIn<'a> {
    id: u16,
    value: &'a [u8],
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct EventIn<'a> {
    kind: WitKind,
    input: u16,
    port: u16,
    cause: u32,
    time: u64,
    key: &'a str,
    payload: &'a [u8],
    fields: Vec<FieldIn<'a>>,
    attachments: Vec<u64>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct FieldOut {
    id: u16,
    value: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct EventOut {
    kind: WitKind,
    input: u16,
    port: u16,
    cause: u32,
    time: u64,
    key: String,
    payload: Vec<u8>,
    fields: Vec<FieldOut>,
    attachments: Vec<u64>,
}

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only ever made by lifting a guest's value")]
pub(crate) enum WitClass {
    #[component(name = "retry")]
    Retry,
    #[component(name = "reject")]
    Reject,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct WitFailure {
    event: u32,
    class: WitClass,
    message: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct WitOutcome {
    pub outputs: Vec<EventOut>,
    pub failures: Vec<WitFailure>,
}

impl WitFailure {
    pub(crate) fn into_core(self) -> Failure {
        let class = match self.class {
            WitClass::Retry => FailureClass::Retry,
            WitClass::Reject => FailureClass::Reject,
        };
        Failure::new(self.event, class, self.message)
    }
}

/// The events of a frame as records. Fields that are attachments become the list of handles.
pub(crate) fn lower(frame: &Frame) -> Vec<EventIn<'_>> {
    frame.events().map(lower_event).collect()
}

fn lower_event(event: Event<'_>) -> EventIn<'_> {
    let kind = match event.head.kind {
        Kind::Data => WitKind::Data,
        Kind::Timer => WitKind::Timer,
        Kind::Open => WitKind::Open,
        Kind::End => WitKind::End,
    };
    let mut attachments = Vec::new();
    let mut fields = Vec::new();
    for (id, value) in event.fields.iter() {
        if id == field::ATTACHMENTS && attachments.is_empty() {
            // Of several such fields the first counts, as in frames.
            attachments.extend(value.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)));
        } else {
            fields.push(FieldIn { id, value });
        }
    }
    EventIn {
        kind,
        input: event.head.input,
        port: event.head.port,
        cause: event.head.cause,
        time: event.head.time,
        key: event.key_str(),
        payload: event.payload,
        fields,
        attachments,
    }
}

/// What the stage emitted, as a frame. What a frame cannot hold is said here; what it may not hold
/// is found when the layer takes it.
pub(crate) fn lift(outputs: &[EventOut]) -> Result<Frame, &'static str> {
    let mut builder = FrameBuilder::new();
    let mut packed = Vec::new();
    for event in outputs {
        packed.clear();
        for field in &event.fields {
            if !push_field(&mut packed, field.id, &field.value) {
                return Err("the fields of an emitted event are larger than 16384 bytes");
            }
        }
        if !event.attachments.is_empty() {
            let bytes: Vec<u8> = event.attachments.iter().flat_map(|a| a.to_le_bytes()).collect();
            if !push_field(&mut packed, field::ATTACHMENTS, &bytes) {
                return Err("an emitted event has too many attachments");
            }
        }
        if event.key.len() > usize::from(u16::MAX) {
            return Err("the key of an emitted event is longer than 512 bytes");
        }
        let kind = match event.kind {
            WitKind::Data => Kind::Data,
            WitKind::Timer => Kind::Timer,
            WitKind::Open => Kind::Open,
            WitKind::End => Kind::End,
        };
        let head = Head {
            kind,
            input: event.input,
            port: event.port,
            cause: event.cause,
            time: event.time,
        };
        builder.push(&head, event.key.as_bytes(), &event.payload, &packed);
    }
    Ok(builder.finish())
}
