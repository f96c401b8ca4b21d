//! One change of one key: what a worker pays for it.

use sluicebox_store::dirty::{Dirty, Known};

use crate::figures::{figure, quantile, section, thread_nanos};
use crate::load::{Numbers, VALUE_BYTES, key_of};

const KEYS: u64 = 1_000_000;
const ROUNDS: usize = 5;

pub(crate) fn run() {
    section("changes of one partition, 1,000,000 distinct keys, random order, one thread");
    let mut keys = Vec::new();
    let mut key = Vec::new();
    for number in 0..KEYS {
        key_of(number, &mut key);
        keys.push(key.clone());
    }
    let mut numbers = Numbers(1);
    for at in (1..keys.len()).rev() {
        keys.swap(at, (numbers.next() % (at as u64 + 1)) as usize);
    }
    let [mut first, mut again, mut found, mut worst] = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        let mut dirty = Dirty::new(round as u64);
        let value = [round as u8; VALUE_BYTES];
        let put_all =
            |dirty: &mut Dirty| per_key(|| keys.iter().for_each(|key| dirty.put(key, &value)));
        first.push(put_all(&mut dirty));
        again.push(put_all(&mut dirty));
        found.push(per_key(|| {
            assert!(keys.iter().all(|key| dirty.get(key) == Some(Known::Value(&value))));
        }));
        assert_eq!(dirty.freeze()[0].len() as u64, KEYS);
        worst.push(slowest_of_256(&keys, &value));
        if round == 0 {
            figure("memory for one byte of keys and values", bytes_per_byte(&dirty), "B");
        }
    }
    figure("put of a new key", quantile(&mut first, 0.5), "ns");
    figure("put over an old value", quantile(&mut again, 0.5), "ns");
    figure("get", quantile(&mut found, 0.5), "ns");
    figure("slowest 256 puts in a row while growing", quantile(&mut worst, 0.5) / 1e3, "us");
}

fn per_key(work: impl FnOnce()) -> f64 {
    let before = thread_nanos();
    work();
    (thread_nanos() - before) / KEYS as f64
}

fn slowest_of_256(keys: &[Vec<u8>], value: &[u8]) -> f64 {
    let mut dirty = Dirty::new(9);
    let times = keys.chunks(256).map(|keys| {
        let before = thread_nanos();
        keys.iter().for_each(|key| dirty.put(key, value));
        thread_nanos() - before
    });
    times.fold(0.0, f64::max)
}

fn bytes_per_byte(dirty: &Dirty) -> f64 {
    dirty.bytes() as f64 / (KEYS as usize * (39 + VALUE_BYTES)) as f64
}
