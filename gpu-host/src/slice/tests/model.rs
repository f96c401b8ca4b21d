//! The scheduler against a naive model, over whatever hosts do in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const TENANTS: u64 = 3;
const STAGES: u32 = 2;

/// What a host does.
#[derive(Debug, Clone)]
enum Step {
    Open(u64, u32),
    Change(u64, u32),
    Close(u64),
    OpenStage(u64, u32),
    CloseStage(u64, u32),
    Submit(u64, u32, [u32; 3], bool),
    /// A copy is wanted, or so many are not any more.
    WantCopy(u64, u32),
    DropCopies(u64, u32, usize),
    /// The n-th dispatch that is not over.
    Cancel(usize),
    Next,
    /// The n-th chunk on the device.
    Complete(usize, u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (tenant, stage) = (0..TENANTS, 0..STAGES);
    let weight = 1..WHOLE / 3;
    let grid = prop::array::uniform3(1_u32..6);
    let ended = prop::bool::weighted(0.9);
    prop_oneof![
        2 => (tenant.clone(), weight.clone()).prop_map(|(t, w)| Step::Open(t, w)),
        1 => (tenant.clone(), weight).prop_map(|(t, w)| Step::Change(t, w)),
        1 => tenant.clone().prop_map(Step::Close),
        3 => (tenant.clone(), stage.clone()).prop_map(|(t, s)| Step::OpenStage(t, s)),
        1 => (tenant.clone(), stage.clone()).prop_map(|(t, s)| Step::CloseStage(t, s)),
        5 => (tenant.clone(), stage.clone()).prop_map(|(t, s)| Step::WantCopy(t, s)),
        1 => (tenant.clone(), stage.clone(), 0_usize..3)
            .prop_map(|(t, s, n)| Step::DropCopies(t, s, n)),
        9 => (tenant, stage, grid, prop::bool::weighted(0.1))
            .prop_map(|(t, s, g, w)| Step::Submit(t, s, g, w)),
        2 => any::<usize>().prop_map(Step::Cancel),
        18 => Just(Step::Next),
        12 => (any::<usize>(), 0_u64..5_000_000, ended)
            .prop_map(|(n, t, w)| Step::Complete(n, t, w)),
    ]
}

/// A dispatch as the model has it.
#[derive(Debug)]
struct Asked {
    grid: [u32; 3],
    /// Groups that were given out.
    groups: BTreeSet<[u32; 3]>,
    chunks: usize,
    nanos: u128,
    /// Nothing more of it may be given out.
    is_ending: bool,
    is_whole: bool,
}

impl Asked {
    fn new(grid: [u32; 3]) -> Self {
        let groups = BTreeSet::new();
        Self { grid, groups, chunks: 0, nanos: 0, is_ending: false, is_whole: true }
    }

    fn is_sent(&self) -> bool {
        self.groups.len() as u32 == self.grid.iter().product::<u32>()
    }

    fn is_waiting(&self) -> bool {
        !self.is_ending && !self.is_sent()
    }
}

struct Model {
    slicer: Slicer,
    depth: usize,
    /// What is not over, in order of submission.
    asked: BTreeMap<Dispatch, Asked>,
    out: BTreeMap<ChunkId, Dispatch>,
    stages: BTreeMap<Stage, u128>,
    tenants: BTreeMap<u64, u128>,
    busy: u128,
    gone: u128,
    /// Copies that wait, and nanoseconds of those that were made: of stages, of tenants with those
    /// of stages that are gone, and of all.
    wanted: BTreeMap<Stage, usize>,
    copied: [BTreeMap<Stage, u128>; 2],
    copied_in_all: u128,
    virtual_time: u128,
}

impl Model {
    fn new(depth: usize) -> Self {
        let settings = Settings { depth, probe_groups: 3, ..Settings::default() };
        Self {
            slicer: Slicer::new(settings),
            depth,
            asked: BTreeMap::new(),
            out: BTreeMap::new(),
            stages: BTreeMap::new(),
            tenants: BTreeMap::new(),
            busy: 0,
            gone: 0,
            wanted: BTreeMap::new(),
            copied: [const { BTreeMap::new() }; 2],
            copied_in_all: 0,
            virtual_time: 0,
        }
    }

    fn run(&mut self, step: Step) {
        let stage = |tenant, number| Stage { tenant: Tenant(tenant), number };
        let terms = |weight| Terms { weight, cap: None };
        match step {
            Step::Open(tenant, weight) => {
                if self.slicer.open(Duration::ZERO, Tenant(tenant), terms(weight)).is_ok() {
                    assert_eq!(self.tenants.insert(tenant, 0), None);
                }
            }
            Step::Change(tenant, weight) => {
                self.slicer.change(Duration::ZERO, Tenant(tenant), terms(weight)).ok();
            }
            Step::Close(tenant) => self.close(tenant),
            Step::OpenStage(tenant, number) => {
                let terms = StageTerms { weight: number + 1, dispatches_max: 4 };
                let stage = stage(tenant, number);
                if self.slicer.open_stage(stage, terms).is_ok() {
                    assert_eq!(self.stages.insert(stage, 0), None);
                }
            }
            Step::CloseStage(tenant, number) => self.close_stage(stage(tenant, number)),
            Step::Submit(tenant, number, grid, is_whole) => {
                let kernel = [number as u8; 32];
                let work = Work { kernel, grid, is_whole, chunk_groups_max: u64::MAX };
                let stage = stage(tenant, number);
                if let Ok(dispatch) = self.slicer.submit(stage, work) {
                    self.asked.insert(dispatch, Asked::new(grid));
                    let of_stage = self.asked.keys().filter(|asked| asked.stage() == stage);
                    assert!(of_stage.count() <= 4, "the queue is bounded");
                }
            }
            Step::WantCopy(tenant, number) => {
                let stage = stage(tenant, number);
                if self.slicer.want_copy(stage).is_ok() {
                    *self.wanted.entry(stage).or_default() += 1;
                }
            }
            Step::DropCopies(tenant, number, count) => {
                let stage = stage(tenant, number);
                self.slicer.drop_copies(stage, count);
                if let Some(wanted) = self.wanted.get_mut(&stage) {
                    *wanted = wanted.saturating_sub(count);
                }
            }
            Step::Cancel(nth) => self.cancel(nth),
            Step::Next => self.next(),
            Step::Complete(nth, nanos, is_whole) => self.complete(nth, nanos, is_whole),
        }
        self.check();
    }

    /// Nothing more of these is given out; those with nothing on the device are over.
    fn end(&mut self, is_meant: impl Fn(&Dispatch) -> bool) {
        for (_, asked) in self.asked.iter_mut().filter(|(dispatch, _)| is_meant(dispatch)) {
            asked.is_whole &= asked.is_sent();
            asked.is_ending = true;
        }
        self.asked.retain(|dispatch, asked| !is_meant(dispatch) || asked.chunks > 0);
    }

    fn out_of(&self, is_meant: impl Fn(&Dispatch) -> bool) -> Vec<ChunkId> {
        let out = self.out.iter().filter(|(_, dispatch)| is_meant(dispatch));
        out.map(|(chunk, _)| *chunk).collect()
    }

    fn close(&mut self, tenant: u64) {
        let is_meant = |dispatch: &Dispatch| dispatch.stage().tenant.0 == tenant;
        let closing = self.slicer.close(Tenant(tenant));
        assert_eq!(closing.is_ok(), self.tenants.contains_key(&tenant));
        let Ok(closing) = closing else { return };
        self.end(is_meant);
        self.wanted.retain(|stage, _| stage.tenant.0 != tenant);
        let out = self.out_of(is_meant);
        match closing {
            Closing::Waits(chunks) => assert_eq!((chunks.is_empty(), chunks), (false, out)),
            Closing::Gone(bill) => {
                assert_eq!(out, []);
                assert_eq!(Some(bill.nanos), self.tenants.remove(&tenant));
                assert_eq!(bill.copy_nanos, self.copied_of(tenant));
                self.copied.iter_mut().for_each(|it| it.retain(|of, _| of.tenant.0 != tenant));
                self.stages.retain(|stage, _| stage.tenant.0 != tenant);
                self.gone += bill.nanos;
            }
        }
    }

    fn close_stage(&mut self, stage: Stage) {
        let is_meant = |dispatch: &Dispatch| dispatch.stage() == stage;
        let closing = self.slicer.close_stage(stage);
        assert_eq!(closing.is_ok(), self.stages.contains_key(&stage));
        let Ok(closing) = closing else { return };
        self.end(is_meant);
        self.wanted.remove(&stage);
        let out = self.out_of(is_meant);
        match closing {
            Closing::Waits(chunks) => assert_eq!((chunks.is_empty(), chunks), (false, out)),
            Closing::Gone(bill) => {
                assert_eq!(out, []);
                assert_eq!(Some(bill.nanos), self.stages.remove(&stage));
                let copied = self.copied[0].remove(&stage).unwrap_or_default();
                assert_eq!(bill.copy_nanos, copied);
                *self.copied[1].entry(stage).or_default() += copied;
            }
        }
    }

    fn cancel(&mut self, nth: usize) {
        let dispatch = self.asked.keys().nth(nth % self.asked.len().max(1)).copied();
        let Some(dispatch) = dispatch else { return };
        let out = self.out_of(|of| *of == dispatch);
        assert_eq!(self.slicer.cancel(dispatch), Ok(out));
        self.end(|of| *of == dispatch);
    }

    fn next(&mut self) {
        let has_work = self.asked.values().any(Asked::is_waiting);
        let chunk = match self.slicer.next(Duration::ZERO) {
            Next::Chunk(chunk) => chunk,
            Next::Deep => return assert_eq!(self.out.len(), self.depth),
            Next::Idle => {
                assert!(self.wanted.values().all(|wanted| *wanted == 0), "a copy waits");
                return assert!(!has_work, "the device waits for work that is there");
            }
            Next::Copy(stage) => return self.copy(stage),
            Next::At(_) => panic!("nobody is capped"),
        };
        assert!(self.out.len() < self.depth);
        let stage = chunk.dispatch.stage();
        assert_eq!(self.wanted.get(&stage).copied().unwrap_or_default(), 0, "copies come first");
        let waiting =
            self.asked.iter().filter(|(of, asked)| of.stage() == stage && asked.is_waiting());
        assert_eq!(
            waiting.map(|(of, _)| *of).min(),
            Some(chunk.dispatch),
            "first come, first served"
        );
        let asked = self.asked.get_mut(&chunk.dispatch).unwrap();
        asked.chunks += 1;
        let axis = |at: usize| chunk.from[at]..chunk.from[at] + chunk.groups[at];
        for z in axis(2) {
            for y in axis(1) {
                for x in axis(0) {
                    assert!([x, y, z].iter().zip(asked.grid).all(|(at, end)| *at < end));
                    assert!(asked.groups.insert([x, y, z]), "each group once");
                }
            }
        }
        assert_eq!(self.out.insert(chunk.id, chunk.dispatch), None);
    }

    fn copy(&mut self, stage: Stage) {
        let wanted = self.wanted.get_mut(&stage).expect("it is wanted");
        *wanted = wanted.checked_sub(1).expect("it is wanted");
        let nanos = 1_000_000 * u64::from(stage.number + 1);
        self.slicer.begin_copy(stage);
        self.slicer.charge_copy(stage, Duration::from_nanos(nanos));
        *self.copied[0].entry(stage).or_default() += u128::from(nanos);
        self.copied_in_all += u128::from(nanos);
    }

    fn copied_of(&self, tenant: u64) -> u128 {
        let copied = self.copied.iter().flatten().filter(|(stage, _)| stage.tenant.0 == tenant);
        copied.map(|(_, nanos)| nanos).sum()
    }

    fn complete(&mut self, nth: usize, nanos: u64, is_whole: bool) {
        let chunk = self.out.keys().nth(nth % self.out.len().max(1)).copied();
        let Some(chunk) = chunk else { return };
        let dispatch = self.out.remove(&chunk).unwrap();
        let took = Duration::from_nanos(nanos);
        let completed = self.slicer.complete(chunk, took, is_whole).unwrap();
        assert_eq!(self.slicer.complete(chunk, took, is_whole), None);
        *self.stages.get_mut(&dispatch.stage()).unwrap() += u128::from(nanos);
        *self.tenants.get_mut(&dispatch.stage().tenant.0).unwrap() += u128::from(nanos);
        self.busy += u128::from(nanos);
        let asked = self.asked.get_mut(&dispatch).unwrap();
        asked.nanos += u128::from(nanos);
        asked.chunks -= 1;
        asked.is_ending |= !is_whole;
        asked.is_whole &= is_whole;
        let is_over = asked.chunks == 0 && !asked.is_waiting();
        let over = Over { is_whole: asked.is_whole, nanos: asked.nanos };
        assert_eq!(completed, Completed { dispatch, over: is_over.then_some(over) });
        if is_over {
            self.asked.remove(&dispatch);
        }
    }

    fn check(&mut self) {
        let virtual_time = self.slicer.fair.now();
        assert!(virtual_time >= self.virtual_time, "virtual time goes back");
        self.virtual_time = virtual_time;
        for (tenant, nanos) in &self.tenants {
            assert_eq!(self.slicer.bill(Tenant(*tenant)).unwrap().nanos, *nanos);
        }
        for (stage, nanos) in &self.stages {
            assert_eq!(self.slicer.stage_bill(*stage).unwrap().nanos, *nanos);
        }
        for tenant in self.tenants.keys() {
            let bill = self.slicer.bill(Tenant(*tenant)).unwrap();
            assert_eq!(bill.copy_nanos, self.copied_of(*tenant));
        }
        for stage in self.stages.keys() {
            let copied = self.copied[0].get(stage).copied().unwrap_or_default();
            assert_eq!(self.slicer.stage_bill(*stage).unwrap().copy_nanos, copied);
        }
        assert_eq!(self.slicer.copy_nanos(), self.copied_in_all);
        let bills: u128 = self.tenants.values().sum();
        assert_eq!(bills + self.gone, self.busy);
        assert_eq!((self.slicer.gone().nanos, self.slicer.busy_nanos()), (self.gone, self.busy));
    }
}

proptest! {
    #[test]
    fn whatever_a_host_does_nothing_is_lost_and_each_chunk_is_charged_once(
        depth in 1_usize..4,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut model = Model::new(depth);
        for step in steps {
            model.run(step);
        }
        // Whatever is left is done or goes.
        while !model.out.is_empty() {
            model.complete(0, 1, true);
        }
        (0..TENANTS).for_each(|tenant| model.close(tenant));
        prop_assert_eq!(model.gone, model.busy);
        prop_assert!(model.asked.is_empty());
        prop_assert_eq!(model.slicer.next(Duration::ZERO), Next::Idle);
    }
}
