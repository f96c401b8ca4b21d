//! Machines as far as the network goes: network namespaces of the kernel, on one bridge.
//!
//! ```text
//!   a 198.18.0.1      b 198.18.0.2      c 198.18.0.3
//!        └────────────────┴───── bridge ─────┘
//!                       the test, 198.18.0.254
//! ```
//!
//! - Each machine has interfaces, routes and a loopback of its own: what is started with
//!   [`Network::within`] reaches nobody but by its one interface, and [`Lan::run`] runs a test at
//!   the bridge, which nothing here cuts off.
//! - A way can be cut in one direction: packets vanish, and nobody is told. Nothing but `ip` and
//!   `tc` is needed (iproute2), and root.
//! - Nothing is left behind. The networks have names only while they are made; what holds them is
//!   this process and those it started in them, so that they go with the last of these, also if a
//!   test is killed. So any number of them may be there at once, with the same addresses.
//!
//! Where networks cannot be made a test says why and checks nothing; in automation (`CI`) it fails.

use std::fs::File;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the system keeps those that have a name.
const NAMED: &str = "/run/netns";

/// Its one interface, on every machine.
const INTERFACE: &str = "eth0";

/// That of the test, and what joins the machines.
const BRIDGE: &str = "bridge";

/// An address of hardware that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// See the module.
#[derive(Debug)]
pub struct Lan {
    bridge: Network,
    machines: Vec<(&'static str, Arc<Network>)>,
}

/// One network of its own.
#[derive(Debug)]
pub struct Network {
    file: File,
    interface: &'static str,
    address: Ipv4Addr,
}

/// Bytes and packets that came to a machine and left it, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes that came, heads of packets included.
    pub bytes_in: u64,
    /// Bytes that left.
    pub bytes_out: u64,
    /// Packets that left.
    pub packets_out: u64,
}

impl Lan {
    /// With machines of these names. None where that cannot be, which is said.
    ///
    /// # Panics
    /// In automation it has to be. Anywhere: it goes wrong half-way.
    #[must_use]
    pub fn of(names: &[&'static str]) -> Option<Arc<Self>> {
        let made = Named::new(0).map(|bridge| Self::join(bridge, names));
        match made {
            Ok(lan) => Some(Arc::new(lan)),
            Err(why) => {
                let why = format!("no networks can be made for this test: {why}");
                assert!(!in_automation(), "{why}");
                say(&why);
                None
            }
        }
    }

    fn join(bridge: Named, names: &[&'static str]) -> Self {
        assert!(names.len() < 200, "one address for each");
        let own = Ipv4Addr::new(198, 18, 0, 254);
        bridge.ip(&["link", "add", "name", BRIDGE, "type", "bridge"]);
        bridge.ip(&["addr", "add", &format!("{own}/24"), "dev", BRIDGE]);
        bridge.ip(&["link", "set", BRIDGE, "up"]);
        bridge.ip(&["link", "set", "lo", "up"]);
        let mut machines = Vec::new();
        for (number, name) in (1..).zip(names) {
            let machine = Named::new(number).expect("one more than the first");
            let veth = ["link", "add", "name", name, "type", "veth", "peer", "name", INTERFACE];
            bridge.ip(&[&veth[..], &["netns", &machine.name]].concat());
            bridge.ip(&["link", "set", "dev", name, "master", BRIDGE, "up"]);
            let address = Ipv4Addr::new(198, 18, 0, number);
            machine.ip(&["addr", "add", &format!("{address}/24"), "dev", INTERFACE]);
            machine.ip(&["link", "set", INTERFACE, "up"]);
            machine.ip(&["link", "set", "lo", "up"]);
            machines.push((*name, Arc::new(machine.open(INTERFACE, address))));
        }
        Self { bridge: bridge.open(BRIDGE, own), machines }
    }

    /// Runs a test at the bridge, from where all machines are reached: every connection that it
    /// makes comes from there.
    ///
    /// # Panics
    /// As the test does.
    pub fn run<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send) {
        self.bridge.within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test());
        });
    }

    /// A machine.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn machine(&self, name: &str) -> &Arc<Network> {
        let found = self.machines.iter().find(|(known, _)| *known == name);
        &found.unwrap_or_else(|| panic!("no machine {name}")).1
    }

    /// Where the test is: what it has carried is what machines and the test sent each other.
    #[must_use]
    pub fn bridge(&self) -> &Network {
        &self.bridge
    }

    /// From now on packets from one machine to another are lost; those the other way come through.
    pub fn cut(&self, from: &str, to: &str) {
        let to = self.machine(to).address.to_string();
        let lost = ["neigh", "replace", &to, "lladdr", NOBODY, "dev", INTERFACE];
        self.machine(from).ip(&[&lost[..], &["nud", "permanent"]].concat());
    }

    /// Packets come through again.
    pub fn heal(&self, from: &str, to: &str) {
        let to = self.machine(to).address.to_string();
        self.machine(from).ip(&["neigh", "del", &to, "dev", INTERFACE]);
    }

    /// From now on what leaves a machine is sent at this rate (`8mbit`), after having waited for at
    /// most `wait` (`50ms`); what would wait longer is lost.
    pub fn narrow(&self, machine: &str, rate: &str, wait: &str) {
        let bucket = ["qdisc", "replace", "dev", INTERFACE, "root", "tbf", "rate", rate];
        let more = ["burst", "32kb", "latency", wait];
        self.machine(machine).within(|| run("tc", &[&bucket[..], &more].concat()));
    }
}

impl Network {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Does something in it: processes that are started are in it for good, and so are sockets.
    ///
    /// # Panics
    /// As `what` does.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        // Of a thread, and inherited by what it starts; so one that does nothing else.
        let thread = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.file.as_fd(), kind).expect("it is there while we are");
            what()
        };
        std::thread::scope(|scope| {
            scope.spawn(thread).join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// What it has carried so far.
    ///
    /// # Panics
    /// The system does not say it as it used to.
    #[must_use]
    pub fn carried(&self) -> Carried {
        let mut text = String::new();
        self.within(|| {
            let file = File::open("/proc/thread-self/net/dev");
            file.and_then(|mut file| file.read_to_string(&mut text)).expect("the system tells");
        });
        let name = format!("{}:", self.interface);
        let row = text.lines().find_map(|line| line.trim().strip_prefix(&name));
        let row = row.unwrap_or_else(|| panic!("no {name} in {text}"));
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let columns: Vec<u64> = row.split_ascii_whitespace().map(number).collect();
        Carried { bytes_in: columns[0], bytes_out: columns[8], packets_out: columns[9] }
    }

    fn ip(&self, words: &[&str]) {
        self.within(|| run("ip", words));
    }
}

/// A network with a name, under which the others' ends of wires are put into it.
struct Named {
    name: String,
}

impl Named {
    fn new(number: u8) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluicebox-{}-{next}-{number}", std::process::id());
        let added = try_to_run("ip", &["netns", "add", &name]);
        added.map_err(|why| format!("{why}; it takes root, with the right to do so"))?;
        Ok(Self { name })
    }

    fn ip(&self, words: &[&str]) {
        run("ip", &[&["-n", &self.name], words].concat());
    }

    /// From here on it is held by the file, and needs no name.
    fn open(self, interface: &'static str, address: Ipv4Addr) -> Network {
        let file = File::open(format!("{NAMED}/{}", self.name)).expect("it was made");
        Network { file, interface, address }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // A name that stays is one too many, and says whose it was.
        drop(try_to_run("ip", &["netns", "del", &self.name]));
    }
}

fn run(program: &str, words: &[&str]) {
    try_to_run(program, words).unwrap_or_else(|why| panic!("{why}"));
}

fn try_to_run(program: &str, words: &[&str]) -> Result<(), String> {
    let line = format!("{program} {}", words.join(" "));
    let done = Command::new(program).args(words).output();
    let done = done.map_err(|error| format!("`{line}`: {error}; install iproute2"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(format!("`{line}`: {}", said.trim()))
}

fn in_automation() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

#[expect(clippy::print_stderr, reason = "the test harness shows it with what the test says")]
fn say(why: &str) {
    eprintln!("{why}");
}
