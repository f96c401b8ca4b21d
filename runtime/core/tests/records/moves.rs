//! A pipeline that moves from node to node: what the one writes, and what the other.

use sluicebox_core::codec::{MoveRecord, OpenRecord, kind};
use sluicebox_core::recovery::{Fold, Sink};

use super::*;

/// Takes what a fold hands out, and tells what was opened.
#[derive(Default)]
pub(super) struct Opened(Vec<(String, PipelineId)>);

impl Sink for Opened {
    fn changed(&mut self, _: &CommitHead, _: StageId, _: Change<'_>) {}
    fn output(&mut self, _: &CommitHead, _: &OutputRun, _: u64) {}
    fn dead_letters(&mut self, _: &CommitHead, _: &DeadRun, _: u64) {}
    fn ingested(&mut self, _: &IngestRecord<'_>, _: u64) {}
    fn opened(&mut self, tenant: &Name, pipeline: PipelineId) {
        self.0.push((tenant.as_str().to_owned(), pipeline));
    }
    fn discarded(&mut self, _: PipelineId, _: StageId) {}
    fn deleted(&mut self, _: PipelineId) {}
}

pub(super) fn folded(position: u64, (kind, body): (u8, &Bytes)) -> (Fold, Opened) {
    let (mut fold, mut opened) = (Fold::new(), Opened::default());
    let record = decode(kind, body).expect("a record");
    fold.apply(position, &record, &mut opened).expect("the first");
    (fold, opened)
}

/// The kinds that came with format 3, by the names of their files.
pub(super) fn samples() -> Vec<(&'static str, (u8, Bytes))> {
    let pipeline = PipelineId(300);
    let (kind, body) = written(|writer| writer.apply(&apply()));
    let kept = folded(77, (kind, &body)).0.keep_one(pipeline).expect("it was applied");
    let open = OpenRecord { pipeline, kept: &kept };
    let moves = MoveRecord { pipeline, to: "press-2.halle.example".to_owned() };
    vec![
        ("6-open", written(|writer| writer.open(&open))),
        ("7-move", written(|writer| writer.moves(&moves))),
    ]
}

#[test]
fn only_records_of_moving_need_a_reader_of_format_3() {
    let all = super::samples().into_iter().chain(later_samples()).chain(event_times());
    assert!(all.into_iter().all(|(_, (_, body))| body[0] < 3 && body[1] < 3));
    assert!(samples().into_iter().all(|(_, (_, body))| body[..2] == [3, 3]));
}

#[test]
fn a_pipeline_that_was_opened_once_can_be_opened_for_ever() {
    let body = std::fs::read(golden(3).join("6-open.bin")).unwrap().into();
    let (fold, opened) = folded(5, (kind::OPEN, &body));
    assert_eq!(opened.0, [("dev".to_owned(), PipelineId(300))]);
    let found = fold.pipeline(PipelineId(300)).expect("it was opened");
    assert_eq!((found.name(), found.version(), found.moved()), (&name("word-count"), 2, None));
    assert_eq!((found.manifest(), found.names()), (apply().manifest, &apply().names));
}

#[test]
fn a_node_has_a_name_of_1_to_253_bytes() {
    let to = |bytes: &[u8]| {
        let mut body = vec![3, 3, 1];
        let length = bytes.len() as u16;
        match length {
            0..0x80 => body.push(length as u8),
            _ => body.extend([length as u8 | 0x80, (length >> 7) as u8]),
        }
        body.extend_from_slice(bytes);
        decode(kind::MOVE, &body).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!((to(b"a"), to(&[b'a'; 253])), (Ok(()), Ok(())));
    for bad in [&b""[..], &[b'a'; 254], b"\xff"] {
        assert!(to(bad).expect_err("no name").contains("the node it goes to"), "{bad:?}");
    }
}
