//! The behaviour every log must show; call [`every_promise`] from its tests.
//!
//! Each promise gets a log of its own, empty, from the factory, which writes without being told to.
//! A promise that is not kept panics with what was expected. What only a disk can break (power,
//! damage, room) is tested where the disk is.

use std::ops::ControlFlow;
use std::thread;

use super::{Class, Config, Error, Health, Log, Position, Refusal};

/// Makes an empty log with these settings.
pub type Factory<'a> = &'a dyn Fn(Config) -> Box<dyn Log>;

/// A record, copied.
pub type Owned = (Position, u8, Vec<u8>);

/// Settings under which a few records fill a segment.
#[must_use]
pub fn small() -> Config {
    Config {
        segment_bytes: 16 << 10,
        record_bytes_max: 4 << 10,
        pending_bytes_max: 6 << 10,
        reserve_bytes: 4 << 10,
        ..Config::default()
    }
}

/// Checks all promises of the log contract.
///
/// # Panics
/// If one is not kept.
pub fn every_promise(make: Factory<'_>) {
    what_was_appended_is_read_back(&*make(small()));
    positions_grow_and_divide_what_is_synced(&*make(small()));
    reading_goes_on_where_it_stopped(&*make(small()));
    records_have_a_largest_size(&*make(small()));
    appends_of_many_threads_have_one_order(&*make(small()));
    a_follower_is_told(&*make(small()));
    what_is_needed_outlives_a_trim(&*make(small()));
    a_reader_may_use_the_log(&*make(small()));
    what_comes_while_reading_is_read_once(&*make(Config::default()));
    a_closed_log_is_on_disk_and_can_be_read(&*make(small()));
    the_status_adds_up(&*make(small()));
}

/// Appends, waiting for room as an appender should.
///
/// # Panics
/// If the record is refused for another reason.
pub fn append(log: &dyn Log, kind: u8, body: &[u8]) -> Position {
    loop {
        let before = log.synced();
        match log.append(Class::Commit, kind, &[body]) {
            Ok(position) => return position,
            Err(Refusal::Busy) => log.wait_synced(before).expect("what was appended is synced"),
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }
}

/// Everything synced from a position on.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn read_from(log: &dyn Log, from: Position) -> Vec<Owned> {
    let mut found = Vec::new();
    let end = log.read(from, &mut |record| {
        found.push((record.position, record.kind, record.body.to_vec()));
        ControlFlow::Continue(())
    });
    let end = end.expect("it can be read");
    assert!(found.iter().all(|(position, ..)| *position < end), "the end is before a record");
    found
}

fn body(number: u32) -> Vec<u8> {
    let length = (number * 37) % 300;
    (0..length).map(|at| (number + at) as u8).collect()
}

/// Appends so many different records and waits until they are synced.
fn fill(log: &dyn Log, count: u32) -> Vec<Owned> {
    let append = |number| {
        let (kind, body) = (number as u8, body(number));
        (append(log, kind, &body), kind, body)
    };
    let all: Vec<Owned> = (0..count).map(append).collect();
    if let Some((last, ..)) = all.last() {
        log.wait_synced(*last).expect("it is synced");
    }
    all
}

fn what_was_appended_is_read_back(log: &dyn Log) {
    assert_eq!(read_from(log, Position(0)), []);
    let parts: [&[u8]; 4] = [b"in ", b"", b"three", b" parts"];
    let position = log.append(Class::Ingest, 255, &parts).expect("there is room");
    log.wait_synced(position).expect("it is synced");
    assert_eq!(read_from(log, Position(0)), [(position, 255, b"in three parts".to_vec())]);
    // Over many segments, with empty bodies and every kind among them.
    let mut all = vec![(position, 255, b"in three parts".to_vec())];
    all.extend(fill(log, 600));
    assert!(read_from(log, Position(0)) == all, "what was read is not what was appended");
    for (position, kind, body) in all.iter().step_by(41) {
        let found = read_from(log, *position);
        assert_eq!(found.first(), Some(&(*position, *kind, body.clone())));
    }
}

fn positions_grow_and_divide_what_is_synced(log: &dyn Log) {
    let all = fill(log, 50);
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "a position does not grow");
    assert!(all.iter().all(|(position, ..)| *position < log.synced()));
    assert!(log.status().appended >= log.synced());
}

fn reading_goes_on_where_it_stopped(log: &dyn Log) {
    let all = fill(log, 100);
    let (mut from, mut found) = (Position(0), Vec::new());
    while found.len() < all.len() {
        from = log
            .read(from, &mut |record| {
                found.push((record.position, record.kind, record.body.to_vec()));
                ControlFlow::Break(())
            })
            .expect("it can be read");
    }
    assert!(found == all, "reading one by one gives something else");
    let at_end = log.read(from, &mut |record| panic!("there is no {record:?}"));
    assert!(at_end.expect("nothing is no error") >= from);
    // Ahead of what there is: a reader may know of a record that is not synced.
    let ahead = Position(log.synced().0 + 512);
    assert_eq!(log.read(ahead, &mut |_| ControlFlow::Continue(())).expect("no error"), ahead);
}

fn records_have_a_largest_size(log: &dyn Log) {
    let largest = vec![3; small().record_bytes_max];
    let position = append(log, 1, &largest);
    for class in [Class::Ingest, Class::Commit] {
        let refused = log.append(class, 1, &[&largest, b"x"]);
        assert_eq!(refused, Err(Refusal::TooLarge { bytes_max: largest.len() }));
    }
    log.wait_synced(position).expect("it is synced");
    assert!(read_from(log, Position(0)) == [(position, 1, largest)], "it is not read back");
}

fn appends_of_many_threads_have_one_order(log: &dyn Log) {
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for number in 0..200_u32 {
                    append(log, thread, &number.to_le_bytes());
                }
            });
        }
    });
    let last = append(log, 9, b"");
    log.wait_synced(last).expect("it is synced");
    let all = read_from(log, Position(0));
    assert_eq!(all.len(), 801);
    for thread in 0..4 {
        let numbers = all.iter().filter(|(_, kind, _)| *kind == thread);
        let numbers: Vec<_> = numbers.map(|(.., body)| body.clone()).collect();
        let expected: Vec<_> = (0..200_u32).map(|number| number.to_le_bytes().to_vec()).collect();
        assert!(numbers == expected, "the records of thread {thread} changed their order");
    }
}

fn a_follower_is_told(log: &dyn Log) {
    let mut follower = log.subscribe();
    assert_eq!(follower.borrow_and_update().synced, log.synced());
    let position = append(log, 1, b"news");
    log.wait_synced(position).expect("it is synced");
    assert!(follower.has_changed().expect("the log is open"), "nobody told the follower");
    let progress = *follower.borrow_and_update();
    assert!(position < progress.synced && progress.health == Health::Healthy);
}

fn what_is_needed_outlives_a_trim(log: &dyn Log) {
    let all = fill(log, 600);
    let horizon = all[400].0;
    log.trim(horizon).expect("it can be trimmed");
    assert!(read_from(log, horizon) == all[400..], "a trim took what was needed");
    let oldest = log.status().oldest;
    assert!(oldest > all[0].0 && oldest <= horizon, "the oldest position is {oldest}");
    let refused = log.read(all[0].0, &mut |_| ControlFlow::Continue(()));
    assert!(
        matches!(refused, Err(Error::Trimmed { oldest: told }) if told == oldest),
        "{refused:?}"
    );
    // Twice, and backwards, and beyond the end: nothing that is needed is ever taken.
    log.trim(horizon).expect("it can be trimmed");
    log.trim(Position(0)).expect("it can be trimmed");
    assert!(read_from(log, horizon) == all[400..]);
    log.trim(Position(u64::MAX)).expect("it can be trimmed");
    let position = append(log, 7, b"after");
    log.wait_synced(position).expect("it is synced");
    assert_eq!(read_from(log, position), [(position, 7, b"after".to_vec())]);
}

fn a_reader_may_use_the_log(log: &dyn Log) {
    let all = fill(log, 10);
    let mut seen = 0;
    log.read(Position(0), &mut |record| {
        seen += 1;
        let position = append(log, 200, b"while reading");
        assert!(position > record.position && log.status().synced >= record.position);
        if seen == all.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("it can be read");
    assert_eq!(seen, 10);
}

/// A log that grows under its reader has no end to stop at that stays the end.
fn what_comes_while_reading_is_read_once(log: &dyn Log) {
    let all = fill(log, 20);
    let (mut seen, mut more) = (Vec::new(), 10);
    log.read(Position(0), &mut |record| {
        seen.push(record.position);
        if record.position >= all[all.len() - 1].0 && more > 0 {
            more -= 1;
            let at = append(log, 1, b"more");
            log.wait_synced(at).expect("is synced");
        }
        ControlFlow::Continue(())
    })
    .expect("is read");
    assert!(seen.is_sorted_by(|a, b| a < b), "each is read once, in order: {seen:?}");
    assert!(seen.len() >= all.len());
}

fn a_closed_log_is_on_disk_and_can_be_read(log: &dyn Log) {
    let all: Vec<Owned> = (0..10)
        .map(|number| (append(log, number as u8, &body(number)), number as u8, body(number)))
        .collect();
    log.close().expect("everything is written");
    assert!(log.synced() > all[9].0);
    for class in [Class::Ingest, Class::Commit] {
        assert_eq!(log.append(class, 0, &[]), Err(Refusal::Closed));
    }
    assert!(read_from(log, Position(0)) == all, "a closed log reads otherwise");
    log.close().expect("closing twice is no error");
    let never = Position(log.synced().0 + 512);
    assert!(matches!(log.wait_synced(never), Err(Error::Failed { .. })));
}

fn the_status_adds_up(log: &dyn Log) {
    let all = fill(log, 100);
    let status = log.status();
    assert_eq!((status.health, status.reason, status.pending_bytes), (Health::Healthy, None, 0));
    assert_eq!(status.figures.records, 100);
    assert!(status.synced > all[99].0 && status.segments > 0);
    let figures = status.figures;
    let bodies: usize = all.iter().map(|(.., body)| body.len()).sum();
    assert!(figures.syncs > 0 && figures.bytes_written >= bodies as u64);
    assert_eq!(figures.sync_times.iter().sum::<u64>(), figures.syncs);
    assert!(figures.sync_time_max <= figures.sync_time);
}
