//! What a hop to another process costs: `cargo bench -p sluicebox-link --bench link`.
//!
//! Sections, as arguments behind `--`: `hop`, `bulk`, `trip`, `hand`, `ways`; all of them without
//! one. The other process is this program again, with `--peer`.
//!
//! - Times are by the clock, at the receiver, from the first packet it asks for to the last; each
//!   figure is the median of several runs after one that does not count, with the least and the
//!   most. Two processes and whatever else runs share the cores, so that medians wander.
//! - Beside them is the processor time of both processes, which others change less: with a core for
//!   each, the clock shows what the busier of the two needs.
//! - Every packet is counted and its length is checked; receivers drop packets as they come.
//! - `hand` compares with two copies of as many bytes inside one process, through a buffer as large
//!   as the ring: what the ring could not be faster than if its ends took turns.
//! - `ways` sends the same packets by ring and by TLS over loopback, the two in turns; the ratio is
//!   that of each turn.
//!
//! Targets: `hop` 40 ns an event, `bulk` 8 GB/s, `trip` 8 us in the middle, `hand` 1.5 times the
//! copies, `ways` three times TLS for each second of processor.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use mimalloc::MiMalloc;
use rustix::time::{ClockId, clock_gettime};
use sluicebox_link::ring::{self, Limits, Offer};
use sluicebox_link::tls::authority::{Authority, Validity};
use sluicebox_link::tls::{self, Identity, NodeName, Settings};
use sluicebox_link::{End, Receiver, Refusal, Sender, close, recv, room};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What the node runs with.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const RUNS: usize = 7;
const EVENTS: usize = 256;
/// A frame's header, and for each event its head and 64 bytes.
const FRAME_BYTES: usize = 32 + EVENTS * (32 + 64);
/// What goes before a frame: a run's header.
const RUN_BYTES: usize = 40;

type Section = (&'static str, fn(), fn(Pipes));

const SECTIONS: [Section; 5] = [
    ("hop", hop, |pipes| send_all(pipes, FRAME_BYTES)),
    ("bulk", bulk, |pipes| send_all(pipes, 64 << 10)),
    ("trip", trip, echo),
    ("hand", hand, |pipes| send_all(pipes, 1 << 20)),
    ("ways", ways, send_asked),
];

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, section, way, path] = &arguments[..]
        && flag == "--peer"
    {
        let (.., peer) = SECTIONS.iter().find(|(name, ..)| name == section).expect("a section");
        let way = Way::ALL.into_iter().find(|known| known.name() == way).expect("a way");
        return peer(Pipes::connect(way, Path::new(path)));
    }
    for (name, run, _) in SECTIONS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}

/// What packets go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ring,
    Tls,
}

impl Way {
    const ALL: [Self; 2] = [Self::Ring, Self::Tls];

    const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Tls => "tls",
        }
    }
}

/// A runtime as a worker of the node has it, and a link each way.
struct Pipes {
    runtime: Runtime,
    sender: Box<dyn Sender>,
    receiver: Box<dyn Receiver>,
}

impl Pipes {
    fn ring(to: UnixStream, from: UnixStream) -> Self {
        let runtime = runtime();
        let ends = runtime.block_on(async {
            let offered = ring::offer(to, Offer::default());
            tokio::join!(offered, ring::accept(from, Limits::default()))
        });
        let (sender, receiver) = (ends.0.expect("it is taken"), ends.1.expect("it is good"));
        Self { runtime, sender: Box::new(sender), receiver: Box::new(receiver) }
    }

    /// By connections that are made with a runtime.
    fn tls(folder: &Path, [own, other]: [&str; 2], runtime: Runtime, sockets: Sockets) -> Self {
        let identity = identity(folder, own);
        let other = NodeName::new(other).expect("a name");
        let [to, from] = sockets;
        let ends = runtime.block_on(async {
            let connected = tls::connect(to, &identity, &other, Settings::default());
            tokio::join!(connected, tls::accept(from, &identity, Settings::default()))
        });
        let (sender, (_, receiver)) = (ends.0.expect("it is taken"), ends.1.expect("it is good"));
        Self { runtime, sender: Box::new(sender), receiver: Box::new(receiver) }
    }

    fn connect(way: Way, folder: &Path) -> Self {
        if way == Way::Ring {
            let connect = || UnixStream::connect(folder.join(SOCKET)).expect("somebody listens");
            let (from, to) = (connect(), connect());
            return Self::ring(to, from);
        }
        let port = std::fs::read_to_string(folder.join(PORT)).expect("the other end wrote it");
        let port: u16 = port.parse().expect("a number");
        let runtime = runtime();
        let (from, to) = runtime.block_on(async {
            let from = TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens");
            (from, TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens"))
        });
        Self::tls(folder, [NAMES[1], NAMES[0]], runtime, [to, from])
    }

    /// Starts the other process.
    fn start(section: &str, way: Way) -> (Self, Child) {
        let folder = TempDir::new().expect("a temporary folder");
        let program = std::env::current_exe().expect("this program");
        let mut peer = Command::new(program);
        peer.args(["--peer", section, way.name()]).arg(folder.path());
        if way == Way::Ring {
            let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
            let child = peer.spawn().expect("it runs");
            let accept = || listener.accept().expect("the other process connects").0;
            let (to, from) = (accept(), accept());
            return (Self::ring(to, from), child);
        }
        certify(folder.path());
        let runtime = runtime();
        let (child, sockets) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            std::fs::write(folder.path().join(PORT), port.to_string()).expect("there is room");
            let child = peer.spawn().expect("it runs");
            let accept = async || listener.accept().await.expect("the other process connects").0;
            (child, [accept().await, accept().await])
        });
        (Self::tls(folder.path(), NAMES, runtime, sockets), child)
    }

    /// Ends the other process.
    fn end(self, mut child: Child) {
        drop(self);
        child.wait().expect("it ends");
    }
}

/// One to send by, one to receive by.
type Sockets = [TcpStream; 2];

/// Where the two processes meet, and what they are called.
const SOCKET: &str = "socket";
const PORT: &str = "port";
const NAMES: [&str; 2] = ["a.node", "b.node"];

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime")
}

/// Puts certificates for both into the folder.
fn certify(folder: &Path) {
    let authority = Authority::new(Validity::of_days(1)).expect("randomness");
    let write = |file: &str, text: &str| {
        std::fs::write(folder.join(file), text).expect("there is room");
    };
    write("authority", &authority.certificate_pem());
    for name in NAMES {
        let named = NodeName::new(name).expect("a name");
        let issued = authority.issue(&named, Validity::of_days(1)).expect("randomness");
        write(&format!("{name}.certificate"), &issued.certificate_pem);
        write(&format!("{name}.key"), &issued.key_pem);
    }
}

fn identity(folder: &Path, name: &str) -> Identity {
    let read = |file: &str| std::fs::read(folder.join(file)).expect("it was written");
    let (certificate, key) = (read(&format!("{name}.certificate")), read(&format!("{name}.key")));
    let named = NodeName::new(name).expect("a name");
    Identity::from_pem(named, &certificate, &key, &read("authority")).expect("it was made for this")
}

async fn send(sender: &mut dyn Sender, parts: &[&[u8]]) {
    while let Err(refusal) = sender.try_send(parts) {
        assert_eq!(refusal, Refusal::Full);
        room(sender).await.expect("the link is not over");
    }
}

/// The other process: sends as many packets as it is asked for, until it is asked no more.
fn send_all(pipes: Pipes, bytes: usize) {
    let Pipes { runtime, mut sender, mut receiver } = pipes;
    let (header, frame) = (vec![1; RUN_BYTES], vec![7; bytes]);
    runtime.block_on(async {
        while let Ok(count) = recv(&mut *receiver).await {
            let before = cpu();
            for _ in 0..number(&count) {
                send(&mut *sender, &[&header, &frame]).await;
            }
            send(&mut *sender, &[&((cpu() - before) as u64).to_le_bytes()]).await;
        }
    });
}

/// The same with packets as large as was asked for.
fn send_asked(pipes: Pipes) {
    let Pipes { runtime, mut sender, mut receiver } = pipes;
    let (header, frame) = (vec![1; RUN_BYTES], vec![7; 1 << 20]);
    runtime.block_on(async {
        while let Ok(count) = recv(&mut *receiver).await {
            let bytes = recv(&mut *receiver).await.expect("both numbers");
            let before = cpu();
            for _ in 0..number(&count) {
                send(&mut *sender, &[&header, &frame[..number(&bytes) as usize]]).await;
            }
            send(&mut *sender, &[&((cpu() - before) as u64).to_le_bytes()]).await;
        }
    });
}

/// The other process: sends back what comes.
fn echo(pipes: Pipes) {
    let Pipes { runtime, mut sender, mut receiver } = pipes;
    runtime.block_on(async {
        loop {
            match recv(&mut *receiver).await {
                Ok(packet) => send(&mut *sender, &[&packet]).await,
                Err(End::Closed) => return close(&mut *sender).await.unwrap_or(()),
                Err(End::Broken(_)) => return,
            }
        }
    });
}

/// How long something took, in nanoseconds: by the clock, and of the processor at both ends.
struct Took {
    clock: f64,
    receiver: f64,
    sender: f64,
}

/// Asks for so many packets and takes them.
fn receive(pipes: &mut Pipes, count: u64, bytes: usize) -> Took {
    receive_asked(pipes, &[count], (count, bytes))
}

/// The same, by these numbers.
fn receive_asked(pipes: &mut Pipes, asked: &[u64], (count, bytes): (u64, usize)) -> Took {
    let Pipes { runtime, sender, receiver } = pipes;
    let (sender, receiver) = (&mut **sender, &mut **receiver);
    runtime.block_on(async {
        let (started, before) = (Instant::now(), cpu());
        for number in asked {
            send(sender, &[&number.to_le_bytes()]).await;
        }
        for _ in 0..count {
            let packet = recv(receiver).await.expect("the link is not over");
            assert_eq!(packet.len(), RUN_BYTES + bytes);
            black_box(packet);
        }
        let (clock, receiver_cpu) = (started.elapsed().as_nanos() as f64, cpu() - before);
        let sender = number(&recv(receiver).await.expect("the link is not over")) as f64;
        Took { clock, receiver: receiver_cpu, sender }
    })
}

fn number(packet: &[u8]) -> u64 {
    u64::from_le_bytes(packet.try_into().expect("a number"))
}

/// Nanoseconds of processor time of this process.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Least, middle, most.
fn spread(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[0], all[all.len() / 2], all[all.len() - 1])
}

/// What each run took, divided; the first run does not count.
fn runs(pipes: &mut Pipes, (count, bytes): (u64, usize), units: f64) -> [(f64, f64, f64); 3] {
    receive(pipes, count, bytes);
    let all: Vec<Took> = (0..RUNS).map(|_| receive(pipes, count, bytes)).collect();
    let of = |pick: fn(&Took) -> f64| spread(all.iter().map(|t| pick(t) / units).collect());
    [of(|took| took.clock), of(|took| took.receiver), of(|took| took.sender)]
}

fn hop() {
    const FRAMES: u64 = 20_000;
    let (mut pipes, child) = Pipes::start("hop", Way::Ring);
    let events = FRAMES as f64 * EVENTS as f64;
    let [clock, receiver, sender] = runs(&mut pipes, (FRAMES, FRAME_BYTES), events);
    let (least, middle, most) = clock;
    let figures = pipes.receiver.figures();
    println!(
        "hop   64 B events in frames of {EVENTS} ({FRAME_BYTES} B): {middle:.1} ns an event \
         ({least:.1} to {most:.1}); processor: receiver {:.1}, sender {:.1}; of {} packets the \
         receiver slept for {} and woke the sender for {}",
        receiver.1, sender.1, figures.packets, figures.sleeps, figures.wakes,
    );
    pipes.end(child);
}

fn bulk() {
    const PACKETS: u64 = 20_000;
    let (mut pipes, child) = Pipes::start("bulk", Way::Ring);
    let bytes = (PACKETS * (64 << 10)) as f64;
    let [clock, receiver, sender] = runs(&mut pipes, (PACKETS, 64 << 10), bytes);
    // Nanoseconds for a byte, so that the longest time is the least rate.
    let (most, middle, least) = (1.0 / clock.0, 1.0 / clock.1, 1.0 / clock.2);
    println!(
        "bulk  64 KiB packets: {middle:.1} GB/s ({least:.1} to {most:.1}); by processor: receiver \
         {:.1}, sender {:.1} GB/s",
        1.0 / receiver.1,
        1.0 / sender.1,
    );
    pipes.end(child);
}

fn trip() {
    const TRIPS: usize = 20_000;
    let (mut pipes, child) = Pipes::start("trip", Way::Ring);
    let mut tails = Vec::new();
    let mut middles = Vec::new();
    for _ in 0..=RUNS {
        let Pipes { runtime, sender, receiver } = &mut pipes;
        let (sender, receiver) = (&mut **sender, &mut **receiver);
        let mut times: Vec<f64> = runtime.block_on(async {
            let mut times = Vec::with_capacity(TRIPS);
            for _ in 0..TRIPS {
                let started = Instant::now();
                send(sender, &[&[7; 64]]).await;
                recv(receiver).await.expect("the link is not over");
                times.push(started.elapsed().as_secs_f64() * 1e6);
            }
            times
        });
        times.sort_by(f64::total_cmp);
        tails.push(times[TRIPS * 99 / 100]);
        middles.push(times[TRIPS / 2]);
    }
    let (least, middle, most) = spread(middles.split_off(1));
    println!(
        "trip  64 B there and back, both ends asleep: p50 {middle:.1} us ({least:.1} to \
         {most:.1}), p99 {:.1} us (median of runs); a byte over a bare Unix socket, between \
         threads that block: p50 {:.1} us",
        spread(tails.split_off(1)).1,
        spread((0..RUNS).map(|_| bare_trip()).collect()).1,
    );
    pipes.end(child);
}

/// The same with nothing but a socket and threads that block, as a measure of the machine.
fn bare_trip() -> f64 {
    const TRIPS: usize = 20_000;
    let (mut one, mut two) = UnixStream::pair().expect("a socket pair");
    let echoes = std::thread::spawn(move || {
        let mut byte = [0];
        while two.read_exact(&mut byte).is_ok() {
            two.write_all(&byte).expect("the other end reads");
        }
    });
    let mut times: Vec<f64> = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let (started, mut byte) = (Instant::now(), [7]);
        one.write_all(&byte).expect("the other end reads");
        one.read_exact(&mut byte).expect("the other end answers");
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    drop(one);
    echoes.join().expect("no panic");
    spread(times).1
}

/// Two copies of so many bytes, a packet at a time, through a buffer as large as the ring.
fn copies(megabytes: usize, from: &[u8], through: &mut [u8], to: &mut [u8]) -> (f64, f64) {
    let (started, before) = (Instant::now(), cpu());
    for number in 0..megabytes {
        let at = (number << 20) % through.len();
        let shared = &mut through[at..at + (1 << 20)];
        shared.copy_from_slice(black_box(from));
        to.copy_from_slice(black_box(shared));
        black_box(&mut *to);
    }
    (started.elapsed().as_nanos() as f64, cpu() - before)
}

fn hand() {
    let (mut pipes, child) = Pipes::start("hand", Way::Ring);
    let (from, mut through, mut to) = (vec![7; 1 << 20], vec![1; 4 << 20], vec![1; 1 << 20]);
    for megabytes in [1, 10, 100] {
        let mut times = [const { Vec::new() }; 4];
        // One after the other, so that both meet the same neighbours.
        for run in 0..=RUNS * 3 {
            let link = receive(&mut pipes, megabytes as u64, 1 << 20);
            let copy = copies(megabytes, &from, &mut through, &mut to);
            let all = [link.clock, copy.0, link.receiver + link.sender, copy.1];
            if run > 0 {
                times.iter_mut().zip(all).for_each(|(times, took)| times.push(took / 1e6));
            }
        }
        let [link, copy, link_cpu, copy_cpu] = times.map(|all| spread(all).1);
        println!(
            "hand  {megabytes:>3} MiB in packets of 1 MiB: {link:.2} ms; two copies {copy:.2} ms; \
             {:.2} times; by processor, both ends together: {:.2} times",
            link / copy,
            link_cpu / copy_cpu,
        );
    }
    pipes.end(child);
}

/// By ring and by TLS, in turns: what both ends together need for a packet, and what the clock
/// says.
fn ways() {
    const BYTES: u64 = 512 << 20;
    let mut both = Way::ALL.map(|way| Pipes::start("ways", way));
    let frame = format!("frames of {EVENTS} events of 64 B ({FRAME_BYTES} B)");
    let sizes = [(&*frame, FRAME_BYTES), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];
    for (what, bytes) in sizes {
        let count = BYTES / bytes as u64;
        let mut times = [const { [const { Vec::new() }; 2] }; 2];
        for run in 0..=RUNS {
            for ((pipes, _), times) in both.iter_mut().zip(&mut times) {
                let took = receive_asked(pipes, &[count, bytes as u64], (count, bytes));
                // The first run does not count.
                if run > 0 {
                    times[0].push(took.clock / (count * bytes as u64) as f64);
                    times[1].push((took.receiver + took.sender) / (count * bytes as u64) as f64);
                }
            }
        }
        let ratio = |at: usize| {
            let turns = times[0][at].iter().zip(&times[1][at]);
            spread(turns.map(|(ring, tls): (&f64, &f64)| tls / ring).collect())
        };
        let ((.., clock, _), (least, cpu, most)) = (ratio(0), ratio(1));
        let [ring, tls] = &times.clone().map(|way| way.map(|all| 1.0 / spread(all).1));
        println!(
            "ways  {what}: ring {:.1}, TLS {:.1} GB/s, {clock:.1} times; both ends together, for a \
             second of processor: ring {:.2}, TLS {:.2} GB, {cpu:.1} times ({least:.1} to \
             {most:.1})",
            ring[0], tls[0], ring[1], tls[1],
        );
    }
    for (pipes, child) in both {
        pipes.end(child);
    }
}
