//! What it says by links: bytes that are no messages, and messages about what is not its.

use sluicebox_core::frame::{FrameBuilder, Head, field, push_field};
use sluicebox_core::ids::{EdgeId, OutputId, RequestId, StageId};
use sluicebox_core::message::{At, Message};
use sluicebox_core::position::{Place, RunHeader, Source};
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::liar::Said;
use tokio::io::AsyncWriteExt as _;

use super::{Calls, Chance, NAMES, RESIDENT_BYTES_MORE, TakenOver, a_word, resident};

/// Requests that somebody may wait for now.
fn requests() -> impl Iterator<Item = RequestId> {
    let all = (1..400_u64).flat_map(|use_| (0..16_u64).map(move |stripe| (use_, stripe)));
    all.map(|(use_, stripe)| RequestId(use_ << 20 | stripe << 16))
}

/// Whatever bytes, where a link begins and where its packets are.
async fn on_the_wire(taken: &TakenOver, at: usize) {
    let (to, hello) = (taken.port(at), taken.liar.hello(NAMES[at]));
    let mut chance = Chance(7);
    let head = |bytes: u32, kind: u8| [&bytes.to_le_bytes()[..], &[kind, 0, 0, 0]].concat();
    let mut newer = hello.clone();
    newer[10] = 9;
    let mut foreign = hello.clone();
    foreign[32..33].copy_from_slice(b"z");
    let half = [&head(1 << 20, 1)[..], &[0; 1 << 19]].concat();
    let mut all = vec![
        Vec::new(),
        hello[..20].to_vec(),
        newer,
        foreign,
        [&hello[..], &head(u32::MAX, 1)].concat(),
        [&hello[..], &head(16, 7)].concat(),
        [&hello[..], &head(16, 2)].concat(),
        [&hello[..], &half].concat(),
        [&hello[..], &head(0, 1).repeat(5000)].concat(),
    ];
    all.extend((0..20).map(|_| chance.bytes(4096)));
    all.extend((0..20).map(|_| [&hello[..], &chance.bytes(4096)].concat()));
    for bytes in all {
        let mut wire = taken.liar.wire(to).await.expect("it has a certificate");
        // The node may close before all of it is said.
        let _said = wire.write_all(&bytes).await;
        let _said = wire.shutdown().await;
    }
}

/// Messages that are none, and such as no node says. Each ends its link.
fn nonsense(taken: &TakenOver) -> Vec<Said> {
    let (pipeline, partition) = (taken.shared, 1);
    let frame = a_word("w1");
    let at = |root| At { pipeline, root: StageId(root), partition };
    let from_nowhere = |edge| Source::Edge { edge: EdgeId(edge), partition: 2 };
    let places = (0..100_000).map(|edge| (from_nowhere(edge), Place { seq: 1, index: 0 }));
    let output = |output, first, frame: &'static [u8]| {
        Said::of(&Message::Output { pipeline, output: OutputId(output), partition, first, frame })
    };
    let bytes: &'static [u8] = frame.bytes().to_vec().leak();
    let mut all = vec![
        Said::bytes(&[]),
        Said::bytes(&[1]),
        Said::bytes(&[9, 1]),
        Said::bytes(&[1, 0]),
        Said::bytes(&[1, 9, 1]),
        Said::bytes(&[1, 2, 0, 0, 0, 255, 255, 255, 255, 15]),
        Said::bytes(&[&[1, 7][..], &[1; 5 << 20]].concat()),
        output(0, u64::MAX, bytes),
        output(0, u64::MAX - 1, bytes),
        output(77, 0, bytes),
        output(0, 0, b"no frame at all"),
    ];
    // One of these is the root of the segment.
    let settled = (0..4).map(|root| Message::Settled { of: at(root), places: Vec::new() });
    all.extend(settled.map(|message| match message {
        Message::Settled { of, .. } => {
            Said::of(&Message::Settled { of, places: places.clone().collect() })
        }
        _ => unreachable!("all are of one kind"),
    }));
    all
}

#[tokio::test]
async fn what_no_node_says_ends_its_link_and_nothing_else() {
    let taken = TakenOver::with(Cluster::of(&NAMES)).await;
    let under_way = taken.begin().await;
    for at in [taken.scene.home, taken.second] {
        on_the_wire(&taken, at).await;
    }
    let (mut ended, nonsense) = (0, nonsense(&taken));
    for said in &nonsense {
        ended += usize::from(taken.liar.says(taken.at_home(), said).await);
    }
    // Of the last four one is about a stage that there is.
    assert!(ended >= nonsense.len() - 3, "{ended} of {} links ended", nonsense.len());
    let wrong = taken.wrong(taken.scene.home).await;
    assert!(wrong as usize >= ended, "{wrong} of {ended} are counted");
    let log = taken.scene.nodes[taken.scene.home].log();
    assert!(log.contains("a node says what it may not"), "{log}");
    let mut chance = Chance(11);
    for at in 0..160 {
        let said = Said::bytes(&[&[1, 1 + at % 8][..], &chance.bytes(64)].concat());
        taken.liar.drops(taken.at_home(), &said).await;
    }
    taken.ends_well(under_way).await;
}

/// Messages as a node says them, of what is not its.
fn forged(taken: &TakenOver) -> Vec<Said> {
    let (pipeline, frame) = (taken.words, a_word("w1"));
    let mut all = Vec::new();
    // Numbers are given out from the lowest on, and partitions are two at each of two nodes.
    for (root, edge) in (0..3).flat_map(|root| (0..2).map(move |edge| (root, edge))) {
        for (to, from) in [0, 2].into_iter().flat_map(|to| (1..4).map(move |from| (to, from))) {
            let of = At { pipeline, root: StageId(root), partition: to };
            let source = Source::Edge { edge: EdgeId(edge), partition: from };
            let run = RunHeader { source, seq: 1 << 40, previous: 0 };
            all.push(Said::of(&Message::Run { to: of, run, skip: 0, frame: frame.bytes() }));
            let places = vec![(source, Place { seq: 1 << 40, index: 0 })];
            all.push(Said::of(&Message::Settled { of, places }));
            all.push(Said::of(&Message::Later { of, source }));
        }
        for partition in [1, 3] {
            let (output, frame) = (OutputId(edge), &frame.bytes()[..]);
            all.push(Said::of(&Message::Output { pipeline, output, partition, first: 0, frame }));
            let of = At { pipeline, root: StageId(root), partition };
            all.push(Said::of(&Message::DeadLetters { of, first: 0, frame }));
            let outputs = vec![(output, 1 << 40)];
            let dead_letters = vec![(StageId(root), 1 << 40)];
            all.push(Said::of(&Message::Kept { pipeline, partition, outputs, dead_letters }));
        }
    }
    let run = RunHeader { source: Source::Ingest, seq: 1 << 40, previous: 0 };
    let to = At { pipeline, root: StageId(0), partition: 2 };
    all.push(Said::of(&Message::Run { to, run, skip: 0, frame: frame.bytes() }));
    all.push(Said::of(&Message::Moved { pipeline }));
    all
}

#[tokio::test]
async fn a_node_is_not_heard_of_partitions_that_it_has_not() {
    let taken = TakenOver::with(Cluster::of(&NAMES)).await;
    let under_way = taken.begin().await;
    for at in [taken.scene.home, taken.second] {
        // Each by itself: what ends its link keeps nothing else from being heard.
        for said in forged(&taken) {
            taken.liar.drops(taken.port(at), &said).await;
        }
    }
    taken.ends_well(under_way).await;
}

/// Says of requests of others that they are done, and answers them.
fn answers(taken: &TakenOver) -> Vec<Said> {
    let deltas: Vec<_> = requests().map(|request| (request, -100)).collect();
    let mut builder = FrameBuilder::new();
    for request in requests() {
        let mut fields = Vec::new();
        assert!(push_field(&mut fields, field::REQUEST, &request.0.to_le_bytes()));
        builder.push(&Head::data(1), b"k", b"\"forged\"", &fields);
    }
    let frame = builder.finish();
    let (pipeline, partition) = (taken.shared, 1);
    let mut all = vec![Said::of(&Message::Requests { deltas })];
    all.extend((0..3).map(|output| {
        let (output, frame) = (OutputId(output), &frame.bytes()[..]);
        Said::of(&Message::Output { pipeline, output, partition, first: 0, frame })
    }));
    all
}

#[tokio::test]
async fn a_node_answers_nobody_who_waits_for_what_it_has_no_part_in() {
    let taken = TakenOver::with(Cluster::of(&NAMES)).await;
    let calls = Calls::begin(taken.scene.at_home(), &taken.own);
    for _ in 0..40 {
        for said in answers(&taken) {
            taken.liar.drops(taken.at_home(), &said).await;
        }
    }
    calls.end().await;
}

#[tokio::test]
async fn a_home_that_says_much_of_what_there_is_not_takes_no_memory() {
    let taken = TakenOver::with(Cluster::of(&NAMES)).await;
    let under_way = taken.begin().await;
    let second = &taken.scene.nodes[taken.second];
    let before = resident(second);
    let (pipeline, partition) = (taken.theirs, 0);
    for round in 0..8 {
        let outputs = (0..600_000).map(|at| (OutputId(1_000_000 * round + at), 1)).collect();
        let kept = Message::Kept { pipeline, partition, outputs, dead_letters: Vec::new() };
        taken.liar.drops(taken.port(taken.second), &Said::of(&kept)).await;
    }
    taken.under(before + RESIDENT_BYTES_MORE, taken.second);
    taken.ends_well(under_way).await;
}
