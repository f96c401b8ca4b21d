//! Keys and values, and checkpoints of them by several partitions.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sluicebox_core::key::{group_of, partition_of};
use sluicebox_store::Store;
use sluicebox_store::checkpoint::{self, PIECE_BYTES_DEFAULT, Pace, Plan, Written};
use sluicebox_store::dirty::{Changes, Dirty};
use sluicebox_store::store::keys::{Place, put_state};

pub(crate) const PARTITIONS: u16 = 4;
pub(crate) const VALUE_BYTES: usize = 100;

static NEVER: AtomicBool = AtomicBool::new(false);

/// In which pieces a checkpoint is written, and how many bytes a second.
#[derive(Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) piece_bytes: usize,
    pub(crate) bytes_per_second: Option<u64>,
}

/// As fast as can be.
pub(crate) const AT_ONCE: Speed =
    Speed { piece_bytes: PIECE_BYTES_DEFAULT, bytes_per_second: None };

/// Numbers that look random, and are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Writes the store's key of a user key into `out`, and says which partition owns it.
pub(crate) fn key_of(number: u64, out: &mut Vec<u8>) -> u16 {
    let user = format!("user-{number:08}");
    let group = group_of(user.as_bytes());
    out.clear();
    let place = Place { tenant: 1, pipeline: 1, stage: 1, group };
    put_state(out, place, user.as_bytes(), b"count");
    partition_of(group, PARTITIONS)
}

/// New values for these keys, set aside.
pub(crate) fn changes(keys: impl Iterator<Item = u64>, seed: u64) -> Vec<Arc<Changes>> {
    let mut partitions: Vec<Dirty> = (0..PARTITIONS).map(|p| Dirty::new(p.into())).collect();
    let mut numbers = Numbers(seed);
    let (mut key, mut value) = (Vec::new(), [0; VALUE_BYTES]);
    for number in keys {
        let partition = key_of(number, &mut key);
        numbers.fill(&mut value);
        partitions[usize::from(partition)].put(&key, &value);
    }
    partitions.iter_mut().flat_map(Dirty::freeze).collect()
}

/// One checkpoint of these changes.
pub(crate) fn apply(
    store: &dyn Store,
    horizon: u64,
    changes: &[Arc<Changes>],
    speed: Speed,
) -> Written {
    let Speed { piece_bytes, bytes_per_second } = speed;
    let mut rate = || bytes_per_second;
    let mut pace = Pace { piece_bytes, bytes_per_second: &mut rate, stop: &NEVER };
    let plan = Plan { horizon, metadata: &[("bench", b"1")], discarded: &[], changes };
    let written = checkpoint::write(store, &plan, &mut pace).expect("the disk takes it");
    written.expect("nobody stopped it")
}
