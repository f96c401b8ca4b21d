//! The process that locks itself in, and the parts of those it deals with.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, UnshareFlags};
use sluicebox_confine::{Bounds, Calls, confine};
use sluicebox_core::error::Classify;

use crate::drivers;

/// The variable that says which part a process plays.
pub(crate) const PART: &str = "SLUICEBOX_CONFINE_TEST_PART";

const MEMORY_BYTES_MAX: u64 = 256 << 20;
const OPEN_FILES_MAX: u64 = 64;

/// The part of this process, if it has one.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// A name that only this run has.
pub(crate) fn abstract_name(base: &Path) -> Vec<u8> {
    base.as_os_str().as_encoded_bytes().to_vec()
}

/// Plays it.
pub(crate) fn play(part: &str) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match part {
        "locked in" => locked_in(&arguments),
        "drivers" => drivers::held_in(&arguments, true),
        "drivers without a directory" => drivers::held_in(&arguments, false),
        "within" => within(Path::new(&arguments[0])),
        "two threads" => two_threads(Path::new(&arguments[0])),
        "no directory" => no_directory(Path::new(&arguments[0])),
        // Until it is killed, or who holds the pipe ends.
        "wait" => drop(io::stdin().read(&mut [0])),
        other => panic!("no part {other}"),
    }
    ExitCode::SUCCESS
}

pub(crate) fn say(name: &str, result: io::Result<()>) {
    let errno = |error: &io::Error| Errno::from_io_error(error).map(name_of);
    let became = match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => errno(&error).unwrap_or_else(|| error.to_string()),
    };
    println!("try {name}={became}");
}

fn name_of(errno: Errno) -> String {
    let name = match errno {
        Errno::PERM => "EPERM",
        Errno::ACCESS => "EACCES",
        Errno::XDEV => "EXDEV",
        Errno::MFILE => "EMFILE",
        Errno::INVAL => "EINVAL",
        Errno::NOSYS => "ENOSYS",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}

pub(crate) fn check(name: &str, holds: bool) {
    say(name, if holds { Ok(()) } else { Err(io::Error::other("it does not hold")) });
}

/// What the test binary needs to start: itself and the system's libraries.
fn bounds<'a>(directory: &'a Path, read: &'a [PathBuf], execute: &'a [PathBuf]) -> Bounds<'a> {
    Bounds {
        read,
        execute,
        memory_bytes_max: Some(MEMORY_BYTES_MAX),
        open_files_max: OPEN_FILES_MAX,
        ..Bounds::of(Calls::Node, Some(directory))
    }
}

fn libraries() -> Vec<PathBuf> {
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].map(PathBuf::from).to_vec()
}

/// Says why the process could not lock itself in.
fn say_error(directory: &Path) {
    let error = confine(&bounds(directory, &[], &[])).expect_err("it cannot be");
    print!("{}: {error}", error.code());
}

fn two_threads(base: &Path) {
    let (end, wait) = std::sync::mpsc::sync_channel::<()>(0);
    let thread = std::thread::spawn(move || wait.recv());
    say_error(base);
    drop(end);
    thread.join().expect("a thread").expect_err("the end");
}

fn no_directory(base: &Path) {
    say_error(&base.join("missing"));
}

fn locked_in(arguments: &[OsString]) {
    let base = Path::new(&arguments[0]);
    let text = |at: usize| arguments[at].to_str().expect("text").to_owned();
    let (tcp, other) = (text(1), text(2).parse().expect("a number"));
    let early = Early::open(base);
    let read = [base.join("granted"), base.join("missing")];
    let execute = [vec![base.join("program")], libraries()].concat();
    let own = base.join("own");
    let report = confine(&bounds(&own, &read, &execute)).expect("nothing unexpected");
    for (name, outcome) in report.rows() {
        println!("row {name}={outcome}");
    }
    elsewhere(base, &early);
    at_home(&own).expect("a file that can be made");
    sockets(base, &tcp, early);
    processes(base, Pid::from_raw(other).expect("a process"));
    rights();
    threads(&own, &tcp);
    programs(base, &tcp);
    // At the end: there is no room for anything after.
    resources();
}

/// What the process has open from before.
struct Early {
    socket: OwnedFd,
    path: OwnedFd,
}

impl Early {
    fn open(base: &Path) -> Self {
        use rustix::fs::{Mode, OFlags, open};
        use rustix::net::{AddressFamily, SocketType, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let path = open(base.join("other/secret"), flags, Mode::empty()).expect("a file");
        Self { socket, path }
    }
}

/// All that is not in the own directory.
fn elsewhere(base: &Path, early: &Early) {
    let read = |name: &str, path: PathBuf| say(name, fs::read(path).map(drop));
    read("read a file that is granted", base.join("granted"));
    read("read /etc/passwd", "/etc/passwd".into());
    read("read a file of another tenant", base.join("other/secret"));
    read("read by ..", base.join("own/within/../../other/secret"));
    read("read by a symbolic link", base.join("own/way-out"));
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&early.path);
    read("read what was opened as a path", format!("/proc/self/fd/{descriptor}").into());
    let secret = base.join("other/secret");
    say("list the directory of another tenant", fs::read_dir(base.join("other")).map(drop));
    let append = |path| OpenOptions::new().append(true).open(path).map(drop);
    say("write a file that may be read", append(base.join("granted")));
    say("overwrite a file of another tenant", append(secret.clone()));
    say("make a file elsewhere", File::create(base.join("other/new")).map(drop));
    say("link a file in", fs::hard_link(&secret, base.join("own/taken")));
    say("move a file out", fs::rename(base.join("own/file"), base.join("other/given")));
    say("move a file in", fs::rename(&secret, base.join("own/taken")));
    say("remove a file of another tenant", fs::remove_file(&secret));
    let open = fs::Permissions::from_mode(0o666);
    say("change the mode elsewhere", fs::set_permissions(&secret, open));
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    let flags = rustix::fs::AtFlags::empty();
    let changed = rustix::fs::utimensat(rustix::fs::CWD, &secret, &times, flags);
    say("change the times elsewhere", changed.map_err(Into::into));
}

/// All that the store and the log do in the own directory, and what nobody may there.
fn at_home(own: &Path) -> io::Result<()> {
    let (path, moved) = (own.join("new"), own.join("a/b/new"));
    say("make, write and read", write_and_read(&path));
    say("make directories", fs::create_dir_all(own.join("a/b")));
    say("move between directories", fs::rename(&path, &moved));
    say("link within", fs::hard_link(&moved, own.join("second")));
    let file = OpenOptions::new().read(true).append(true).open(&moved)?;
    let reserve = || rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 9000);
    let sized = file.set_len(5000).and_then(|()| file.set_len(1)).and_then(|()| Ok(reserve()?));
    say("lengthen, shorten, reserve", sized);
    say("lock", file.lock().and_then(|()| file.unlock()));
    say("sync", file.sync_data().and_then(|()| File::open(own)?.sync_all()));
    let times = FileTimes::new().set_modified(SystemTime::now());
    say("set the times of an open file", file.set_times(times));
    say("list", fs::read_dir(own).map(drop));
    let removed = fs::remove_dir_all(own.join("a"));
    say("remove", removed.and_then(|()| fs::remove_file(own.join("second"))));
    say("make a symbolic link", symlink("/", own.join("link")));
    let device = rustix::fs::mknodat(
        rustix::fs::CWD,
        own.join("device"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    );
    say("make a device", device.map_err(Into::into));
    let mode = fs::Permissions::from_mode(0o4755);
    say("change the mode", fs::set_permissions(own.join("file"), mode));
    say("change the owner", chown(own.join("file"), None, Some(0)));
    say("execute in the own directory", Command::new(own.join("program")).status().map(drop));
    Ok(())
}

pub(crate) fn write_and_read(path: &Path) -> io::Result<()> {
    fs::write(path, "text")?;
    let read = fs::read_to_string(path)?;
    if read == "text" { Ok(()) } else { Err(io::Error::other("other text")) }
}

fn sockets(base: &Path, tcp: &str, early: Early) {
    say("connect by TCP", TcpStream::connect(tcp).map(drop));
    say("listen by TCP", TcpListener::bind("127.0.0.1:0").map(drop));
    say("bind UDP", UdpSocket::bind("127.0.0.1:0").map(drop));
    let address: std::net::SocketAddr = tcp.parse().expect("an address");
    let bound: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let result = rustix::net::bind(&early.socket, &bound);
    say("bind a socket that was open", result.map_err(Into::into));
    let result = rustix::net::connect(&early.socket, &address);
    say("connect a socket that was open", result.map_err(Into::into));
    say("connect to a socket by path", UnixStream::connect(base.join("listener")).map(drop));
    let hidden = SocketAddr::from_abstract_name(abstract_name(base)).expect("a name");
    say("connect to an abstract socket", UnixStream::connect_addr(&hidden).map(drop));
    say("listen at a path", UnixListener::bind(base.join("own/socket")).map(drop));
    say("make a socket for datagrams", UnixDatagram::unbound().map(drop));
    say("make a pair for datagrams", UnixDatagram::pair().map(drop));
    say("make a pair for streams", UnixStream::pair().map(drop));
    let network = fs::read_link("/proc/self/ns/net");
    println!(
        "try which network={}",
        network.map_or_else(|e| e.to_string(), |p| p.display().to_string())
    );
    say("accept and answer", serve());
}

fn serve() -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (mut stream, _) = listener.accept()?;
    let mut asked = [0; 4];
    stream.read_exact(&mut asked)?;
    stream.write_all(if &asked == b"ping" { b"pong" } else { b"what" })
}

fn rights() {
    no_capabilities("");
    use rustix::process::{DumpableBehavior, dumpable_behavior, getrlimit};
    check("not dumpable", dumpable_behavior() == Ok(DumpableBehavior::NotDumpable));
    let core = getrlimit(Resource::Core);
    check("no core file", core.current <= Some(1) && core.maximum <= Some(1));
    let free = |flags| unshare(flags).map_err(Into::into);
    say("make a network", free(UnshareFlags::NEWNET));
    say("make a user space", free(UnshareFlags::NEWUSER));
    say("change the root", rustix::process::chroot("/").map_err(Into::into));
}

#[expect(deprecated, reason = "unsound only where it separates open files")]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}

fn no_capabilities(place: &str) {
    let sets = rustix::thread::capabilities(None).expect("they can be asked");
    let held = sets.effective | sets.permitted | sets.inheritable;
    check(&format!("{place}no capabilities"), held.is_empty());
    let bounding = |number: u32| {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::capability_is_in_bounding_set(capability) == Ok(true)
    };
    check(&format!("{place}no bounding set"), !(0..64).any(bounding));
}

fn processes(base: &Path, other: Pid) {
    use rustix::process::{kill_process, pidfd_getfd, pidfd_open, prlimit, setpriority_process};
    let limit = Rlimit { current: Some(8), maximum: Some(8) };
    let limited = prlimit(Some(other), Resource::Nofile, limit).map(drop);
    say("limit another process", limited.map_err(Into::into));
    say("slow another process", setpriority_process(Some(other), 19).map_err(Into::into));
    let taken = pidfd_open(other, PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, 0, PidfdGetfdFlags::empty()));
    say("take a descriptor", taken.map(drop).map_err(Into::into));
    let memory = format!("/proc/{}/mem", other.as_raw_nonzero());
    say("read another process's memory", File::open(memory).map(drop));
    // After the others, which would find nobody if it worked.
    say("end another process", kill_process(other, Signal::TERM).map_err(Into::into));
    let mut child = start(base, "wait", &[]).spawn().expect("a program");
    let killed = child.kill();
    // Ends it where it could not be killed.
    drop(child.stdin.take());
    say("kill the program", killed.and_then(|()| child.wait()).map(drop));
}

fn start(base: &Path, part: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(base.join("program"));
    command.env(PART, part).arg(base).args(arguments);
    command.stdin(Stdio::piped());
    command
}

fn threads(own: &Path, tcp: &str) {
    let tcp = tcp.to_owned();
    let thread = std::thread::Builder::new().spawn(move || {
        say("read /etc/passwd in a thread", fs::read("/etc/passwd").map(drop));
        say("connect by TCP in a thread", TcpStream::connect(tcp).map(drop));
    });
    say("start a thread", thread.and_then(|t| t.join().map_err(|_| io::Error::other("panic"))));
    let base = own.parent().expect("a directory above");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime.inspect_err(|error| println!("no runtime: {error}")) else { return };
    say("serve by the runtime", runtime.block_on(serve_by_runtime(own)));
    say("kill a program of the runtime", runtime.block_on(kill_by_runtime(base)));
}

pub(crate) async fn serve_by_runtime(own: &Path) -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut here, mut there) = tokio::net::UnixStream::pair()?;
    here.write_all(b"ping").await?;
    there.read_exact(&mut [0; 4]).await?;
    tokio::fs::write(own.join("by-runtime"), "text").await?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(())
}

async fn kill_by_runtime(base: &Path) -> io::Result<()> {
    let mut child = tokio::process::Command::from(start(base, "wait", &[])).spawn()?;
    child.kill().await?;
    Ok(())
}

fn programs(base: &Path, tcp: &str) {
    let output = start(base, "within", &[tcp]).stderr(Stdio::inherit()).output();
    let said = output.and_then(|output| {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        if output.status.success() { Ok(()) } else { Err(io::Error::other("it failed")) }
    });
    say("start the own program", said);
}

/// The program that the process started: bound by nothing but what it inherited.
fn within(base: &Path) {
    let tcp = std::env::args().nth(2).expect("an address");
    let own = base.join("own");
    say("in the program: make, write and read", write_and_read(&own.join("inner")));
    say("in the program: read /etc/passwd", fs::read("/etc/passwd").map(drop));
    say("in the program: connect by TCP", TcpStream::connect(tcp).map(drop));
    no_capabilities("in the program: ");
    let narrower = own.join("within");
    let further = confine(&bounds(&narrower, &[], &[])).map(drop);
    say("in the program: lock in further", further.map_err(io::Error::other));
    say("in the program: then make a file", File::create(own.join("later")).map(drop));
}

fn resources() {
    let half = usize::try_from(MEMORY_BYTES_MAX / 2).expect("a size");
    let room = |bytes| {
        let mut room: Vec<u8> = Vec::new();
        let got = room.try_reserve_exact(bytes);
        got.map_err(|_| io::Error::other("memory"))
    };
    say("use half of the memory", room(half));
    say("use twice the memory", room(half * 4));
    let limit = Rlimit { current: None, maximum: None };
    let raised = rustix::process::setrlimit(Resource::Data, limit);
    say("raise the limit", raised.map_err(Into::into));
    let many = (0..=OPEN_FILES_MAX).map(|_| File::open("/dev/null")).collect::<Result<Vec<_>, _>>();
    say("open too many files", many.map(drop));
}
