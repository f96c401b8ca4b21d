//! The same streams, as they go over to other code.

use super::*;

impl Node {
    /// The version runs with other code, which streams go over to.
    fn version(&mut self, now: u32) {
        let mut plan = SegmentPlan::clone(&self.plan);
        plan.stages[0].stream.idle_timeout_ms = 1000;
        plan.stages[0].codes = Codes { now, oldest: 1 };
        plan.stages[0].stream.on_update = OnUpdate::Snapshot;
        self.plan = Arc::new(plan);
        self.kill();
    }

    /// Streams go over, those of `stays` excepted; gives how many. What the new code remembers is
    /// what the old one did, and `!`.
    fn upgrades(&mut self, now: u64, stays: &[&str]) -> Option<usize> {
        if !self.machine.start_upgrades(now) {
            return None;
        }
        let mut count = 0;
        while let Some(call) = self.machine.next_upgrade() {
            let Serves::Stream(key, _) = &call.serves else { panic!("a stream") };
            if stays.iter().any(|name| name.as_bytes() == &key[..]) {
                self.machine.stays(call);
                continue;
            }
            let call = self.with_instance(call);
            let memory = self.instances.get_mut(&call.serves).expect("it was made again");
            memory.push(b'!');
            let pages = memory.chunks(4096).map(Bytes::copy_from_slice);
            let image = Image { head: Bytes::new(), pages: (0..).zip(pages).collect() };
            self.machine.upgraded(call, &image);
            count += 1;
        }
        self.finish(now);
        Some(count)
    }
}

/// What the stream of a key says of its last event; `!` is what new code adds.
fn said(key: &str, payloads: &[&str]) -> (String, String) {
    let mut memory = vec![Kind::Open as u8, 0];
    let mut seen = 1;
    for payload in payloads {
        if *payload != "!" {
            memory.extend([Kind::Data as u8, 0]);
            seen += 1;
        }
        memory.extend_from_slice(payload.as_bytes());
    }
    (key.to_owned(), format!("{seen} {:x}", xxhash_rust::xxh3::xxh3_64(&memory)))
}

#[test]
fn streams_go_over_to_other_code_with_what_they_know() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.version(1);
    node.post(&[("a", "e1"), ("b", "e2"), ("c", "e3")], 0);
    assert_eq!(node.machine.open_codes()[0], [1].into());
    assert_eq!(node.upgrades(0, &[]), None, "they have the code of now");

    node.version(2);
    assert_eq!(node.upgrades(0, &["b"]), Some(2));
    assert_eq!(node.machine.open_codes()[0], [1, 2].into());
    assert_eq!(node.upgrades(0, &[]), None, "each is tried once");
    assert_eq!(node.machine.streams_of_before(), 1);
    // What is known of them is in the records.
    node.kill();
    assert_eq!(node.machine.open_codes()[0], [1, 2].into());
    assert_eq!(node.upgrades(0, &["b"]), Some(0), "another process tries again");
    node.post(&[("a", "e4"), ("b", "e5")], 0);
    let last = &node.out[node.out.len() - 2..];
    assert_eq!(last, [said("a", &["e1", "!", "e4"]), said("b", &["e2", "e5"])]);

    // From the first and from the second code to the third.
    node.version(3);
    assert_eq!(node.upgrades(0, &[]), Some(3));
    node.kill();
    node.post(&[("a", "e6"), ("b", "e7"), ("c", "e8")], 0);
    let last = &node.out[node.out.len() - 3..];
    let a = said("a", &["e1", "!", "e4", "!", "e6"]);
    assert_eq!(last, [a, said("b", &["e2", "e5", "!", "e7"]), said("c", &["e3", "!", "!", "e8"])]);
    assert_eq!(node.machine.open_codes()[0], [3].into());
    assert_eq!(node.machine.streams_of_before(), 0);
}

#[test]
fn streams_whose_going_over_is_too_large_for_a_commit_go_alone_or_stay() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.version(1);
    let large = "x".repeat(5000);
    node.post(&[("a", "e1"), ("b", "e2"), ("c", &large), ("d", "e4")], 0);
    node.version(2);
    node.bytes_max = 1000;
    let mut batches = 0;
    while node.upgrades(0, &[]).is_some() {
        batches += 1;
        assert!(batches < 20, "it comes to an end");
    }
    assert_eq!(node.machine.streams_of_before(), 1, "c stays");
    node.bytes_max = usize::MAX;
    node.kill();
    node.post(&[("c", "e5"), ("d", "e6")], 0);
    let last = &node.out[node.out.len() - 2..];
    assert_eq!(last, [said("c", &[&large, "e5"]), said("d", &["e4", "!", "e6"])]);
}

#[test]
fn what_is_known_of_streams_that_go_over_is_loaded_first() {
    let mut node = Node::new(OnFailure::DeadLetter);
    node.version(1);
    let names: Vec<String> = (0..20).map(|at| format!("k{at:02}")).collect();
    let events: Vec<(&str, &str)> = names.iter().map(|name| (&name[..], "e1")).collect();
    node.post(&events, 0);
    node.version(2);
    // Nothing is in memory but that they are open.
    let progress = node.machine.progress().expect("a ledger").clone();
    node.machine = Partition::new(node.plan.clone(), 3);
    let mut cold = KeyedState::new(4, node.plan.stages[0].state);
    cold.set_hosted(true);
    cold.back(false);
    node.machine.adopt("only", cold);
    node.machine.keep_ledger(ids(), progress);
    node.machine.keep_event_time();
    let (own, beside): (Vec<_>, Vec<_>) =
        node.kept.iter().partition(|((stage, ..), _)| *stage == StageId(3));
    for ((stage, key, slot), value) in beside {
        node.machine.restore(*stage, &Change { key, slot, value: Some(value) });
    }
    assert!(node.machine.start_upgrades(0));
    let mut gone_over = 0;
    loop {
        while let Some(call) = node.machine.next_upgrade() {
            assert!(node.machine.revival(&call).is_ok_and(|revival| revival.is_some()));
            let image = Image { head: Bytes::new(), pages: BTreeMap::new() };
            node.machine.upgraded(call, &image);
            gone_over += 1;
        }
        let Some(wanted) = node.machine.take_wanted() else { break };
        // Three at a time.
        for key in wanted.keys.iter().take(3) {
            let slots = own.iter().filter(|((_, of, _), _)| of[..] == key[..]);
            let slots = slots.map(|((_, _, slot), value)| (&slot[..], &value[..]));
            node.machine.load(wanted.stage, key, slots);
        }
        node.machine.loaded_short();
    }
    assert_eq!((gone_over, node.machine.streams_of_before()), (20, 0));
}
