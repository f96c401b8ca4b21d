//! Random tenants that do random things, and a naive model that knows what each may see.
//!
//! The model keeps every handle that ever was, whose it is and what is in it, and does to the bytes
//! what a submission does once it is told that it was whole. What is tried is as often a handle of
//! somebody else, of another sort or of the past.

use proptest::prelude::*;

use super::*;

/// What the model knows of a buffer.
#[derive(Debug, Clone)]
struct Known {
    /// The holder, if it is attached.
    owner: Owner,
    is_attached: bool,
    bytes: Vec<u8>,
    /// It may be half written: then it is refused, or as it was.
    is_doubtful: bool,
    is_dropped: bool,
}

/// What a submission does.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// The first so many words of a buffer are one more, or it never ends.
    Add {
        buffer: u64,
        words: usize,
        is_endless: bool,
    },
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Fill {
        buffer: u64,
        word: u32,
    },
}

impl Work {
    /// The buffer that it writes.
    const fn written(self) -> u64 {
        match self {
            Self::Add { buffer, .. } | Self::Fill { buffer, .. } => buffer,
            Self::Copy { to, .. } => to,
        }
    }
}

/// One of two holders of a stage, whose numbers no instance has.
fn holder_of(stage: Stage, number: u64) -> Owner {
    Owner { stage, instance: 2 + number % 2 }
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    owner: Owner,
    work: Work,
}

/// One random thing: what, by whom, and numbers that it follows from.
type Move = (u8, (u64, u32, u64), u64, u64);

struct Model {
    rig: Rig,
    /// Of all times.
    buffers: BTreeMap<u64, Known>,
    pending: BTreeMap<u64, Pending>,
    graphs: BTreeMap<Owner, [u64; 2]>,
    open: BTreeSet<u64>,
    /// Bytes times nanoseconds, in all and of the buffers of each stage, and up to when.
    held: u128,
    held_by: BTreeMap<Stage, u128>,
    at: Duration,
    /// What those who are gone have paid.
    paid: Bill,
}

impl Model {
    fn new() -> Self {
        Self {
            rig: Rig::empty(),
            buffers: BTreeMap::new(),
            pending: BTreeMap::new(),
            graphs: BTreeMap::new(),
            open: BTreeSet::new(),
            held: 0,
            held_by: BTreeMap::new(),
            at: Duration::ZERO,
            paid: Bill::default(),
        }
    }

    /// The time, up to which memory is counted.
    fn now(&mut self) -> Duration {
        let now = self.rig.now();
        let passed = (now - self.at).as_nanos();
        self.held += u128::from(self.rig.probe().held()) * passed;
        for (number, space) in &self.rig.host.spaces {
            for (stage, store) in
                space.stores.values().filter_map(|store| Some((store.stage?, store)))
            {
                let stage = Stage { tenant: Tenant(*number), number: stage };
                let held = self.held_by.entry(stage).or_default();
                *held += u128::from(store.place.bytes()) * passed;
            }
        }
        self.at = now;
        now
    }

    /// Mostly a handle that is good, often one of all times, sometimes none at all.
    fn pick(&self, number: u64) -> u64 {
        if number.is_multiple_of(7) || self.buffers.is_empty() {
            return number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        let all = || self.buffers.iter();
        let good = all().filter(|(_, known)| !known.is_dropped).count();
        let (at, any) = (number as usize, number.is_multiple_of(5) || good == 0);
        let mut from = all().filter(|(_, known)| any || !known.is_dropped);
        let count = if any { self.buffers.len() } else { good };
        from.nth(at % count).map(|(handle, _)| *handle).unwrap()
    }

    /// Mostly whose the handle is; of what is attached, as often any other of the tenant's.
    fn mostly(&self, who: Owner, handle: u64, number: u64) -> Owner {
        let known = self.buffers.get(&handle).filter(|_| !number.is_multiple_of(6));
        known.map_or(who, |known| {
            let Owner { stage, instance } = who;
            let stage = Stage { tenant: known.owner.tenant(), ..stage };
            let is_other = known.is_attached && number.is_multiple_of(2);
            if is_other { Owner { stage, instance } } else { known.owner }
        })
    }

    /// A buffer, if the owner may read it.
    fn usable(&self, who: Owner, handle: u64) -> Option<&Known> {
        let known = self.buffers.get(&handle)?;
        let is_open = self.open.contains(&who.tenant().0);
        let is_theirs =
            known.owner == who || (known.is_attached && known.owner.tenant() == who.tenant());
        (is_open && is_theirs && !known.is_dropped).then_some(known)
    }

    fn is_attached(&self, handle: u64) -> bool {
        self.buffers.get(&handle).is_some_and(|known| known.is_attached)
    }

    fn is_busy(&self, handle: u64, is_written: bool) -> bool {
        self.pending.values().any(|pending| match pending.work {
            Work::Add { buffer, .. } | Work::Fill { buffer, .. } => buffer == handle,
            Work::Copy { from, to, .. } => to == handle || (is_written && from == handle),
        })
    }

    /// Sees that what was refused had to be. Whether it was taken.
    fn refused<T>(&self, answer: &Result<T, Refused>, allowed: &[(&'static str, bool)]) -> bool {
        let Err(why) = answer else {
            let must = allowed.iter().find(|(code, must)| *must && !code.is_empty());
            assert!(must.is_none(), "it is not refused as {must:?}");
            return false;
        };
        let found = allowed.iter().find(|(code, _)| *code == why.code());
        assert!(found.is_some(), "{why} is not of {allowed:?}");
        true
    }

    fn step(&mut self, (what, (tenant, stage, instance), one, other): Move) {
        let who = owner(Tenant(tenant), stage, instance);
        let handle = self.pick(one);
        let whose = self.mostly(who, handle, other);
        match what {
            0..=2 => self.create(who, one),
            3..=5 => self.write(whose, handle, other),
            6..=8 => self.read(whose, handle),
            9 => self.drop_buffer(whose, handle),
            10 => self.attach(whose, handle, other),
            11..=15 => self.submit(whose, what, handle, other),
            16 if other.is_multiple_of(3) => self.drop_owner(who),
            16 if other.is_multiple_of(2) => self.drop_owner(holder_of(who.stage, other / 2)),
            17 if other.is_multiple_of(3) => self.close(who.tenant()),
            18 => self.cancel(who, one),
            _ => self.drive(one),
        }
        self.poll();
        self.check();
    }

    fn create(&mut self, who: Owner, one: u64) {
        let now = self.now();
        if self.open.insert(who.tenant().0) {
            let answer = self.rig.host.open(now, who.tenant(), terms());
            // One that is to go is there until it has.
            if answer.is_err() {
                assert_eq!(code(answer), "gpu.exists");
                self.open.remove(&who.tenant().0);
                return;
            }
            for number in 0..2 {
                let stage = Stage { tenant: who.tenant(), number };
                self.rig.host.open_stage(stage, 1_000).unwrap();
            }
        }
        let bytes = 4 * (1 + one % 700);
        let answer = self.rig.host.create(now, who, bytes);
        if self.refused(&answer, &[("gpu.memory", false), ("gpu.limit", false)]) {
            return;
        }
        let bytes = vec![0; bytes as usize];
        let (is_attached, is_doubtful, is_dropped) = (false, false, false);
        let known = Known { owner: who, is_attached, bytes, is_doubtful, is_dropped };
        let before = self.buffers.insert(answer.unwrap(), known);
        assert!(before.is_none(), "no handle comes twice");
    }

    fn write(&mut self, who: Owner, handle: u64, other: u64) {
        let length = self.buffers.get(&handle).map_or(4, |known| known.bytes.len());
        let (from, end) = ((other % 3) as usize * length / 4, length - (other % 2) as usize);
        let bytes = vec![other as u8; end.saturating_sub(from)];
        let answer = self.rig.host.write(who, handle, from as u64, &bytes);
        let is_usable = self.usable(who, handle).is_some();
        let is_busy = is_usable && self.is_busy(handle, true);
        let allowed: &[_] = match (is_usable, self.is_attached(handle)) {
            (false, _) => &[("gpu.handle", true), ("gpu.tenant", false)],
            (true, true) => &[("gpu.read-only", true)],
            (true, false) => &[("gpu.busy", is_busy)],
        };
        if !self.refused(&answer, allowed) {
            let known = self.buffers.get_mut(&handle).unwrap();
            known.bytes[from..end].copy_from_slice(&bytes);
            known.is_doubtful &= from > 0 || end < length;
        }
    }

    fn read(&mut self, who: Owner, handle: u64) {
        let length = self.buffers.get(&handle).map_or(4, |known| known.bytes.len());
        let mut bytes = vec![0xA5; length];
        let answer = self.rig.host.read(who, handle, 0, &mut bytes);
        let Some(known) = self.usable(who, handle) else {
            self.refused(&answer, &[("gpu.handle", true), ("gpu.tenant", false)]);
            assert!(bytes.iter().all(|byte| *byte == 0xA5), "nothing was read");
            return;
        };
        let is_busy = self.is_busy(handle, false);
        let allowed = [("gpu.busy", is_busy), ("gpu.poisoned", false)];
        let allowed = &allowed[usize::from(!is_busy)..1 + usize::from(known.is_doubtful)];
        if !self.refused(&answer, allowed) {
            assert_eq!(bytes, known.bytes);
        }
    }

    fn drop_buffer(&mut self, who: Owner, handle: u64) {
        let now = self.now();
        let is_usable = self.usable(who, handle).is_some_and(|known| known.owner == who);
        let answer = self.rig.host.drop_handle(now, who, handle);
        let missing = [("gpu.handle", true), ("gpu.tenant", false)];
        if !self.refused(&answer, if is_usable { &[] } else { &missing }) {
            self.buffers.get_mut(&handle).unwrap().is_dropped = true;
        }
    }

    /// Mostly for a holder of the same stage.
    fn attach(&mut self, who: Owner, handle: u64, other: u64) {
        let any = Stage { tenant: Tenant(1 + other % 3), number: (other / 3 % 2) as u32 };
        let stage = if other.is_multiple_of(5) { any } else { who.stage };
        let holder = holder_of(stage, other / 6);
        let known = self.usable(who, handle).cloned();
        let is_busy = known.is_some() && self.is_busy(handle, true);
        let answer = self.rig.host.attach(who, handle, holder);
        let allowed: &[_] = match known {
            None => &[("gpu.handle", true), ("gpu.tenant", false)],
            Some(_) if stage != who.stage => &[("gpu.foreign", true)],
            Some(known) if known.is_attached => {
                &[("gpu.handle", true)][..usize::from(known.owner != holder)]
            }
            Some(_) => &[("gpu.busy", true)][..usize::from(is_busy)],
        };
        if !self.refused(&answer, allowed) {
            let known = self.buffers.get_mut(&handle).unwrap();
            (known.owner, known.is_attached) = (holder, true);
        }
    }

    fn submit(&mut self, who: Owner, what: u8, first: u64, other: u64) {
        // Mostly another of the same owner's.
        let theirs = self.buffers.keys().filter(|handle| self.usable(who, **handle).is_some());
        let theirs = theirs.copied().collect::<Vec<_>>().into_iter();
        let second = theirs.cycle().nth(other as usize % 16);
        let second =
            second.filter(|_| !other.is_multiple_of(9)).unwrap_or_else(|| self.pick(other));
        let length = |handle| self.buffers.get(&handle).map_or(4, |known| known.bytes.len());
        let [most, least] = [length(first), length(second)];
        let (answer, work, used) = match what {
            11 | 12 => {
                let bytes = most.min(least);
                let binding = |buffer| Binding { buffer, offset: 0, bytes: Some(bytes as u64) };
                let answer = self.rig.host.copy(who, binding(first), binding(second));
                (answer, Work::Copy { from: first, to: second, bytes }, vec![first, second])
            }
            13 if self.open.contains(&who.tenant().0) => {
                let word = other as u32;
                let at = Part { slot: 0, offset: 0, bytes: most as u64 };
                let answer = self.rig.host.record(who, &[Op::Fill { at, word }]);
                let graph = answer.expect("there is room");
                let answer = self.rig.submit(who, graph, &[first]);
                let now = self.now();
                self.rig.host.drop_handle(now, who, graph).unwrap();
                (answer, Work::Fill { buffer: first, word }, vec![first])
            }
            _ if self.open.contains(&who.tenant().0) => {
                let is_endless = other.is_multiple_of(4);
                let [add, endless] = *self.graphs.entry(who).or_insert_with(|| {
                    [(ADD, 20), (ENDLESS, 1)]
                        .map(|(source, groups)| self.rig.graph(who, source, groups))
                });
                let graph = if is_endless { endless } else { add };
                let answer = self.rig.submit(who, graph, &[first]);
                (answer, Work::Add { buffer: first, words: 80, is_endless }, vec![first])
            }
            _ => return,
        };
        let is_usable = used.iter().all(|handle| self.usable(who, *handle).is_some());
        let is_doubtful =
            used.iter().any(|used| self.buffers.get(used).is_some_and(|it| it.is_doubtful));
        let is_same = matches!(work, Work::Copy { from, to, .. } if from == to);
        let mut allowed = vec![("gpu.would-block", false)];
        if !is_usable {
            allowed.extend([("gpu.handle", true), ("gpu.tenant", false)]);
        } else if is_same {
            allowed.push(("gpu.binding", true));
        }
        if is_doubtful {
            allowed.push(("gpu.poisoned", false));
        }
        if self.is_attached(work.written()) {
            allowed.push(("gpu.read-only", is_usable && !is_same));
        }
        if !self.refused(&answer, &allowed) {
            self.pending.insert(answer.unwrap(), Pending { owner: who, work });
        }
    }

    fn drop_owner(&mut self, who: Owner) {
        let now = self.now();
        self.rig.host.drop_owner(now, who);
        self.forget(|owner| owner == who);
    }

    fn close(&mut self, tenant: Tenant) {
        let now = self.now();
        let answer = self.rig.host.close(now, tenant);
        assert_eq!(answer.is_ok(), self.open.remove(&tenant.0));
        self.forget(|owner| owner.tenant() == tenant);
    }

    fn forget(&mut self, is_meant: impl Fn(Owner) -> bool) {
        self.graphs.retain(|owner, _| !is_meant(*owner));
        self.pending.retain(|_, pending| !is_meant(pending.owner));
        let meant = self.buffers.values_mut().filter(|known| is_meant(known.owner));
        meant.for_each(|known| known.is_dropped = true);
    }

    fn cancel(&mut self, who: Owner, one: u64) {
        let now = self.now();
        let mut pending = self.pending.iter().cycle();
        let Some((submission, pending)) = pending.nth(one as usize % 16) else { return };
        let answer = self.rig.host.cancel(now, who, *submission);
        assert_eq!(answer.is_ok(), pending.owner == who, "{answer:?}");
    }

    fn drive(&mut self, one: u64) {
        let now = self.now();
        let longest = Duration::from_micros(one % 4_000);
        assert!(!matches!(self.rig.host.drive(now, longest), Verdict::Hung { .. }));
        if one.is_multiple_of(5) {
            self.rig.advance(longest);
        }
    }

    /// Takes in what has happened.
    fn poll(&mut self) {
        while let Some(event) = self.rig.host.poll() {
            match event {
                Event::Ended { submission, end, .. } => self.ended(submission, &end),
                Event::StageClosed { stage, bill } => {
                    let held = self.held_by.remove(&stage).unwrap_or_default();
                    assert_eq!(bill.memory_byte_nanos, held);
                }
                Event::Closed { bill, .. } => self.pay(bill),
            }
        }
    }

    fn pay(&mut self, bill: Bill) {
        let paid = &mut self.paid;
        paid.used.device_nanos += bill.used.device_nanos;
        paid.used.chunks += bill.used.chunks;
        paid.used.copy_nanos += bill.used.copy_nanos;
        paid.used.up_bytes += bill.used.up_bytes;
        paid.used.down_bytes += bill.used.down_bytes;
        paid.memory_byte_nanos += bill.memory_byte_nanos;
    }

    /// Does what a submission that was whole has done.
    fn ended(&mut self, submission: u64, end: &End) {
        let Pending { work, .. } = self.pending.remove(&submission).expect("it was taken");
        let to = work.written();
        assert!(!self.is_attached(to), "what is attached is not written");
        if *end != End::Whole {
            self.buffers.get_mut(&to).unwrap().is_doubtful = true;
            return;
        }
        let known = |handle| self.buffers[&handle].clone();
        let mut written = known(to);
        match work {
            Work::Add { words, is_endless, .. } => {
                assert!(!is_endless, "it ends by its fuel");
                for bytes in written.bytes.chunks_exact_mut(4).take(words) {
                    let word = u32::from_le_bytes(bytes.try_into().unwrap());
                    bytes.copy_from_slice(&word.wrapping_add(1).to_le_bytes());
                }
            }
            Work::Copy { from, bytes, .. } => {
                written.bytes[..bytes].copy_from_slice(&known(from).bytes[..bytes]);
                written.is_doubtful &= bytes < written.bytes.len();
            }
            Work::Fill { word, .. } => {
                let bytes = written.bytes.chunks_exact_mut(4);
                bytes.for_each(|bytes| bytes.copy_from_slice(&word.to_le_bytes()));
                written.is_doubtful = false;
            }
        }
        self.buffers.insert(to, written);
    }

    /// Whatever was attached is as it was, for whoever reads it; and when all owners and holders
    /// have gone nothing is held.
    fn finish(mut self) {
        self.rig.run().iter().for_each(|event| {
            if let Event::Ended { submission, end, .. } = event {
                self.ended(*submission, end);
            }
        });
        let attached = self.buffers.iter().filter(|(_, known)| known.is_attached);
        for (handle, known) in attached.filter(|(_, known)| !known.is_dropped) {
            let mut bytes = vec![0; known.bytes.len()];
            let reader = owner(known.owner.tenant(), 1, 77);
            let read = self.rig.host.read(reader, *handle, 0, &mut bytes);
            assert!(read.is_ok() || known.is_doubtful, "{read:?}");
            assert!(read.is_err() || bytes == known.bytes, "{handle:#x} has changed");
        }
        let now = self.rig.now();
        for tenant in self.open.iter().copied().map(Tenant) {
            for at in 0..8 {
                self.rig.host.drop_owner(now, owner(tenant, at % 2, u64::from(at / 2)));
            }
            let left = self.rig.host.spaces[&tenant.0].handles();
            assert_eq!((left, self.rig.host.held_bytes(tenant)), (0, Some(0)));
        }
        self.rig.close_all();
    }

    /// What holds at any time.
    fn check(&mut self) {
        let now = self.now();
        let host = &mut self.rig.host;
        let tenants: Vec<Tenant> = host.spaces.keys().copied().map(Tenant).collect();
        let held: u64 = tenants.iter().filter_map(|tenant| host.held_bytes(*tenant)).sum();
        assert_eq!(held, self.rig.probe.lock().unwrap().held(), "what is taken is counted");
        let all = host.bill_in_all(now);
        assert_eq!(all.used.device_nanos, self.rig.probe.lock().unwrap().busy, "time is billed");
        assert_eq!(all.memory_byte_nanos, self.held, "memory is billed");
        let mut rest = less(all, self.paid);
        // Those that are gone have paid once their event was told.
        let unpaid = host.events.iter().filter_map(|event| match event {
            Event::Closed { bill, .. } => Some(*bill),
            _ => None,
        });
        rest = unpaid.fold(rest, less);
        for tenant in tenants {
            let bill = host.bill(now, tenant).unwrap();
            let stages: Vec<u32> = host.spaces[&tenant.0].stages.keys().copied().collect();
            let stages = stages.into_iter().map(|number| Stage { tenant, number });
            let own = stages.fold(bill, |own, stage| {
                let part = host.stage_bill(now, stage).unwrap();
                let held = self.held_by.get(&stage).copied().unwrap_or_default();
                assert_eq!(part.memory_byte_nanos, held, "memory is billed to stages");
                less(own, part)
            });
            assert!(own.memory_byte_nanos <= bill.memory_byte_nanos);
            rest = less(rest, bill);
        }
        assert_eq!(rest, Bill::default(), "all that was used is on one bill");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn tenants_see_what_the_model_says_and_all_is_billed_and_given_back(
        moves in prop::collection::vec(
            (0_u8..24, (1_u64..4, 0_u32..2, 0_u64..2), 0_u64..10_000, 0_u64..10_000),
            1..150,
        ),
    ) {
        let mut model = Model::new();
        for step in moves {
            model.step(step);
        }
        model.finish();
    }
}
