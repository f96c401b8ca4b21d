//! The process that gives drivers work of others: what drivers need works, and no more.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};
use sluicebox_confine::drivers::Needs;
use sluicebox_confine::{Bounds, Calls, confine};

use crate::inside::{abstract_name, check, say, serve_by_runtime, write_and_read};
use crate::outside::Told;

/// Tests of it, for both parts.
pub(crate) const TESTS: &[crate::Test] = &[
    ("drivers_read_what_is_theirs_and_nothing_else", files),
    ("drivers_have_no_network_and_no_sockets", network),
    ("drivers_start_no_program_and_no_process", programs),
    ("drivers_signal_themselves_alone", signals),
    ("drivers_threads_and_memory_work", threads),
];

const NETWORK: [&str; 7] = [
    "connect by TCP",
    "listen by TCP",
    "bind UDP",
    "connect to a socket by path",
    "connect to an abstract socket",
    "listen at a path",
    "make a pair for datagrams",
];

fn files(told: &Told) {
    for name in ["read a library", "list devices", "read memory figures", "read itself"] {
        told.works(name);
    }
    told.works("write to the null device");
    for name in ["read /etc/passwd", "read the data", "write the data", "list the data"] {
        told.refused(name, &["landlock"], "EACCES");
    }
    told.refused("read another process's memory", &["landlock"], "EACCES");
    if told.tried("has a directory") == "ok" {
        told.works("write in the directory");
        told.refused("a link in the directory", &["seccomp", "landlock"], "EPERM|EACCES");
    } else {
        told.refused("write in the directory", &["landlock"], "EACCES");
        told.refused("read in the directory", &["landlock"], "EACCES");
    }
}

fn network(told: &Told) {
    for name in NETWORK {
        told.refused(name, &["seccomp"], "EPERM");
    }
    told.works("make a pair for streams");
}

fn programs(told: &Told) {
    for name in ["start a shell", "start its own program"] {
        told.refused(name, &["seccomp"], "EPERM");
    }
}

fn signals(told: &Told) {
    told.works("signal itself");
    told.refused("end another process", &["seccomp"], "EPERM");
    told.refused("take hold of another process", &["seccomp"], "EPERM");
    told.works("the other process lives");
}

fn threads(told: &Told) {
    told.works("start a thread");
    told.works("serve by the runtime");
    told.works("make a file in memory");
    told.refused("read the data in a thread", &["landlock"], "EACCES");
}

/// Locks itself in as for drivers, and tries.
pub(crate) fn held_in(arguments: &[OsString], has_directory: bool) {
    let base = Path::new(&arguments[0]);
    let text = |at: usize| arguments[at].to_str().expect("text").to_owned();
    let (tcp, other) = (text(1), Pid::from_raw(text(2).parse().expect("a number")));
    let own = base.join("own");
    let needs = Needs::find(|name| std::env::var_os(name), base);
    let process = PathBuf::from(format!("/proc/{}", std::process::id()));
    let _kept = File::open(&process).expect("itself");
    let read = [needs.read, vec![process]].concat();
    let bounds = Bounds {
        read: &read,
        list: &needs.list,
        devices: &needs.devices,
        ..Bounds::of(Calls::Drivers, has_directory.then_some(own.as_path()))
    };
    let report = confine(&bounds).expect("nothing unexpected");
    for (name, outcome) in report.rows() {
        println!("row {name}={outcome}");
    }
    check("has a directory", has_directory);
    try_files(base, other.expect("a process"));
    try_network(base, &tcp);
    for (name, program) in [
        ("start a shell", Path::new("/bin/sh").to_owned()),
        ("start its own program", base.join("program")),
    ] {
        say(name, Command::new(program).arg("-c").arg("true").status().map(drop));
    }
    let other = other.expect("a process");
    say("signal itself", kill_process(getpid(), Signal::CONT).map_err(Into::into));
    say("end another process", kill_process(other, Signal::TERM).map_err(Into::into));
    let taken = pidfd_open(other, PidfdFlags::empty()).map(drop);
    say("take hold of another process", taken.map_err(Into::into));
    try_threads(base);
}

fn try_files(base: &Path, other: Pid) {
    let loader = Path::new("/etc/ld.so.cache");
    say("read a library", fs::read(loader).map(drop));
    say("list devices", fs::read_dir("/sys/devices").map(drop));
    say("read memory figures", fs::read("/proc/meminfo").map(drop));
    say("read itself", fs::read("/proc/self/maps").map(drop));
    let null = File::options().write(true).open("/dev/null");
    say("write to the null device", null.and_then(|mut null| null.write_all(b"x")));
    say("read /etc/passwd", fs::read("/etc/passwd").map(drop));
    say("read the data", fs::read(base.join("other/secret")).map(drop));
    say("write the data", fs::write(base.join("other/secret"), "x"));
    say("list the data", fs::read_dir(base).map(drop));
    let memory = format!("/proc/{}/mem", other.as_raw_nonzero());
    say("read another process's memory", File::open(memory).map(drop));
    let own = base.join("own");
    say("write in the directory", write_and_read(&own.join("made")));
    say("read in the directory", fs::read(own.join("file")).map(drop));
    say("a link in the directory", std::os::unix::fs::symlink("/etc/passwd", own.join("link")));
}

fn try_network(base: &Path, tcp: &str) {
    let hidden = SocketAddr::from_abstract_name(abstract_name(base)).expect("a name");
    let tries = [
        TcpStream::connect(tcp).map(drop),
        TcpListener::bind("127.0.0.1:0").map(drop),
        UdpSocket::bind("127.0.0.1:0").map(drop),
        UnixStream::connect(base.join("listener")).map(drop),
        UnixStream::connect_addr(&hidden).map(drop),
        UnixListener::bind(base.join("own/socket")).map(drop),
        std::os::unix::net::UnixDatagram::pair().map(drop),
    ];
    for (name, became) in NETWORK.into_iter().zip(tries) {
        say(name, became);
    }
    say("make a pair for streams", UnixStream::pair().map(drop));
}

fn try_threads(base: &Path) {
    let secret = base.join("other/secret");
    let thread = std::thread::Builder::new().spawn(move || {
        say("read the data in a thread", fs::read(secret).map(drop));
    });
    say("start a thread", thread.and_then(|t| t.join().map_err(|_| io::Error::other("panic"))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let own = base.join("own");
    // Without a directory it writes nowhere, which the runtime says as it is.
    let served = runtime.block_on(serve_by_runtime(&own));
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let has_directory = fs::read(own.join("file")).is_ok();
    say(
        "serve by the runtime",
        served.or_else(
            |error| {
                if !has_directory && is_refused(&error) { Ok(()) } else { Err(error) }
            },
        ),
    );
    let memory = memfd_create("made", MemfdFlags::CLOEXEC).map(File::from);
    let made = memory.map_err(io::Error::from).and_then(|file| file.set_len(1 << 20));
    say("make a file in memory", made);
}
