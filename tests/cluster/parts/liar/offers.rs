//! What it offers: partitions of its own pipeline, of which another node has one, with lies about
//! what they consist of and where they stand.
//!
//! A node that takes them asks back, so the test answers in its place as well. What it says without
//! a lie is taken: so that what is refused is refused for the lie.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use sluicebox_core::codec::{self, ApplyRecord, NameTable, RecordWriter};
use sluicebox_core::ids::{Name, OutputId, PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::recovery::{Fold, Nothing};
use sluicebox_core::state::Change;
use sluicebox_store::store::keys::{self, Place};
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::manifest::STAGE;
use sluicebox_tests::peer::{Answer, Peer, Playing};

use super::super::copies::remembered;
use super::{NAMES, PIPELINES, TakenOver};

/// The partition it offers, and how many there are.
const OFFERED: u16 = 1;
const PARTITIONS: u16 = 4;

/// Which attempt it says that it is.
const ATTEMPT: u64 = 7;

/// What it says of itself when it is asked.
#[derive(Debug, Clone)]
struct Said {
    shape: String,
    /// A page of state, with where the next begins.
    page: Vec<u8>,
}

struct Offering<'a> {
    taken: &'a TakenOver,
    peer: Peer,
    said: Arc<Mutex<Said>>,
    _playing: Playing,
}

impl<'a> Offering<'a> {
    async fn begin(taken: &'a TakenOver) -> Self {
        let peer = Peer::of(&taken.scene.cluster, NAMES[taken.third]);
        let page = page(b"", &entries(taken, OFFERED, 20));
        let said = Arc::new(Mutex::new(Said { shape: taken.their.shape.to_string(), page }));
        let (state, told) = (taken.their.state.clone(), said.clone());
        let answer: Answer = Arc::new(move |path: &str| {
            let said = told.lock().expect("nobody panics with it").clone();
            match path {
                path if path.starts_with("/peer/v1/state") => (200, state.clone()),
                path if path.contains("/shape?") => (200, said.shape.into()),
                path if path.contains("/groups?") => (200, said.page.into()),
                _ => (404, Bytes::new()),
            }
        });
        let others = [taken.scene.home, taken.second].map(|at| NAMES[at]);
        let playing = peer.play(taken.port(taken.third).1, &others, answer).await;
        until_up(&taken.scene.through[taken.second], 3).await;
        Self { taken, peer, said, _playing: playing }
    }

    /// From here on it says this when it is asked.
    fn says(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().expect("nobody panics with it"));
    }

    /// Has the second node take the state of partitions of a pipeline. True if it has.
    async fn takes(&self, (name, id): (&str, u64), partitions: &str) -> bool {
        let question = format!(
            "POST {PIPELINES}/{name}/take-groups?pipeline={id}&partitions={partitions}\
             &attempt={ATTEMPT}&kept=100"
        );
        let preparing = format!("{{\"versions\":[],\"chance\":{:?}}}", [0; 32]);
        let port = self.taken.port(self.taken.second);
        let told = self.peer.tell(port, &question, preparing).await;
        told.expect("it is answered").status == 200
    }

    async fn takes_theirs(&self) -> bool {
        self.takes((&self.taken.their.name, self.taken.theirs.0), &OFFERED.to_string()).await
    }

    /// Has it run partitions. True if it does.
    async fn joins(&self, name: &str, joining: Joining) -> bool {
        let port = self.taken.port(self.taken.second);
        let question = format!("POST {PIPELINES}/{name}/join");
        let told = self.peer.tell(port, &question, joining.to_bytes()).await;
        let told = told.expect("it is answered");
        told.status == 200 && told.text() == "true"
    }

    /// The partitions of their pipeline that the second node has.
    async fn there(&self) -> BTreeSet<u64> {
        let id = self.taken.theirs.0;
        let name = &self.taken.their.name;
        let question = format!("GET {PIPELINES}/{name}/partitions?pipeline={id}");
        let port = self.taken.port(self.taken.second);
        let told = self.peer.ask(port, &question).await.expect("it is answered").is(200).json();
        let all = told.as_array().expect("a list").iter();
        let here = all.filter(|row| row["node"].is_null());
        here.filter_map(|row| row["partition"].as_u64()).collect()
    }
}

/// Where its pipeline stands, and who it says has come.
#[derive(Clone)]
struct Joining {
    head: Value,
    kept: Vec<u8>,
    changed: Vec<u8>,
}

impl Joining {
    /// Without a lie.
    fn of(taken: &TakenOver) -> Self {
        let head = json!({
            "pipeline": taken.theirs.0, "partitions": [OFFERED], "attempt": ATTEMPT,
            "home": NAMES[taken.third],
        });
        let kept = kept(taken, |_| {});
        Self { head, kept, changed: Vec::new() }
    }

    fn with(&self, name: &str, value: Value) -> Self {
        let mut joining = self.clone();
        joining.head[name] = value;
        joining
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.head.to_string().as_bytes(), &self.kept] {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        [bytes, self.changed.clone()].concat()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// The only stage of their pipeline.
fn stage_of(taken: &TakenOver) -> StageId {
    let number = taken.their.shape["stages"][0].as_u64();
    StageId(number.and_then(|number| number.try_into().ok()).expect("one has a number"))
}

/// Where their pipeline stands: it was applied, and nothing came; but for a lie.
fn kept(taken: &TakenOver, lie: impl FnOnce(&mut ApplyRecord<'_>)) -> Vec<u8> {
    let manifest = taken.their.manifest.to_string();
    let mut record = ApplyRecord {
        tenant: name("dev"),
        name: name(&taken.their.name),
        pipeline: taken.theirs,
        version: 1,
        partitions: PARTITIONS,
        manifest: manifest.as_bytes(),
        names: NameTable {
            stages: vec![(stage_of(taken), name(STAGE))],
            outputs: vec![(OutputId(0), name("reply"))],
            ..NameTable::default()
        },
        discarded: Vec::new(),
    };
    lie(&mut record);
    let mut writer = RecordWriter::new();
    writer.apply(&record);
    let body = writer.to_bytes();
    let decoded = codec::decode(writer.kind(), &body).expect("a record");
    let mut fold = Fold::new();
    fold.apply(0, &decoded, &mut Nothing).expect("the first of its pipeline");
    fold.keep_part(record.pipeline).expect("it is there")
}

type Entry = (Vec<u8>, Vec<u8>);

/// State of a partition of their pipeline, without any name of a slot.
fn entries(taken: &TakenOver, partition: u16, count: usize) -> Vec<Entry> {
    let mut all: Vec<Entry> = keys_of(partition).take(count).map(|key| slot(taken, &key)).collect();
    all.sort();
    all
}

fn keys_of(partition: u16) -> impl Iterator<Item = Vec<u8>> {
    let keys = (0_u32..).map(|number| format!("k{number}").into_bytes());
    keys.filter(move |name| key::partition_of(key::group_of(name), PARTITIONS) == partition)
}

fn place_of(taken: &TakenOver, name: &[u8]) -> Place {
    let (tenant, pipeline) = (key::hash(b"dev") as u32, taken.theirs.0);
    Place { tenant, pipeline, stage: stage_of(taken).0, group: key::group_of(name) }
}

fn slot(taken: &TakenOver, name: &[u8]) -> Entry {
    let mut entry = Vec::new();
    keys::put_state(&mut entry, place_of(taken, name), name, b"slot");
    (entry, b"value".to_vec())
}

/// Entries as they go over: where the next page begins, with its length before, and each with its
/// lengths.
fn page(next: &[u8], entries: &[Entry]) -> Vec<u8> {
    let mut page = Vec::new();
    page.extend_from_slice(&(next.len() as u32).to_le_bytes());
    page.extend_from_slice(next);
    for (key, value) in entries {
        for part in [key, value] {
            page.extend_from_slice(&(part.len() as u32).to_le_bytes());
        }
        page.extend_from_slice(key);
        page.extend_from_slice(value);
    }
    page
}

/// What partitions changed, as it comes with the record.
fn changes(taken: &TakenOver, keys: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = RecordWriter::new();
    let mut state = writer.changed();
    for key in keys {
        let value = Some(&b"last"[..]);
        state.change(stage_of(taken), &Change { key, slot: b"slot", value });
    }
    state.end();
    writer.to_bytes().into()
}

/// Shapes that their pipeline, or any, does not have.
fn false_shapes(taken: &TakenOver) -> Vec<String> {
    let with = |name: &str, value: Value| {
        let mut shape = taken.their.shape.clone();
        shape[name] = value;
        shape.to_string()
    };
    let stage = stage_of(taken).0;
    vec![
        with("partitions", json!(PARTITIONS * 2)),
        with("partitions", json!(2)),
        with("partitions", json!(0)),
        with("partitions", json!(u16::MAX)),
        with("partitions", json!(1_u64 << 40)),
        with("stages", json!([])),
        with("stages", json!([stage, stage + 1])),
        with("stages", json!([stage + 1, stage])),
        with("stages", json!([stage, stage])),
        with("stages", json!((0..100_000).collect::<Vec<u32>>())),
        with("home", json!(NAMES[taken.second])),
        with("home", json!(NAMES[taken.scene.home])),
        with("home", Value::Null),
        "null".to_owned(),
        "no shape at all".to_owned(),
        String::new(),
    ]
}

/// Pages that are no state of the partition.
fn false_pages(taken: &TakenOver) -> Vec<Vec<u8>> {
    let right = entries(taken, OFFERED, 20);
    let first = |change: &dyn Fn(&mut Place)| {
        let name = keys_of(OFFERED).next().expect("there are many");
        let (mut place, mut entry) = (place_of(taken, &name), Vec::new());
        change(&mut place);
        keys::put_state(&mut entry, place, &name, b"slot");
        page(b"", &[(entry, b"value".to_vec())])
    };
    let mut reversed = right.clone();
    reversed.reverse();
    let whole = page(b"", &right);
    vec![
        // Of the partition that the other node has, and of pipelines that others have.
        page(b"", &entries(taken, 0, 1)),
        first(&|place| place.pipeline = taken.words.0),
        first(&|place| place.pipeline = taken.shared.0),
        first(&|place| place.tenant += 1),
        first(&|place| place.stage += 1),
        first(&|place| place.group = u16::MAX),
        page(b"", &reversed),
        page(b"", &[right[0].clone(), right[0].clone()]),
        page(b"", &[(Vec::new(), Vec::new())]),
        page(b"", &[(vec![99; 40], Vec::new())]),
        whole[..whole.len() - 1].to_vec(),
        whole[..3].to_vec(),
        [&u32::MAX.to_le_bytes()[..], &whole].concat(),
        // The next begins where this one does, for ever.
        page(&right[0].0, &right),
        Vec::new(),
    ]
}

/// Of what it has taken, lies about who has come and where they stand.
fn false_joins(taken: &TakenOver) -> Vec<(String, Joining)> {
    let right = Joining::of(taken);
    let own: &str = &taken.their.name;
    let kept_as =
        |lie: fn(&mut ApplyRecord<'_>)| Joining { kept: kept(taken, lie), ..right.clone() };
    let brings = |changed: Vec<u8>| Joining { changed, ..right.clone() };
    let other = keys_of(0).take(1).collect::<Vec<_>>();
    let mut all = vec![
        // Under another name, by the question or by what it says itself.
        ("other", right.clone()),
        (own, kept_as(|record| record.name = name("other"))),
        (own, kept_as(|record| record.name = name("words"))),
        (own, kept_as(|record| record.tenant = name("somebody"))),
        (own, kept_as(|record| record.pipeline = PipelineId(1 << 40))),
        (own, kept_as(|record| record.version = 2)),
        // So many partitions as there are not, and no such stages.
        (own, kept_as(|record| record.partitions = PARTITIONS * 2)),
        (own, kept_as(|record| record.partitions = 1)),
        (own, kept_as(|record| record.names.stages.push((StageId(77), name("more"))))),
        (own, kept_as(|record| record.manifest = b"no manifest")),
        (own, Joining { kept: Vec::new(), ..right.clone() }),
        (own, Joining { kept: vec![7; 300], ..right.clone() }),
        (own, Joining { kept: right.kept[..right.kept.len() / 2].to_vec(), ..right.clone() }),
        (own, brings(b"garbage".to_vec())),
        (own, brings(changes(taken, &other))),
        (own, right.with("attempt", json!(ATTEMPT + 1))),
        (own, right.with("pipeline", json!(taken.words.0))),
        (own, right.with("home", Value::Null)),
        (own, right.with("home", json!(NAMES[taken.second]))),
    ];
    // Out of order, twice, others, and such as the other node has.
    let lists = [json!([]), json!([2, 1]), json!([1, 1]), json!([1, 2]), json!([0, 1]), json!([4])];
    all.extend(lists.map(|list| (own, right.with("partitions", list))));
    all.into_iter().map(|(name, joining)| (name.to_owned(), joining)).collect()
}

#[tokio::test]
async fn a_home_that_lies_about_what_it_hands_over_hands_over_nothing() {
    let mut taken = TakenOver::with(Cluster::of(&NAMES)).await;
    let second = taken.second;
    let under_way = taken.begin().await;
    let offering = Offering::begin(&taken).await;
    let has = |partitions: &[u64]| partitions.iter().copied().collect::<BTreeSet<u64>>();
    assert_eq!(offering.there().await, has(&[0]));
    let right = offering.said.lock().expect("nobody panics with it").clone();
    for shape in false_shapes(&taken) {
        offering.says(|said| said.shape.clone_from(&shape));
        assert!(!offering.takes_theirs().await, "{shape:.200}");
    }
    // Of what nothing is there yet a shape can be anything but impossible.
    let shape = json!({ "partitions": u16::MAX, "stages": [0], "home": NAMES[taken.third] });
    offering.says(|said| said.shape = shape.to_string());
    assert!(!offering.takes(("fresh", 1 << 40), "0").await);
    assert_eq!(remembered(&taken.scene.nodes[second]), Vec::<std::path::PathBuf>::new());
    offering.says(|said| *said = right.clone());
    for partitions in ["2,1", "1,1", "0", "0,1", "4", "", "x"] {
        let theirs = (&*taken.their.name, taken.theirs.0);
        let ends = offering.takes(theirs, partitions).await;
        // What it has had it has.
        assert_eq!(ends, partitions == "0", "{partitions}");
    }
    for page in false_pages(&taken) {
        offering.says(|said| said.page.clone_from(&page));
        assert!(!offering.takes_theirs().await, "{:?}", &page[..page.len().min(100)]);
        assert!(!offering.joins(&taken.their.name, Joining::of(&taken)).await, "nothing is taken");
    }
    offering.says(|said| *said = right);
    assert!(offering.takes_theirs().await, "what is true is taken");
    for (at, (name, joining)) in false_joins(&taken).into_iter().enumerate() {
        assert!(!offering.joins(&name, joining).await, "lie {at}");
        assert_eq!(offering.there().await, has(&[0]), "lie {at}");
    }
    // Slots that nobody has named are there all the same, and what changed last lies over them.
    let keys: Vec<Vec<u8>> = keys_of(OFFERED).take(1).collect();
    let joining = Joining { changed: changes(&taken, &keys), ..Joining::of(&taken) };
    assert!(offering.joins(&taken.their.name, joining).await, "what is true is joined");
    assert_eq!(offering.there().await, has(&[0, 1]));
    drop(offering);
    under_way.0.goes_on(50).await;
    // All of it is in the log of the other node, which reads it.
    let old = taken.scene.nodes.remove(second);
    let setup = taken.scene.again(&old, NAMES[second]);
    drop(old.kill());
    taken.scene.nodes.insert(second, setup.start().await);
    let offering = Offering::begin(&taken).await;
    assert_eq!(offering.there().await, has(&[0, 1]));
    drop(offering);
    under_way.0.goes_on(50).await;
    taken.ends_well(under_way).await;
}
