//! An other end that lies: in the memory, on the socket, in what it hands over.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

/// A receiver, and what its other end has: the memory and the socket.
async fn victim() -> (RingReceiver, Mapping, UnixStream) {
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let attacker = tokio::task::spawn_blocking(move || {
        let file = raw::make(SMALL).expect("memory");
        let mapping = raw::map(&file, SMALL.memory_bytes()).expect("mapped");
        write_header(&mapping, SMALL);
        hand_over(&one, b"SBXRNG\r\n", &[file.as_fd()]);
        (mapping, one)
    });
    let receiver = accept(two, Limits::default()).await.expect("it is good so far");
    let (mapping, socket) = attacker.await.expect("no panic");
    (receiver, mapping, socket)
}

fn hand_over(socket: &UnixStream, magic: &[u8], files: &[std::os::fd::BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    }
    let bytes = [std::io::IoSlice::new(magic)];
    sendmsg(socket, &bytes, &mut control, SendFlags::empty()).expect("it is sent");
}

/// What a receiver says of an offer, and what it answers.
async fn offered(magic: &'static [u8], files: Vec<OwnedFd>) -> (Error, u8) {
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    hand_over(&one, magic, &files);
    let refused = accept(two, Limits::default()).await.map(drop).expect_err("it is refused");
    let mut answer = [0];
    std::io::Read::read_exact(&mut &one, &mut answer).expect("there is an answer");
    (refused, answer[0])
}

fn memory_of(bytes: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create(c"test", MemfdFlags::ALLOW_SEALING).expect("memory");
    ftruncate(&file, bytes).expect("a size");
    fcntl_add_seals(&file, seals).expect("sealed");
    file
}

fn is_garbage(error: &Error) -> bool {
    matches!(error, Error::Garbage { .. })
}

#[tokio::test]
async fn memory_that_could_change_its_size_is_refused() {
    let bytes = SMALL.memory_bytes() as u64;
    for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::GROW] {
        let (refused, answer) = offered(b"SBXRNG\r\n", vec![memory_of(bytes, seals)]).await;
        let what = "what was handed over is no memory that is sealed against other sizes";
        assert_eq!((refused, answer), (Error::Garbage { what }, 4));
    }
    let file: OwnedFd = tempfile::tempfile().expect("a file").into();
    ftruncate(&file, bytes).expect("a size");
    assert!(is_garbage(&offered(b"SBXRNG\r\n", vec![file]).await.0), "a file of a disk");
}

#[tokio::test]
async fn memory_of_a_size_that_no_ring_has_is_refused() {
    let seals = SealFlags::SHRINK | SealFlags::GROW;
    for bytes in [0, 1, 4096, 4097, 6000, 8200, 12288] {
        let (refused, _) = offered(b"SBXRNG\r\n", vec![memory_of(bytes, seals)]).await;
        assert!(is_garbage(&refused), "{bytes}: {refused}");
    }
    // As large as it likes to be, and not looked into.
    let (refused, answer) = offered(b"SBXRNG\r\n", vec![memory_of(1 << 40, seals)]).await;
    assert_eq!((refused, answer), (Error::TooLarge { what: "a larger ring" }, 3));
}

#[tokio::test]
async fn memory_that_cannot_be_written_is_refused() {
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let bytes = SMALL.memory_bytes() as u64;
    let (refused, _) = offered(b"SBXRNG\r\n", vec![memory_of(bytes, seals)]).await;
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
}

#[tokio::test]
async fn what_is_no_offer_is_refused() {
    let memory = || {
        let file = raw::make(SMALL).expect("memory");
        write_header(&raw::map(&file, SMALL.memory_bytes()).expect("mapped"), SMALL);
        file
    };
    let one_file = Error::Garbage { what: "there is not one file with the offer" };
    assert_eq!(offered(b"SBXRNG\r\n", vec![]).await, (one_file.clone(), 4));
    assert_eq!(offered(b"SBXRNG\r\n", vec![memory(), memory()]).await, (one_file, 4));
    let no_ring = Error::Garbage { what: "what is offered is no ring" };
    assert_eq!(offered(b"SBXRNG\n\n", vec![memory()]).await, (no_ring.clone(), 4));
    let (one, two) = UnixStream::pair().expect("a socket pair");
    hand_over(&one, b"SBX", &[memory().as_fd()]);
    drop(one);
    let cut_off = accept(two, Limits::default()).await.map(drop);
    assert!(matches!(cut_off, Err(error) if error == no_ring));
}

#[tokio::test]
async fn an_other_end_that_does_not_answer_is_given_up() {
    let time = Duration::from_millis(20);
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let limits = Limits { handshake_time_max: time, ..Limits::default() };
    let silent = accept(two, limits).await.map(drop);
    assert!(matches!(silent, Err(Error::Timeout { .. })), "{silent:?}");
    drop(one);
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let silent = offer(one, Offer { handshake_time_max: time, ..small() }).await.map(drop);
    assert!(matches!(silent, Err(Error::Timeout { .. })), "{silent:?}");
    drop(two);
    let (one, mut two) = UnixStream::pair().expect("a socket pair");
    two.write_all(&[77]).expect("it is sent");
    let wrong = offer(one, small()).await.map(drop);
    assert!(matches!(wrong, Err(Error::Garbage { .. })), "{wrong:?}");
}

#[tokio::test]
async fn a_later_format_is_refused_with_a_sentence() {
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let file = raw::make(SMALL).expect("memory");
    let mapping = raw::map(&file, SMALL.memory_bytes()).expect("mapped");
    write_header(&mapping, SMALL);
    let version = 2 | 2 << 16 | (HEADER_BYTES as u64) << 32;
    mapping[1].store(version, Ordering::Relaxed);
    hand_over(&one, b"SBXRNG\r\n", &[file.as_fd()]);
    let refused = accept(two, Limits::default()).await.map(drop).expect_err("it is refused");
    assert_eq!(
        refused.to_string(),
        "the other end's ring has format 2, for readers of format 2 and up; this version reads up \
         to 1: update this node first"
    );
}

#[tokio::test]
async fn a_writer_that_lies_about_where_it_is_breaks_the_link() {
    for head in [1, 12, 4104, 1 << 40, u64::MAX, u64::MAX - 7, 1 << 63] {
        let (mut receiver, memory, _socket) = victim().await;
        memory[format::Spot::Head as usize].store(head, Ordering::Release);
        let end = receiver.try_recv().expect_err("it cannot be");
        assert!(matches!(end, End::Broken(Error::Garbage { .. })), "{head}: {end:?}");
        // It stays over, whatever is there later.
        memory[format::Spot::Head as usize].store(0, Ordering::Release);
        assert_eq!(receiver.try_recv(), Err(end));
    }
    let (mut receiver, memory, _socket) = victim().await;
    memory[HEADER_BYTES / WORD_BYTES].store(format::packet_word(8), Ordering::Relaxed);
    memory[format::Spot::Head as usize].store(32, Ordering::Release);
    assert_eq!(receiver.try_recv().expect("a packet"), Some(Bytes::from_static(&[0; 8])));
    memory[format::Spot::Head as usize].store(16, Ordering::Release);
    assert!(matches!(receiver.try_recv(), Err(End::Broken(Error::Garbage { .. }))));
}

#[tokio::test]
async fn a_reader_that_lies_about_where_it_is_breaks_the_link() {
    for tail in [1, 1 << 40, u64::MAX, u64::MAX - 7] {
        let (one, two) = UnixStream::pair().expect("a socket pair");
        let offered = offer(one, small());
        let (sender, receiver) = tokio::join!(offered, accept(two, Limits::default()));
        let (mut sender, receiver) = (sender.expect("taken"), receiver.expect("good"));
        assert_eq!(sender.try_send(&[]), Ok(()));
        let there = format::Spot::Tail.of(receiver.reader.memory());
        there.store(tail, Ordering::Release);
        // It is looked at when room is short.
        let mut refused = Ok(());
        for _ in 0..600 {
            refused = sender.try_send(&[b"12345678"]);
            if refused.is_err() {
                break;
            }
        }
        let Err(Refusal::Over(End::Broken(error))) = refused else {
            panic!("{tail}: {refused:?}");
        };
        assert!(is_garbage(&error), "{tail}: {error}");
        assert_eq!(room(&mut sender).await, Err(End::Broken(error)));
    }
}

/// Somebody writes random words over everything while the receiver reads.
#[test]
fn a_writer_that_writes_while_it_is_read_breaks_nothing_but_the_link() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut broken = 0;
        for seed in 1..=30 {
            let (mut receiver, memory, socket) = victim().await;
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let writes = std::thread::spawn(move || scribble(seed, &memory, socket, &stopped));
            for _ in 0..2000 {
                let received = tokio::time::timeout(Duration::from_millis(5), recv(&mut receiver));
                match received.await {
                    Ok(Ok(packet)) => assert!(packet.len() <= SMALL.packet_bytes_max),
                    Ok(Err(End::Broken(Error::Garbage { .. }))) => {
                        broken += 1;
                        break;
                    }
                    Ok(Err(End::Closed)) | Err(_) => break,
                    Ok(Err(end)) => panic!("{end:?}"),
                }
            }
            stop.store(true, Ordering::Relaxed);
            writes.join().expect("no panic");
        }
        assert!(broken > 15, "most of it is garbage, but only {broken} of 30 broke");
    });
}

/// Writes words that look like packets, and positions that look right, and worse.
fn scribble(seed: u64, memory: &[AtomicU64], mut socket: UnixStream, stop: &AtomicBool) {
    let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    socket.set_nonblocking(true).expect("a socket");
    let mut head = 0;
    while !stop.load(Ordering::Relaxed) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let word = match dice % 8 {
            0 => dice,
            _ => format::packet_word((dice >> 20) as usize % 1100),
        };
        let at = HEADER_BYTES / WORD_BYTES + (dice >> 40) as usize % 512;
        memory[at].store(word, Ordering::Relaxed);
        if dice.is_multiple_of(16) {
            head += (dice >> 30) % 64 * 8;
            format::Spot::Head.of(memory).store(head, Ordering::Release);
            let _rung = socket.write(&[1]);
        }
    }
}

/// The whole file is taken away in the one way seals allow: its pages are emptied.
#[tokio::test]
async fn memory_that_is_emptied_under_its_reader_breaks_the_link() {
    let (one, two) = UnixStream::pair().expect("a socket pair");
    let file = raw::make(SMALL).expect("memory");
    let mapping = raw::map(&file, SMALL.memory_bytes()).expect("mapped");
    write_header(&mapping, SMALL);
    hand_over(&one, b"SBXRNG\r\n", &[file.as_fd()]);
    let mut receiver = accept(two, Limits::default()).await.expect("it is good so far");
    assert!(ftruncate(&file, 0).is_err(), "the seal holds");
    let mut writer = Writer::new(mapping, SMALL);
    for _ in 0..3 {
        assert!(matches!(writer.put(&[b"packet"], 6), Ok(Put::Done { .. })));
    }
    assert_eq!(receiver.try_recv().expect("a packet"), Some(Bytes::from_static(b"packet")));
    use rustix::fs::{FallocateFlags, fallocate};
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 0, SMALL.memory_bytes() as u64).expect("a hole");
    let end = receiver.try_recv().expect_err("there is no packet any more");
    assert!(matches!(end, End::Broken(Error::Garbage { .. })), "{end:?}");
}

/// So many bytes that nobody asked for wake a receiver, and nothing more.
#[tokio::test]
async fn a_bell_that_rings_without_end_ends_nothing() {
    let (mut receiver, memory, mut socket) = victim().await;
    socket.set_nonblocking(true).expect("a socket");
    for _ in 0..3 {
        while socket.write(&[7; 4096]).is_ok() {}
        assert_eq!(receiver.try_recv(), Ok(None));
    }
    // The runtime hears of it when it has nothing else to do.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let once = std::future::poll_fn(|cx| Poll::Ready(receiver.poll_recv(cx).is_pending()));
    assert!(tokio::task::unconstrained(once).await, "there is nothing to be had");
    let rings = receiver.common.bell.hear();
    assert_eq!(rings, Some((Heard::Ring, 64)), "it went on for as long as somebody rang");
    let mut writer = Writer::new(memory, SMALL);
    assert!(matches!(writer.put(&[b"x"], 1), Ok(Put::Done { .. })));
    let packet = within("a packet", recv(&mut receiver)).await;
    assert_eq!(packet, Ok(Bytes::from_static(b"x")));
}

/// The same by somebody who rings faster than one can listen, to ends that nobody interrupts.
#[tokio::test]
async fn a_bell_that_rings_faster_than_one_listens_holds_up_nobody() {
    let (mut receiver, memory, mut socket) = victim().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let rings = std::thread::spawn(move || {
        socket.set_nonblocking(true).expect("a socket");
        while !stopped.load(Ordering::Relaxed) {
            let _full = socket.write(&[7; 4096]);
        }
        socket
    });
    while receiver.common.bell.hear().is_none() {
        tokio::task::yield_now().await;
    }
    let never = tokio::task::unconstrained(recv(&mut receiver));
    let never = tokio::time::timeout(Duration::from_millis(50), never).await;
    assert!(never.is_err(), "there is nothing to be had: {never:?}");
    for _ in 0..1000 {
        assert_eq!(receiver.try_recv(), Ok(None));
    }
    let mut writer = Writer::new(memory, SMALL);
    assert!(matches!(writer.put(&[b"x"], 1), Ok(Put::Done { .. })));
    let packet = within("a packet", tokio::task::unconstrained(recv(&mut receiver))).await;
    assert_eq!(packet, Ok(Bytes::from_static(b"x")));
    stop.store(true, Ordering::Relaxed);
    drop(rings.join().expect("no panic"));
}

#[test]
fn any_moves_may_be_played() {
    let mut dice = 7_u64;
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..if cfg!(miri) { 3 } else { 3000 } {
        let mut moves = Vec::new();
        for _ in 0..if cfg!(miri) { 50 } else { 200 } {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let [kind, a, b, c, ..] = dice.to_le_bytes();
            // Lies are rare, so that the honest moves between them get somewhere.
            match kind {
                0..100 => moves.push(0),
                100..=240 => moves.extend([1, a, b % 5]),
                241 => moves.extend([3, a % 7 * 16, if c > 50 { b & !7 } else { b }]),
                242 => {
                    moves.extend([2, a, 2 + b % 2]);
                    let length = u64::from(u16::from_le_bytes([b, c % 5]));
                    let word = if kind > 20 { format::packet_word(0) | length } else { dice };
                    moves.extend(word.to_le_bytes());
                }
                _ => moves.push(4),
            }
        }
        let played = forge::play(&moves);
        for end in [played.reader, played.writer].into_iter().flatten() {
            let Error::Garbage { what } = end else { panic!("{end}") };
            reached.insert(what);
        }
        if !played.has_lies {
            reached.insert("honest");
        }
    }
    // All ways in which the two ends can find each other out.
    assert!(cfg!(miri) || reached.len() == 9, "only {reached:#?}");
}
