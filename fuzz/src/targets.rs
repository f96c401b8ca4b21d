//! Every decoder of foreign bytes, each as a function of bytes with what must hold afterwards.
//!
//! A function returns for any input, quickly, and panics only if a promise is broken: what was
//! taken is well formed and reads back the same; what was refused left no trace; a message is one
//! line.
//!
//! This file is compiled twice: into the fuzzers beside it, and into `tests/fuzz_smoke.rs`, which
//! runs it on stable over the corpus and mutations of it.

// Both that compile this file find it so.
#[path = "said.rs"]
mod said;

use std::cell::OnceCell;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use sluicebox_core::codec::{
    self, CommitHead, DeadRun, IngestRecord, OutputRun, Record, RecordWriter,
};
use sluicebox_core::frame::{Frame, FrameBuilder, FrameLimits, HEADER_BYTES, Head, Kind, NO_CAUSE};
use sluicebox_core::frame::{check, expand, field, push_field};
use sluicebox_core::ids::{Digest, Name, PipelineId, StageId};
use sluicebox_core::json_key::{self, Pointer};
use sluicebox_core::layer::{self, KeyRule, Layer, LayerLimits, Ports, Spread};
use sluicebox_core::pipeline::{self, Facts};
use sluicebox_core::quota::Allowance;
use sluicebox_core::recovery::{Fold, Sink};
use sluicebox_core::state::{Change, KeyedState, StateLimits};
use sluicebox_engine::artefact::Artefacts;
use sluicebox_engine::component;
use sluicebox_engine::image;
use sluicebox_engine::tuning::{Fingerprint, compile_engine};
use sluicebox_node::config::{Config, Sources};
use sluicebox_node::manifest_text::{self, Format};
use sluicebox_node::ring::{Cursor, Output};
use sluicebox_node::tenants::Tenants;
use sluicebox_store::header;
use sluicebox_store::key::Key;
use sluicebox_store::log::sim::SimDisk;
use sluicebox_store::log::{self, Config as LogConfig, DurableLog, Position, forge, inspect};
use sluicebox_store::store::{self, keys::Id};
use tempfile::TempDir;

pub use said::{gpu_packet, link_hello, link_ring, message};

/// Something that reads foreign bytes.
pub type Target = fn(&[u8]);

/// Name, also of the corpus, and function of every target.
pub const TARGETS: [(&str, Target); 22] = [
    ("frame", frame),
    ("emit", emit),
    ("state_batch", state_batch),
    ("manifest_toml", manifest_toml),
    ("manifest_json", manifest_json),
    ("json_key", json_key),
    ("cursor", cursor),
    ("tenants", tenants),
    ("config", config),
    ("names", names),
    ("stored_document", stored_document),
    ("log_segment", log_segment),
    ("record", record),
    ("store_key", store_key),
    ("store_extent", store_extent),
    ("artefact", artefact),
    ("component", component),
    ("image_head", image_head),
    ("link_ring", link_ring),
    ("link_hello", link_hello),
    ("message", message),
    ("gpu_packet", gpu_packet),
];

/// Longest message that anybody should have to read.
const MESSAGE_CHARS_MAX: usize = 4096;

/// A packed frame, as it comes from a guest, over HTTP or from another node, or as a record has it.
pub fn frame(data: &[u8]) {
    if let Ok(frame) = expand(Bytes::copy_from_slice(data)) {
        assert!(check(frame.bytes(), &FrameLimits::FORMAT).is_ok());
    }
    let counted = check(data, &FrameLimits::FORMAT);
    let parsed = Frame::parse(Bytes::copy_from_slice(data), &FrameLimits::FORMAT);
    assert_eq!(counted.is_ok(), parsed.is_ok());
    let Ok(frame) = parsed else { return };
    let mut starts = Vec::new();
    frame.index_into(&mut starts);
    assert_eq!(starts.len(), frame.len() + 1);
    let mut again = FrameBuilder::new();
    for (event, start) in frame.events().zip(&starts) {
        assert_eq!(frame.event_at(*start).payload, event.payload);
        again.push(&event.head, event.key, event.payload, event.fields.bytes());
    }
    // The header's format may be of a later version that this one still reads.
    assert_eq!(again.finish().bytes()[HEADER_BYTES..], frame.bytes()[HEADER_BYTES..]);
}

/// A stage with edges and outputs of every sort, in a call with two events.
fn begun() -> Layer {
    let target = |port, key, spread, inside| layer::Target { port, input: 1, key, spread, inside };
    let pointer = Pointer::parse("/k").expect("RFC 6901");
    let targets = vec![
        target(0, KeyRule::Cause, Spread::One, true),
        target(0, KeyRule::Emitted, Spread::Groups(4), true),
        target(1, KeyRule::Json(pointer), Spread::Groups(16), false),
    ];
    let limits = LayerLimits { emit_bytes: 1 << 20, event_bytes: 1 << 16, reply_bytes: 1 << 16 };
    let state = KeyedState::new(1, StateLimits { key_bytes: 1 << 12, total_bytes: 1 << 14 });
    let mut layer = Layer::new(Arc::new(Ports::new(3, targets)), limits, state);
    let mut input = FrameBuilder::new();
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::REQUEST, &7_u64.to_le_bytes()));
    input.push(&Head::data(1), b"one", b"{\"k\":1}", &fields);
    input.push(&Head::data(2), "zwei: ä".as_bytes(), b"", &[]);
    layer.begin(input.finish());
    layer
}

/// What a guest emits: bytes it claims to be a frame.
pub fn emit(data: &[u8]) {
    let mut layer = begun();
    if layer.emit(data).is_err() {
        layer.discard();
        layer.take_runs(|run| panic!("a discarded call left {run:?}"));
        assert!(layer.take_sent().is_empty());
        return;
    }
    layer.accept();
    layer.take_runs(|run| {
        let bytes = run.frame.bytes().clone();
        let frame = Frame::parse(bytes, &FrameLimits::FORMAT).expect("what goes on is a frame");
        for event in frame.events() {
            assert!(matches!(event.head.kind, Kind::Data | Kind::End));
            assert_eq!((event.head.cause, event.head.input), (NO_CAUSE, 1));
            assert!(event.fields.get(field::ATTACHMENTS).is_none());
            let request = event.fields.get(field::REQUEST);
            assert!(request.is_none_or(|value| value == 7_u64.to_le_bytes()));
        }
    });
}

/// Packed operations on keyed state, as a guest writes them.
pub fn state_batch(data: &[u8]) {
    let mut layer = begun();
    let mut replies = Vec::new();
    if layer.state_batch(data, &mut replies).is_ok() {
        let mut rest = replies.as_slice();
        while !rest.is_empty() {
            let (head, behind) = rest.split_first_chunk::<8>().expect("a head of 8 bytes");
            assert!(head[0] <= 2 && head[1..4] == [0; 3]);
            let bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            rest = behind.get(bytes..).expect("as many bytes as the head says");
        }
        assert!(layer.state_ref().bytes() <= 1 << 14);
    }
    layer.abandon();
    assert_eq!((layer.state_ref().bytes(), layer.state_ref().keys()), (0, 0));
}

/// A manifest in TOML.
pub fn manifest_toml(data: &[u8]) {
    manifest(data, Format::Toml);
}

/// A manifest in JSON.
pub fn manifest_json(data: &[u8]) {
    manifest(data, Format::Json);
}

fn manifest(data: &[u8], format: Format) {
    let built = manifest_text::parse(data, format)
        .and_then(|value| pipeline::build(&value, &Facts::default()));
    match built {
        Ok(pipeline) => {
            let written = pipeline.declaration().write();
            let again = pipeline::build(&written, &Facts::default()).expect("what was written");
            assert_eq!(again.declaration().write().to_json(), written.to_json());
        }
        Err(problems) => {
            assert!(!problems.list().is_empty());
            for problem in problems.list() {
                expect_message(&problem.message);
                expect_message(&problem.fix);
            }
        }
    }
}

/// A pointer, a line end, and the payload it is followed in.
pub fn json_key(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (pointer, payload) = data.split_at(end);
    let payload = payload.get(1..).unwrap_or_default();
    let Some(pointer) = std::str::from_utf8(pointer).ok().and_then(Pointer::parse) else { return };
    let again = Pointer::parse(&pointer.to_string());
    assert_eq!(again.as_ref(), Some(&pointer));
    let found = json_key::extract(payload, &pointer).map(|key| key.len());
    if found.is_ok() {
        assert_eq!(json_key::check(payload), Ok(()));
    }
}

/// A reader's cursor, as it comes in a URL.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cursor) = Cursor::parse(text) else { return };
    assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor.clone()));
    let output = Output::new(4, 1 << 16, 7);
    let mut builder = FrameBuilder::new();
    for partition in 0..4 {
        for time in 0..10 {
            builder.push(&Head::data(time), b"key", b"payload", &[]);
        }
        output.append(partition, &builder.finish());
    }
    if let Ok(page) = output.read(&cursor, 1 << 10) {
        let next = Cursor::parse(&page.next.to_string());
        assert_eq!(next, Ok(page.next));
    }
}

/// The file of tenants and hashed tokens.
pub fn tenants(data: &[u8]) {
    thread_local! {
        static PLACE: TempDir = TempDir::new().expect("a temporary folder");
    }
    let path = PLACE.with(|place| place.path().join("tenants.toml"));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&path).expect("a file in it");
    file.write_all(data).expect("room for a few bytes");
    drop(file);
    match Tenants::open(&path, Allowance::DEFAULT) {
        Ok(tenants) => {
            let set = tenants.current();
            assert!(set.iter().all(|tenant| (1..=100).contains(&tenant.weight)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The node's configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Some((PathBuf::from("sluicebox.toml"), text.to_owned()));
    match Config::load(&Sources { file, ..Sources::default() }) {
        Ok(loaded) => {
            let config = loaded.config;
            assert!(!config.node.dev || config.http.listen.ip().is_loopback());
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in error.problems {
                expect_message(&problem.message);
            }
        }
    }
}

/// Names, digests and keys of the store, as they come in URLs and manifests.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = Name::new(text) {
        assert!((1..=63).contains(&name.as_str().len()));
        assert!(Key::of(&["tenants", name.as_str()]).is_ok(), "a name can be part of a key");
    }
    if let Some(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(key) = Key::new(text) {
        assert_eq!(key.segments().collect::<Vec<_>>().join("/"), text);
        assert!(key.segments().all(|segment| segment != ".." && !segment.is_empty()));
    }
}

/// A document of the catalogue, as it is found on disk.
pub fn stored_document(data: &[u8]) {
    let key = Key::new("tenants/dev/greeting").expect("a key");
    match header::value_of(&key, Bytes::copy_from_slice(data)) {
        Ok(value) => {
            let whole = [header::header_of(&key, &value).as_slice(), &value].concat();
            assert_eq!(whole, data, "there is one way to write a document");
        }
        Err(error) => expect_message(&error.to_string()),
    }
}

/// A segment of the log, as it is found on disk: once as it is, and once as what lies behind a good
/// header, with good checksums, so that what is behind the checksums is reached.
pub fn log_segment(data: &[u8]) {
    for file in [data.to_vec(), forge::segment(1, 0, data)] {
        let disk = SimDisk::new(1);
        disk.put("00000000000000000001.log", &file);
        let walked = inspect::inspect(&disk, &mut |_| ControlFlow::Continue(()));
        let sound = walked.expect("this disk can be read").verdict != inspect::Verdict::Damaged;
        match open_log(&disk) {
            Ok(records) => {
                assert!(sound, "an inspection finds damage, an opening does not");
                assert_eq!(open_log(&disk).expect("it opened before"), records);
            }
            Err(error) => expect_message(&error.to_string()),
        }
    }
}

fn open_log(disk: &SimDisk) -> Result<Vec<(Position, u8, Vec<u8>)>, log::Error> {
    let mut records = Vec::new();
    let config =
        LogConfig { segment_bytes: 8 << 10, record_bytes_max: 2 << 10, ..LogConfig::default() };
    let (opened, _writer) =
        DurableLog::open_stepped(disk.shared(), config, Position(0), &mut |record| {
            records.push((record.position, record.kind, record.body.to_vec()));
            ControlFlow::Continue(())
        })?;
    let mut again = 0;
    let end = log::Log::read(&opened, Position(0), &mut |_| {
        again += 1;
        ControlFlow::Continue(())
    });
    end.expect("what was recovered can be read");
    assert_eq!(again, records.len());
    Ok(records)
}

/// A key of the store. An id has one key, and keys order as their ids do.
pub fn store_key(data: &[u8]) {
    let Some(id) = Id::decode(data) else { return };
    let mut again = Vec::new();
    id.encode(&mut again);
    assert_eq!(again, data);
    for at in [0, data.len() / 2, data.len() - 1] {
        let mut other = data.to_vec();
        other[at] ^= 1;
        if let Some(found) = Id::decode(&other) {
            assert_eq!(found.cmp(&id), other.as_slice().cmp(data), "at byte {at}");
        }
    }
}

/// What a store says of itself.
pub fn store_extent(data: &[u8]) {
    if let Some(again) = store::extent_again(data) {
        assert_eq!(again, data, "it has one form");
    }
}

/// Takes what a fold hands out, and has no use for it.
struct Nowhere;

impl Sink for Nowhere {
    fn changed(&mut self, _: &CommitHead, _: StageId, change: Change<'_>) {
        assert!(change.key.len() <= 512 && change.slot.len() <= 64);
    }
    fn output(&mut self, _: &CommitHead, _: &OutputRun, _: u64) {}
    fn dead_letters(&mut self, _: &CommitHead, _: &DeadRun, _: u64) {}
    fn ingested(&mut self, _: &IngestRecord<'_>, _: u64) {}
    fn discarded(&mut self, _: PipelineId, _: StageId) {}
    fn deleted(&mut self, _: PipelineId) {}
}

/// A record of the log: its kind, then its body. Kind 0 is what a checkpoint keeps of the fold.
pub fn record(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    if *kind == 0 {
        match Fold::from_kept(body) {
            Ok(fold) => assert_eq!(Fold::from_kept(&fold.keep()), Ok(fold)),
            Err(error) => expect_message(&error.to_string()),
        }
        return;
    }
    let body = Bytes::copy_from_slice(body);
    let record = match codec::decode(*kind, &body) {
        Ok(record) => record,
        Err(error) => return expect_message(&error.to_string()),
    };
    let mut writer = RecordWriter::new();
    match &record {
        Record::Ingest(ingest) => {
            for run in &ingest.runs {
                let Ok(frame) = run.frame.frame(&body) else { continue };
                assert_eq!(frame.len(), run.frame.events as usize);
                assert_eq!(frame.bytes().len(), run.frame.bytes);
            }
        }
        Record::Commit(commit) => {
            assert!(commit.batch.inputs().len() <= commit.batch.pieces.len());
            assert!(commit.state.iter().all(|(_, change)| change.key.len() <= 512));
            for run in &commit.sent.runs {
                assert!(run.previous < run.seq);
                let _whole_or_not = run.frame.frame(&body);
            }
        }
        Record::Apply(apply) => writer.apply(apply),
        Record::Delete(delete) => writer.delete(delete),
        Record::Checkpoint(checkpoint) => writer.checkpoint(checkpoint),
        Record::Open(open) => writer.open(open),
        Record::Move(moved) => writer.moves(moved),
        Record::Leave(leave) => writer.leave(leave),
        Record::Join(join) => writer.join(join),
        Record::Release(release) => writer.release(release),
        Record::Usage(usage) => writer.usage(usage),
    }
    if writer.kind() != 0 {
        assert_eq!(codec::decode(*kind, &writer.to_bytes()).as_ref(), Ok(&record));
    }
    let mut fold = Fold::new();
    if let Err(stopped) = fold.apply(1, &record, &mut Nowhere) {
        expect_message(&stopped.to_string());
    }
    assert_eq!(Fold::from_kept(&fold.keep()), Ok(fold));
}

/// A file in the folder of compiled components: code that must not be loaded unless we sealed it.
pub fn artefact(data: &[u8]) {
    thread_local! {
        static STORE: OnceCell<(TempDir, Artefacts, String)> = const { OnceCell::new() };
    }
    let digest = Digest([7; 32]);
    STORE.with(|store| {
        let (place, artefacts, name) = store.get_or_init(|| artefact_store(&digest));
        std::fs::write(place.path().join(name), data).expect("room for a few bytes");
        let loaded = artefacts.load(&digest).expect("a bad file is no error, it is absent");
        assert!(loaded.is_none(), "code was loaded that nobody sealed");
        assert!(!place.path().join(name).exists(), "a bad file is removed");
    });
}

fn artefact_store(digest: &Digest) -> (TempDir, Artefacts, String) {
    let place = TempDir::new().expect("a temporary folder");
    let engine = compile_engine(1).expect("an engine for this machine");
    let dir = Dir::open_ambient_dir(place.path(), ambient_authority()).expect("it was just made");
    let artefacts = Artefacts::open(dir, &engine, 1 << 20).expect("an empty folder");
    let fingerprint = Digest(Fingerprint::of(&engine).0).hex();
    let name = format!("{}-{}.artefact", digest.hex(), &fingerprint[..16]);
    (place, artefacts, name)
}

/// An uploaded component.
pub fn component(data: &[u8]) {
    let limits = component::Limits { bytes_max: 1 << 20, memory_bytes_max: 1 << 30 };
    match component::inspect(data, &limits) {
        Ok(inspection) => {
            assert_eq!(inspection.digest, component::digest(data));
            assert_eq!(inspection.bytes, data.len() as u64);
            // What passed is made ready for images, or says why not, and is then the node's own.
            let instrumented = image::instrument(data).expect("it passed");
            assert!(component::inspect(&instrumented, &limits).is_err());
        }
        Err(error) => expect_message(&error.to_string()),
    }
}

/// The head of an image of an instance, as it comes back from where it was kept.
pub fn image_head(data: &[u8]) {
    if let Some(again) = image::reread_head(data) {
        assert_eq!(&again[..], data, "what is read was written so");
    }
}

/// A message is one line that a terminal shows as it is, and no essay.
#[track_caller]
fn expect_message(message: &str) {
    assert!(!message.is_empty());
    assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
    assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{} characters", message.len());
}
