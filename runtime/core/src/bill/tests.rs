//! Sums hold at every level, whatever is kept, forgotten, read again and put together.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::books::{LINES_MAX, PIPELINES_MAX, STAGES_MAX};
use super::*;
use crate::codec::{Record, RecordWriter, UsageLine, UsageRecord, decode};
use crate::ids::Name;
use crate::recovery::{Fold, Nothing, Sink};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Some use: of a tenant's own, a pipeline's or a stage's, at some hour.
type Use = (u8, u8, u8, u32, [u64; Item::ALL.len()]);

fn any_use() -> impl Strategy<Value = Use> {
    let amounts = prop::array::uniform14(prop_oneof![3 => Just(0_u64), 1 => 0_u64..1 << 40]);
    // About two years, so that everything from hours to what is forgotten comes up.
    (0_u8..2, 0_u8..4, 0_u8..3, 480_000_u32..500_000, amounts)
}

fn line((tenant, pipeline, stage, _, amounts): &Use) -> UsageLine {
    let mut used = Used::default();
    Item::ALL.into_iter().zip(amounts).for_each(|(item, amount)| used.more(item, *amount));
    let some = |kind: &str, number: u8| (number > 0).then(|| name(&format!("{kind}{number}")));
    let pipeline = some("p", *pipeline);
    let stage = some("s", *stage).filter(|_| pipeline.is_some());
    UsageLine { tenant: name(&format!("t{tenant}")), pipeline, stage, used }
}

/// The books of these, one behind the other in a log.
fn books(uses: &[Use]) -> Books {
    let mut books = Books::new();
    put(&mut books, uses.iter().enumerate());
    books
}

fn put<'a>(books: &mut Books, uses: impl Iterator<Item = (usize, &'a Use)>) {
    for (at, one) in uses {
        let when = (u64::from(one.3) * HOUR_MICROS + 7, at as u64);
        let line = line(one);
        books.used(line.whose(), when, &line.used);
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Used>) -> Used {
    let mut sum = Used::default();
    all.for_each(|used| sum.add(used));
    sum
}

const ALWAYS: std::ops::Range<u32> = 0..u32::MAX;

fn groups() -> Vec<Group> {
    let times = [Split::None, Split::Month, Split::Day, Split::Hour];
    let group = |time| {
        [(false, false), (true, false), (true, true)].map(|(pipelines, stages)| Group {
            pipelines,
            stages,
            time,
        })
    };
    times.into_iter().flat_map(group).collect()
}

fn prices() -> Prices {
    let price = |at: usize| Price::of_nano(at as u64 * 1_234_567_891).expect("a price");
    let all = Item::ALL.into_iter().enumerate();
    all.fold(Prices::new("EUR".to_owned()), |prices, (at, item)| prices.with(item, price(at)))
}

proptest! {
    #[test]
    fn every_level_is_the_sum_of_what_is_below(
        uses in prop::collection::vec(any_use(), 1..60),
        cut in 480_000_u32..500_000,
    ) {
        let (books, prices) = (books(&uses), prices());
        for tenant in ["t0", "t1"].map(name) {
            let lines = || books.lines(&tenant);
            let whole = sum(lines().map(|line| line.used));
            let cost: Money = lines().map(|line| prices.cost(line.used)).sum();
            for group in groups() {
                let report = Report::of(lines(), &ALWAYS, group, &prices);
                prop_assert_eq!((report.used, report.cost), (whole, cost));
                prop_assert_eq!(sum(report.rows.iter().map(|row| &row.used)), whole);
                prop_assert_eq!(report.rows.iter().map(|row| row.cost).sum::<Money>(), cost);
                // Periods that follow one another have each line once.
                let parts = [0..cut, cut..u32::MAX];
                let parts = parts.map(|part| Report::of(lines(), &part, group, &prices));
                prop_assert_eq!(sum(parts.iter().map(|part| &part.used)), whole);
                prop_assert_eq!(parts.iter().map(|part| part.cost).sum::<Money>(), cost);
            }
        }
    }

    /// What is not too long ago is all there, however it is kept by now; and only that is lost.
    #[test]
    fn nothing_is_lost_but_what_is_too_long_ago(
        uses in prop::collection::vec(any_use(), 1..60),
    ) {
        let books = books(&uses);
        for tenant in ["t0", "t1"].map(name) {
            let its: Vec<(u32, UsageLine)> = uses.iter().map(|one| (one.3, line(one)))
                .filter(|(_, line)| line.tenant == tenant).collect();
            let newest = its.iter().map(|(hour, _)| *hour).max().unwrap_or(0);
            let recent = its.iter().filter(|(hour, _)| hour + 24 * 30 * 23 > newest);
            let found = sum(books.lines(&tenant).map(|line| line.used));
            let least = sum(recent.map(|(_, line)| &line.used));
            let most = sum(its.iter().map(|(_, line)| &line.used));
            for item in Item::ALL {
                let found = found.get(item);
                prop_assert!(least.get(item) <= found && found <= most.get(item));
            }
            let mut lines: BTreeMap<_, u32> = BTreeMap::new();
            for line in books.lines(&tenant) {
                *lines.entry((line.pipeline, line.stage)).or_default() += 1;
            }
            prop_assert!(lines.values().all(|spans| *spans <= 72 + 93 + 25));
        }
    }

    /// A node may end at any place: in the log, in a checkpoint that stands, in one that does not,
    /// of which any accounts may be in the store. It ends up with what the log says, once.
    #[test]
    fn whatever_a_checkpoint_left_the_log_is_counted_once(
        uses in prop::collection::vec(any_use(), 1..40),
        (stood, torn) in (0_usize..40, 0_usize..40),
        written in prop::array::uniform2(any::<bool>()),
    ) {
        let mut writer = RecordWriter::new();
        let log: Vec<Vec<u8>> = uses.iter().map(|one| {
            let time = u64::from(one.3) * HOUR_MICROS;
            writer.usage(&UsageRecord { time, lines: vec![line(one)] });
            writer.to_bytes().to_vec()
        }).collect();
        let fold = |from: usize, to: usize, books: &mut Books| {
            let mut fold = Fold::new();
            for (at, body) in log.iter().enumerate().take(to).skip(from) {
                let record = decode(11, body).expect("a record");
                fold.apply(at as u64, &record, &mut Billing(books)).expect("it follows");
            }
        };
        let stood = stood.min(log.len());
        let torn = torn.clamp(stood, log.len());
        let mut live = Books::new();
        fold(0, stood, &mut live);
        let mut store: BTreeMap<Name, Vec<u8>> = BTreeMap::new();
        for tenant in live.take_changed() {
            store.insert(tenant.clone(), live.keep(&tenant, stood as u64));
        }
        fold(stood, torn, &mut live);
        for (tenant, written) in live.take_changed().zip(written) {
            if written {
                store.insert(tenant.clone(), live.keep(&tenant, torn as u64));
            }
        }
        let mut again = Books::new();
        for (tenant, kept) in store {
            again.take_in(tenant, &kept).expect("it was kept");
        }
        fold(stood, log.len(), &mut again);
        let mut whole = Books::new();
        fold(0, log.len(), &mut whole);
        for tenant in ["t0", "t1"].map(name) {
            prop_assert!(again.lines(&tenant).eq(whole.lines(&tenant)));
        }
    }

    #[test]
    fn what_is_kept_is_read_back_and_damage_is_told(
        uses in prop::collection::vec(any_use(), 1..20),
        (at, flip) in (any::<prop::sample::Index>(), 1_u8..),
    ) {
        let books = books(&uses);
        let tenant = line(&uses[0]).tenant;
        let mut kept = books.keep(&tenant, 99);
        let mut again = Books::new();
        again.take_in(tenant.clone(), &kept).expect("it was kept");
        prop_assert!(again.lines(&tenant).eq(books.lines(&tenant)));
        prop_assert_eq!(again.keep(&tenant, 99), kept.clone());
        let at = at.index(kept.len());
        kept[at] ^= flip;
        // It is something else, or an error; it is no panic.
        let _whatever = Books::new().take_in(tenant.clone(), &kept);
        let _whatever = Books::new().take_in(tenant, &kept[..at]);
    }

    #[test]
    fn money_is_rounded_to_the_nearest(
        amount in any::<u64>(),
        nano in 0..=1_000_000_000_u64 << 20,
    ) {
        let price = Price::of_nano(nano).expect("a price");
        for item in Item::ALL {
            let cost = Prices::new(String::new()).with(item, price).cost(&Used::of(item, amount));
            let exact = u128::from(amount) * u128::from(nano);
            let off = (cost.nano() * u128::from(item.priced_by())).abs_diff(exact);
            prop_assert!(off * 2 <= u128::from(item.priced_by()));
        }
        prop_assert_eq!(price.to_string().parse(), Ok(price));
    }
}

/// Takes what is used into books.
struct Billing<'a>(&'a mut Books);

impl Sink for Billing<'_> {
    fn used(&mut self, whose: Whose<'_>, when: (u64, u64), used: &Used) {
        self.0.used(whose, when, used);
    }

    fn changed(
        &mut self,
        a: &crate::codec::CommitHead,
        b: crate::ids::StageId,
        c: crate::state::Change<'_>,
    ) {
        Nothing.changed(a, b, c);
    }

    fn output(&mut self, a: &crate::codec::CommitHead, b: &crate::codec::OutputRun, c: u64) {
        Nothing.output(a, b, c);
    }

    fn dead_letters(&mut self, a: &crate::codec::CommitHead, b: &crate::codec::DeadRun, c: u64) {
        Nothing.dead_letters(a, b, c);
    }

    fn ingested(&mut self, a: &crate::codec::IngestRecord<'_>, b: u64) {
        Nothing.ingested(a, b);
    }

    fn discarded(&mut self, a: crate::ids::PipelineId, b: crate::ids::StageId) {
        Nothing.discarded(a, b);
    }

    fn deleted(&mut self, a: crate::ids::PipelineId) {
        Nothing.deleted(a);
    }
}

#[test]
fn a_price_is_a_decimal_and_nothing_else() {
    let price = |text: &str| text.parse::<Price>();
    assert_eq!(price("0.05"), Ok(Price::of_nano(50_000_000).expect("a price")));
    assert_eq!(price("12").map(|p| p.to_string()), Ok("12".to_owned()));
    assert_eq!(price("1000000000").map(|p| p.to_string()), Ok("1000000000".to_owned()));
    for wrong in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000000001", "1000000001", "1,5", " 1"]
    {
        assert_eq!(price(wrong), Err(()), "{wrong}");
    }
    assert_eq!(Money::of_nano(12_000_000_345).to_string(), "12.000000345");
}

#[test]
fn a_bill_by_hand() {
    let mut used = Used::of(Item::Fuel, 1_500_000_000).and(Item::Gpu, 3_600_000_000_000);
    used.more(Item::BytesIn, 1 << 29);
    let price = |text: &str| text.parse::<Price>().expect("a price");
    let prices = Prices::new("EUR".to_owned())
        .with(Item::Fuel, price("0.10"))
        .with(Item::Gpu, price("2"))
        .with(Item::BytesIn, price("0.000000001"));
    // Half of the smallest there is counts as one.
    assert_eq!(prices.cost(&used).to_string(), "2.150000001");
}

#[test]
fn what_there_is_too_many_of_goes_into_the_level_above() {
    // There are 1,536 in a day: room is made for those of the second one.
    let (tenant, mut books, mut at) = (name("t"), Books::new(), 600);
    let mut used = |pipeline: &str, stage: &str| {
        let (pipeline, stage) = (name(pipeline), name(stage));
        let whose = Whose { tenant: &tenant, pipeline: Some(&pipeline), stage: Some(&stage) };
        at += 1;
        books.used(whose, (at * HOUR_MICROS / 64, at), &Used::of(Item::Fuel, 1));
    };
    (0..PIPELINES_MAX + 10).for_each(|n| used(&format!("p{n}"), "s"));
    (0..STAGES_MAX + 10).for_each(|n| used("p500", &format!("s{n}")));
    let all = Report::of(books.lines(&name("t")), &ALWAYS, Group::default(), &prices());
    assert_eq!(all.used.get(Item::Fuel), (PIPELINES_MAX + STAGES_MAX + 20) as u64);
    let by = Group { pipelines: true, ..Group::default() };
    let rows = Report::of(books.lines(&name("t")), &ALWAYS, by, &prices()).rows;
    assert_eq!(rows.len(), PIPELINES_MAX + 1);
    assert_eq!(rows[0].used.get(Item::Fuel), 10);
}

#[test]
fn of_too_many_pipelines_in_use_none_makes_room_for_another() {
    let (tenant, mut books, mut at) = (name("t"), Books::new(), 0);
    let pipelines: Vec<Name> = (0..PIPELINES_MAX + 76).map(|n| name(&format!("p{n}"))).collect();
    let mut round = |books: &mut Books, day: u64| {
        for pipeline in &pipelines {
            let whose = Whose { tenant: &tenant, pipeline: Some(pipeline), stage: None };
            at += 1;
            books.used(whose, (day * 24 * HOUR_MICROS, at), &Used::of(Item::Fuel, 1));
        }
        at
    };
    round(&mut books, 1000);
    let by = Group { pipelines: true, ..Group::default() };
    let rows = |books: &Books| Report::of(books.lines(&name("t")), &ALWAYS, by, &prices()).rows;
    let before = rows(&books);
    assert_eq!(before.len(), PIPELINES_MAX + 1);
    assert_eq!(before[0].used.get(Item::Fuel), 76, "the last ones are the tenant's own");
    let end = round(&mut books, 1000);
    let after = rows(&books);
    assert!(after.iter().all(|row| row.used.get(Item::Fuel) % 2 == 0), "nothing took turns");
    // Whoever reads them back goes on alike.
    let mut again = Books::new();
    again.take_in(name("t"), &books.keep(&name("t"), end + 1)).expect("it was kept");
    let more = Used::of(Item::Fuel, 1);
    for books in [&mut books, &mut again] {
        let (tenant, pipeline) = (name("t"), name("new"));
        let whose = Whose { tenant: &tenant, pipeline: Some(&pipeline), stage: None };
        books.used(whose, (1000 * 24 * HOUR_MICROS, end + 2), &more);
        books.used(whose, (1001 * 24 * HOUR_MICROS, end + 3), &more);
    }
    assert_eq!(rows(&books), rows(&again));
    let new = rows(&books).into_iter().find(|row| row.pipeline == Some(name("new")));
    assert_eq!(new.map(|row| row.used.get(Item::Fuel)), Some(1), "the next day there is room");
}

#[test]
fn an_account_has_so_many_lines_and_no_more() {
    let (tenant, mut books, mut at) = (name("t"), Books::new(), 0);
    let pipelines: Vec<Name> = (0..PIPELINES_MAX).map(|n| name(&format!("p{n}"))).collect();
    for stage in (0..LINES_MAX / PIPELINES_MAX + 2).map(|n| name(&format!("s{n}"))) {
        for pipeline in &pipelines {
            let whose = Whose { tenant: &tenant, pipeline: Some(pipeline), stage: Some(&stage) };
            at += 1;
            books.used(whose, (HOUR_MICROS, at), &Used::of(Item::Fuel, 1));
        }
    }
    assert!(at as usize > LINES_MAX);
    assert!(books.lines(&tenant).count() <= LINES_MAX);
    let by = Group { pipelines: true, ..Group::default() };
    let all = Report::of(books.lines(&tenant), &ALWAYS, by, &prices());
    assert_eq!(all.used.get(Item::Fuel), at, "no sum is another for it");
    assert_eq!(all.rows.len(), PIPELINES_MAX, "stages go before pipelines");
    let mut again = Books::new();
    again.take_in(tenant.clone(), &books.keep(&tenant, at + 1)).expect("it was kept");
    assert_eq!(again.lines(&tenant).count(), books.lines(&tenant).count());
}

#[test]
fn what_comes_behind_a_clock_that_was_ahead_is_in_the_bill() {
    let (tenant, mut books) = (name("t"), Books::new());
    let whose = Whose { tenant: &tenant, pipeline: None, stage: None };
    books.used(whose, (900_000 * HOUR_MICROS, 1), &Used::of(Item::Fuel, 1));
    books.used(whose, (500_000 * HOUR_MICROS, 2), &Used::of(Item::Fuel, 2));
    assert_eq!(sum(books.lines(&tenant).map(|line| line.used)).get(Item::Fuel), 3);
}

#[test]
fn the_bytes_of_a_record_are_these() {
    let mut writer = RecordWriter::new();
    let used = Used::of(Item::Fuel, 300).and(Item::Memory, 5);
    let line = |pipeline: Option<&str>, stage: Option<&str>| UsageLine {
        tenant: name("t"),
        pipeline: pipeline.map(name),
        stage: stage.map(name),
        used,
    };
    let lines = vec![line(Some("p"), Some("s")), line(None, None)];
    let record = UsageRecord { time: 1, lines };
    writer.usage(&record);
    let body = writer.to_bytes();
    let used = [0x81, 2, 0xAC, 2, 5];
    let expected = [&[6, 6, 1, 2, 1, b't', 1, b'p', 1, b's'][..], &used, &[1, b't', 0, 0], &used];
    assert_eq!(body, expected.concat());
    assert_eq!(decode(11, &body), Ok(Record::Usage(record)));
    let homeless = [&[6, 6, 1, 1, 1, b't', 0, 1, b's'][..], &used].concat();
    assert!(decode(11, &homeless).is_err(), "a stage is of a pipeline");
    assert!(decode(11, &[6, 6, 1, 1, 1, b't', 0, 0, 0x80, 0x80, 1]).is_err(), "an unknown item");
}
