//! Any packets of several owners, with devices that are lost: each is answered as often as it has
//! to be, and nothing is left of who is gone.

use proptest::prelude::*;

use super::*;
use crate::host::{Binding, Op, Part};

/// What handles are of.
const SORTS: usize = 4;
const BUFFERS: usize = 0;
const KERNELS: usize = 1;
const GRAPHS: usize = 2;
const SUBMISSIONS: usize = 3;

struct Asked {
    who: Option<Owner>,
    /// Of the handle that it makes.
    sort: Option<usize>,
    /// Its owner is gone, and so often it was answered until then.
    gone: Option<[usize; 2]>,
}

struct Model {
    rig: Rig,
    asked: BTreeMap<u64, Asked>,
    /// Of each sort: whose, and which.
    pools: [Vec<(Owner, u64)>; SORTS],
}

/// Four that may be there, and two that never are.
fn someone(byte: u8) -> Owner {
    match byte % 10 {
        8 => owner(9, 0, 0),
        9 => owner(1, 7, 0),
        number => {
            let number = u32::from(number);
            owner(u64::from(number % 2 + 1), number / 2 % 2, u64::from(number / 4))
        }
    }
}

/// Of each stage that may be there, one that no instance has the number of.
fn holder_of(number: u8) -> Owner {
    Owner { instance: 2, ..someone(number % 4) }
}

impl Model {
    fn new() -> Self {
        let rig = Rig::new();
        rig.lock().spares = 1_000;
        Self { rig, asked: BTreeMap::new(), pools: Default::default() }
    }

    /// One of a sort with its owner; now and then of somebody else, or none.
    fn pick(&self, sort: usize, byte: u8) -> (Owner, u64) {
        let pool = &self.pools[sort];
        let (who, handle) = match pool.len() {
            0 => (someone(byte), u64::from(byte)),
            count => pool[count - 1 - usize::from(byte) % count.min(12)],
        };
        if byte > 240 { (someone(byte), handle) } else { (who, handle) }
    }

    fn ask(&mut self, who: Owner, sort: Option<usize>, act: Act, tail: &[u8]) {
        let number = self.rig.ask(Want::Of(who, act), tail);
        self.asked.insert(number, Asked { who: Some(who), sort, gone: None });
    }

    fn order(&mut self, want: Want) {
        let number = self.rig.ask(want, &[]);
        self.asked.insert(number, Asked { who: None, sort: None, gone: None });
    }

    fn hear(&mut self, heard: Vec<Heard>) {
        for (number, answer, _) in heard {
            let Answer::Handle(handle) = answer else { continue };
            let asked = &self.asked[&number];
            let sort = asked.sort.expect("it makes something");
            self.pools[sort].push((asked.who.expect("an owner asks"), handle));
        }
    }

    fn listen(&mut self) {
        let heard = self.rig.replies();
        self.hear(heard);
    }

    /// Some owners are about to go.
    fn leave(&mut self, want: Want, is_meant: impl Fn(Owner) -> bool) {
        self.listen();
        for (number, asked) in &mut self.asked {
            if asked.gone.is_none() && asked.who.is_some_and(&is_meant) {
                asked.gone = Some(self.rig.heard.get(number).copied().unwrap_or_default());
            }
        }
        self.order(want);
    }

    fn step(&mut self, [kind, first, second, third]: [u8; 4]) {
        match kind % 24 {
            0..=6 => self.make(kind % 24, first, second, third),
            7..=11 => self.submit(first, second, third),
            12..=16 => self.touch(kind % 24, first, second, third),
            17 => match third % 8 {
                0 => self.go(first, third / 8),
                _ => {
                    let owner = someone(first);
                    self.leave(Want::DropOwner { owner }, |who| who == owner);
                }
            },
            18 => self.order(Want::Figures),
            19 => {
                self.rig.turn(Duration::from_micros(u64::from(first)));
            }
            20 => {
                let heard = self.rig.run();
                self.hear(heard);
            }
            21 if third < 64 => self.rig.lock().fake.lose_at_submit(u64::from(first % 4 + 1)),
            21 | 22 => self.rig.advance(Duration::from_micros(u64::from(first) * 100)),
            _ => self.rig.try_kernels(),
        }
        self.listen();
    }

    fn make(&mut self, kind: u8, first: u8, second: u8, third: u8) {
        let who = someone(first);
        match kind {
            0 | 1 => {
                let bytes = u64::from(second % 9) * 4 + u64::from(second == 255);
                self.ask(who, Some(BUFFERS), Act::Create { bytes }, &[]);
            }
            2 => {
                let whole = [third % 2; 8];
                let (hash, offset) = (*blake3::hash(&whole).as_bytes(), second % 3 * 4);
                let bytes = if second > 250 { u64::MAX } else { 8 };
                let act = Act::Constant { hash, bytes, offset: offset.into() };
                let tail = &whole[..4 + usize::from(third > 250)];
                self.ask(who, Some(BUFFERS), act, tail);
                self.ask(who, Some(BUFFERS), Act::FindConstant { hash }, &[]);
            }
            3 | 4 => {
                let source = [ADD, ENDLESS, "fn main() {}"][usize::from(second % 3)];
                let act = Act::Kernel { entry: "main".to_owned() };
                self.ask(who, Some(KERNELS), act, source.as_bytes());
            }
            _ => {
                let (who, kernel) = self.pick(KERNELS, first);
                let part = Part { slot: 0, offset: 0, bytes: 4 };
                let fill = Op::Fill { at: part, word: third.into() };
                let grid = [second.into(), 1, 1];
                let run = Op::Dispatch { kernel, grid, slots: vec![0] };
                let steps = match third % 4 {
                    0 => vec![fill],
                    1 => vec![fill, run],
                    2 => Vec::new(),
                    _ => vec![run],
                };
                self.ask(who, Some(GRAPHS), Act::Record { steps }, &[]);
            }
        }
    }

    fn submit(&mut self, first: u8, second: u8, third: u8) {
        let (who, graph) = self.pick(GRAPHS, first);
        let theirs = self.pools[BUFFERS].iter().filter(|(owner, _)| *owner == who);
        let theirs: Vec<u64> = theirs.map(|(_, buffer)| *buffer).collect();
        let count = theirs.len().max(1);
        let buffer = theirs.get(usize::from(second) % count).copied().unwrap_or_default();
        let time_max = Duration::from_micros(u64::from(third) * 50);
        let bindings = vec![Binding::whole(buffer); usize::from(third < 250)];
        let act = Act::Submit { graph, bindings, time_max, waits: !second.is_multiple_of(4) };
        self.ask(who, Some(SUBMISSIONS), act, &[]);
    }

    fn touch(&mut self, kind: u8, first: u8, second: u8, third: u8) {
        let (who, buffer) = self.pick(BUFFERS, first);
        let offset = u64::from(second % 5) * 4;
        let (act, who) = match (kind, third % 4) {
            (12, _) => (Act::Write { buffer, offset }, who),
            (13, _) => (Act::Read { buffer, offset, bytes: third.into() }, who),
            (14, 0) => (Act::Attach { buffer, holder: u64::from(second % 3) }, who),
            (14, 1) => (Act::Size { buffer }, who),
            (14, _) => {
                let (who, kernel) = self.pick(KERNELS, first);
                (Act::Slots { kernel }, who)
            }
            (15, _) => {
                let (who, handle) = self.pick(usize::from(third) % SORTS, first);
                (Act::Free { handle }, who)
            }
            _ => {
                let (who, submission) = self.pick(SUBMISSIONS, first);
                (Act::Cancel { submission }, who)
            }
        };
        self.ask(who, None, act, &[1, 2, 3, 4]);
    }

    /// A stage or a tenant goes, and comes again if it can.
    fn go(&mut self, first: u8, third: u8) {
        let stage = someone(first % 8).stage;
        let tenant = stage.tenant.0;
        if third.is_multiple_of(2) {
            self.leave(Want::CloseStage { stage }, |who| who.stage == stage);
        } else {
            self.leave(Want::CloseTenant { tenant }, |who| who.tenant().0 == tenant);
            self.order(Want::Tenant { tenant, terms: terms() });
        }
        self.order(Want::Stage { stage, weight: 1 + u32::from(first) });
    }

    /// All that was asked for was answered as often as it had to be.
    fn expect_answered(&self) {
        for (number, asked) in &self.asked {
            let heard = self.rig.heard.get(number).copied().unwrap_or_default();
            if let Some(before) = asked.gone {
                assert_eq!(heard, before, "{number} is of somebody who is gone");
                continue;
            }
            let allowed: &[[usize; 2]] = match asked.sort {
                // Taken and ended, never taken, or refused.
                Some(SUBMISSIONS) => &[[1, 1], [1, 0], [0, 1]],
                _ => &[[0, 1]],
            };
            assert!(allowed.contains(&heard), "{number} was answered {heard:?} times");
        }
    }

    fn finish(mut self) {
        // Nothing is lost any more.
        self.rig.lock().fake.lose_at_submit(u64::MAX);
        let heard = self.rig.run();
        self.hear(heard);
        self.expect_answered();
        for number in 0..12 {
            let owner = if number < 8 { someone(number) } else { holder_of(number) };
            self.leave(Want::DropOwner { owner }, |who| who == owner);
        }
        self.rig.run();
        let Answer::Figures(figures) = self.rig.says(Want::Figures) else { panic!() };
        for tenant in figures.tenants {
            let held_by: u64 = tenant.stages.iter().map(|stage| stage.held_bytes).sum();
            let left = (held_by, tenant.handles, tenant.used.queued);
            assert_eq!(left, (0, 0, 0), "{tenant:?}");
            // What is left are constants that are kept.
            assert_eq!(tenant.held_bytes > 0, tenant.kept_bytes > 0, "{tenant:?}");
        }
        for tenant in 1..=2 {
            self.leave(Want::CloseTenant { tenant }, |_| false);
        }
        self.rig.run();
        self.expect_answered();
        let server = &self.rig.server;
        assert!(server.tenants.is_empty() && server.submissions.is_empty());
        assert!(server.copies.is_empty());
        assert!(
            server.parked.is_empty() && server.constants.is_empty() && server.trials.is_empty()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_packets_are_answered_as_often_as_they_have_to_be(
        steps in prop::collection::vec(any::<[u8; 4]>(), 1..160),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.finish();
    }
}
