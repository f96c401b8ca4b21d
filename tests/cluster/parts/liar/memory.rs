//! What it writes into memory that it shares with a node of the same machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::SealFlags;
use sluicebox_core::ids::OutputId;
use sluicebox_core::message::Message;
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::liar::{Memory, Said, hand_over, until_ended};

use super::{Calls, Chance, NAMES, RESIDENT_BYTES_MORE, TakenOver, a_word, resident};

/// Memory that is no ring, or such as none is in, each with the files that are handed over.
fn no_rings(taken: &TakenOver, folder: &Path, to: &str) {
    let plain = || Memory::sealed(4 << 20);
    let (shrinks, odd, huge) =
        (Memory::new(4 << 20, SealFlags::GROW), Memory::sealed(4097), Memory::sealed(64 << 20));
    let (small, mut all) = (Memory::sealed(4 << 20), vec![shrinks, odd, huge]);
    small.write(16, 1 << 60);
    all.push(small);
    for (at, word) in [(0, 0), (8, 0), (8, 9 | 9 << 16 | 4096 << 32), (16, 4096), (24, u64::MAX)] {
        let wrong = plain();
        wrong.write(at, word);
        all.push(wrong);
    }
    for memory in &all {
        let mut socket = taken.liar.meet(folder, to);
        let answer = memory.hand_over(&mut socket);
        assert!(matches!(answer, Some(2..=4) | None), "it takes {memory:?}: {answer:?}");
    }
    let file = std::fs::File::open("/dev/null").expect("it is everywhere");
    let file = std::os::fd::AsFd::as_fd(&file);
    for (words, files) in [
        (&b"SBXRNG\r\n"[..], &[][..]),
        (b"SBXRNG\r\n", &[file]),
        (b"SBXRNG\r\n", &[file; 8]),
        (b"SOMETHIN", &[file]),
        (b"SB", &[file]),
    ] {
        let mut socket = taken.liar.meet(folder, to);
        if words.len() == 2 {
            drop(socket);
            continue;
        }
        let answer = hand_over(&mut socket, words, files);
        assert!(matches!(answer, Some(2..=4) | None), "it takes {words:?}: {answer:?}");
    }
}

/// Rings whose memory is written to while it is read. Gives how many were ended for it.
fn while_it_is_read(taken: &TakenOver, folder: &Path, to: &str) -> usize {
    let (mut chance, mut ended) = (Chance(3), 0);
    let frame = a_word("w1");
    let word = Said::of(&Message::Output {
        pipeline: taken.shared,
        output: OutputId(0),
        partition: 1,
        first: 0,
        frame: frame.bytes(),
    });
    let packet = [&[0][..], &word.0, &word.1].concat();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let mut memory = Memory::sealed(1 << 16);
        let mut socket = taken.liar.meet(folder, to);
        assert_eq!(memory.hand_over(&mut socket), Some(1), "it is a ring");
        assert!(!memory.resize(8192), "a ring that was taken has its size");
        socket.set_nonblocking(true).expect("a socket of ours");
        for turn in 0..200 {
            memory.put(&packet);
            // Somewhere in the header, or in what was put and may be being read.
            let at = match chance.next() % 3 {
                0 => chance.next() % 1024 / 8 * 8,
                _ => 4096 + chance.next() % (1 << 16) / 8 * 8,
            };
            if turn > 20 {
                memory.write(at, chance.next() << (chance.next() % 40));
            }
            if std::io::Write::write(&mut socket, &[0]).is_err() {
                break;
            }
        }
        // Whatever it made of that, it makes no packet of this.
        memory.write(128, u64::MAX);
        let _rung = std::io::Write::write(&mut socket, &[0]);
        socket.set_nonblocking(false).expect("a socket of ours");
        until_ended(&mut socket);
        ended += 1;
    }
    ended
}

#[tokio::test]
async fn a_node_that_writes_what_it_likes_into_its_ring_harms_nobody() {
    let taken = TakenOver::with(Cluster::of(&NAMES).that_meets()).await;
    let under_way = taken.begin().await;
    let calls = Calls::begin(taken.scene.at_home(), &taken.own);
    let folder: PathBuf = taken.scene.cluster.file("meeting");
    let before = resident(&taken.scene.nodes[taken.scene.home]);
    let taken = Arc::new(taken);
    // Its calls wait, and what goes on here must not.
    let lies = tokio::task::spawn_blocking({
        let taken = taken.clone();
        move || {
            let to = taken.at_home().0;
            no_rings(&taken, &folder, to);
            while_it_is_read(&taken, &folder, to)
        }
    });
    let ended = lies.await.expect("every lie is answered");
    assert!(ended > 3, "{ended} rings");
    let wrong = taken.wrong(taken.scene.home).await;
    assert!(wrong as usize >= ended / 2, "{wrong} of {ended} are counted");
    calls.end().await;
    taken.under(before + RESIDENT_BYTES_MORE, taken.scene.home);
    // Those that are left are linked as they were.
    let detail = taken.scene.at_home().describe("words").await;
    let rows = detail["partition"].as_array().expect("a list").iter();
    let mut away = rows.filter(|row| row["node"] == NAMES[taken.second]);
    assert!(away.all(|row| row["way"] == "ring"), "{detail}");
    taken.ends_well(under_way).await;
}
