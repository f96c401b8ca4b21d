//! Figures follow what is there, whatever of it is gone through at a time.

use sluicebox_core::codec::{self, ApplyRecord, NameTable, RecordWriter};
use sluicebox_core::ids::Name;
use sluicebox_core::key;
use sluicebox_store::store::{Change, MemoryStore};

use super::*;
use crate::backing::Backing;
use crate::checkpoint::{Collected, Outputs};
use crate::config::Config;

const PIPELINE: PipelineId = PipelineId(3);
const STAGE: StageId = StageId(1);
const NOTHING: PageLimit = PageLimit { entries: 0, bytes: 0 };
const OUTPUTS: Outputs = Outputs { output_bytes_max: 0, dead_letter_bytes: 0 };

static NEVER: AtomicBool = AtomicBool::new(false);

/// A fold with one pipeline of one stage.
fn fold() -> Fold {
    let mut writer = RecordWriter::new();
    let stages = vec![(STAGE, Name::new("s").unwrap())];
    writer.apply(&ApplyRecord {
        tenant: Name::new("t").unwrap(),
        name: Name::new("p").unwrap(),
        pipeline: PIPELINE,
        version: 1,
        partitions: 1,
        manifest: b"{}",
        names: NameTable { stages, ..NameTable::default() },
        discarded: Vec::new(),
    });
    let bytes = writer.parts().concat();
    let record = codec::decode(writer.kind(), &bytes).unwrap();
    let backing = std::sync::Arc::new(Backing::new(std::sync::Arc::new(MemoryStore::new()), 0));
    let mut fold = Fold::new();
    fold.apply(1, &record, &mut Collected::new(1, backing, OUTPUTS)).unwrap();
    fold
}

/// A store with so many slots of a stage, and what they take.
fn put(store: &MemoryStore, stage: StageId, keys: std::ops::Range<u32>, value: &[u8]) -> u64 {
    let tenant = Of::new(&Name::new("t").unwrap(), PIPELINE).tenant;
    let key = |n: u32| {
        let name = n.to_be_bytes();
        let group = key::group_of(&name);
        let place = keys::Place { tenant, pipeline: PIPELINE.0, stage: stage.0, group };
        keys::slots_of(place, &name)
    };
    let mut all: Vec<Vec<u8>> = keys.map(key).collect();
    all.sort();
    let piece: Vec<_> = all.iter().map(|key| Change { key, value: Some(value) }).collect();
    let mut checkpoint = store.begin(1).unwrap();
    checkpoint.write(&piece).unwrap();
    checkpoint.commit(&[]).unwrap();
    all.iter().map(|key| (key.len() + value.len()) as u64).sum()
}

fn clear(store: &MemoryStore, stage: StageId) {
    let tenant = Of::new(&Name::new("t").unwrap(), PIPELINE).tenant;
    let prefix = keys::state_of_stage(tenant, PIPELINE.0, stage.0);
    let mut checkpoint = store.begin(1).unwrap();
    checkpoint.delete_prefixes(&[prefix]).unwrap();
    checkpoint.commit(&[]).unwrap();
}

fn go_on(weights: &mut Weights, store: &MemoryStore, fold: &Fold) -> u64 {
    let mut rests = Rests::new(&Config::default().log, u64::MAX);
    weights.go_on((store, fold), NOTHING, &mut rests, &NEVER).unwrap();
    weights.by_pipeline().get(&PIPELINE).copied().unwrap_or(0)
}

fn changed(weights: &mut Weights) {
    weights.note([(PIPELINE, STAGE)].into());
}

#[test]
fn a_stage_is_counted_when_it_has_changed_and_not_otherwise() {
    let (store, fold) = (MemoryStore::new(), fold());
    let one = put(&store, STAGE, 0..10, b"value");
    let parked = put(&store, STAGE.parked(), 0..3, b"parked");
    let mut weights = Weights::new(None, &fold);
    assert_eq!(go_on(&mut weights, &store, &fold), one + parked, "at a start all are counted");
    let more = put(&store, STAGE, 10..12, b"value");
    assert_eq!(go_on(&mut weights, &store, &fold), one + parked, "nobody said that it changed");
    changed(&mut weights);
    assert_eq!(go_on(&mut weights, &store, &fold), one + more + parked);
    clear(&store, STAGE);
    changed(&mut weights);
    assert_eq!(go_on(&mut weights, &store, &fold), parked);
    assert_eq!(go_on(&mut weights, &store, &Fold::new()), 0, "a pipeline that is gone");
    assert!(weights.stages.is_empty() && weights.due.is_empty());
}

#[test]
fn a_large_stage_is_gone_through_in_parts_and_keeps_its_figure_meanwhile() {
    let (store, fold) = (MemoryStore::new(), fold());
    let all = put(&store, STAGE, 0..250_000, b"v");
    let mut weights = Weights::new(None, &fold);
    // The first time there is nothing to go by but what was found.
    let found: Vec<u64> = (0..3).map(|_| go_on(&mut weights, &store, &fold)).collect();
    assert!(0 < found[0] && found[0] < found[1] && found[1] < all, "{found:?} of {all}");
    assert_eq!(found[2], all);
    for _ in 0..6 {
        changed(&mut weights);
        let found = go_on(&mut weights, &store, &fold);
        assert!(found.abs_diff(all) < all / 100, "{found} where {all} is right");
    }
    // What was written is gone through at once.
    let more = put(&store, STAGE, 250_000..500_000, b"v");
    changed(&mut weights);
    let mut rests = Rests::new(&Config::default().log, u64::MAX);
    let written = PageLimit { entries: usize::MAX, bytes: usize::MAX };
    weights.go_on((&store, &fold), written, &mut rests, &NEVER).unwrap();
    assert_eq!(weights.by_pipeline()[&PIPELINE], all + more);
}

#[test]
fn a_small_stage_does_not_wait_for_a_large_one() {
    let (store, fold) = (MemoryStore::new(), fold());
    put(&store, STAGE, 0..250_000, b"v");
    let mut weights = Weights::new(None, &fold);
    go_on(&mut weights, &store, &fold);
    let small = put(&store, STAGE.parked(), 0..3, b"parked");
    weights.note([(PIPELINE, STAGE.parked())].into());
    let mut rests = Rests::new(&Config::default().log, u64::MAX);
    weights.go_on((&store, &fold), NOTHING, &mut rests, &NEVER).unwrap();
    assert_eq!(weights.stages[&(PIPELINE, STAGE.parked())].whole, small);
}

#[test]
fn figures_of_large_stages_are_kept_and_those_of_small_ones_counted_again() {
    let (store, fold) = (MemoryStore::new(), fold());
    let all = put(&store, STAGE, 0..10_000, b"v");
    let small = put(&store, STAGE.parked(), 0..3, b"parked");
    let mut weights = Weights::new(None, &fold);
    assert_eq!(go_on(&mut weights, &store, &fold), all + small);
    let kept = weights.keep();
    assert_eq!(kept.len(), 1 + ROW_BYTES);
    let mut again = Weights::new(Some(&kept), &fold);
    assert_eq!(again.by_pipeline()[&PIPELINE], all);
    let parts = 1 + Part::HELD.len();
    assert_eq!(again.due.len(), parts, "what was kept may be of before the last checkpoint");
    assert_eq!(go_on(&mut again, &store, &fold), all + small);
    assert_eq!(Weights::new(Some(&[FORMAT + 1, 9, 9]), &fold).due.len(), parts, "another format");
    let none = Fold::default();
    assert_eq!(Weights::new(Some(&kept), &none).by_pipeline(), [].into(), "a stage that is gone");
}

#[test]
fn told_to_stop_it_stops_and_goes_on_later() {
    let (store, fold) = (MemoryStore::new(), fold());
    let all = put(&store, STAGE, 0..10, b"v");
    let mut weights = Weights::new(None, &fold);
    let mut rests = Rests::new(&Config::default().log, u64::MAX);
    weights.go_on((&store, &fold), NOTHING, &mut rests, &AtomicBool::new(true)).unwrap();
    assert!(weights.by_pipeline().values().all(|bytes| *bytes == 0));
    store.close();
    weights.go_on((&store, &fold), NOTHING, &mut rests, &NEVER).expect_err("it is closed");
    let store = MemoryStore::new();
    put(&store, STAGE, 0..10, b"v");
    assert_eq!(go_on(&mut weights, &store, &fold), all);
}
