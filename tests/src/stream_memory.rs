//! What the guest `stream-memory` says, which keeps nothing but its memory.

use std::collections::BTreeMap;

/// The guest.
pub const GUEST: &str = "stream-memory";

/// What it says of each event of a stream.
#[must_use]
pub fn told(payloads: &[Vec<u8>]) -> Vec<String> {
    let (mut hash, mut bytes) = (0xcbf2_9ce4_8422_2325_u64, 0);
    let mut seen: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut all = Vec::new();
    for (count, payload) in (1..).zip(payloads) {
        for byte in payload {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        bytes += payload.len();
        let times = seen.entry(payload).or_default();
        *times += 1;
        all.push(format!("{count} {hash:016x} {times} {bytes}"));
    }
    all
}

/// What it says at the end of a stream.
#[must_use]
pub fn last_words(payloads: &[Vec<u8>]) -> String {
    let told = told(payloads).pop().unwrap_or_default();
    let words: Vec<&str> = told.split(' ').collect();
    format!("end {} {}", words[0], words[1])
}

/// Payloads of these texts.
#[must_use]
pub fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
