//! Which way two nodes are linked: through memory if they are on one machine, else by TLS.
//!
//! - Nodes of a machine meet in a folder, each by a socket `<name>.sock`. Who finds nobody there
//!   that listens under the other's name takes the network.
//! - The sender says who it is and whom it wants, in the hello of `tls::wire`; the receiver answers
//!   one byte, 1 or why not. Then the ring is handed over, on the same socket.
//! - Trust is the user's: the folder is ours and nobody else may write to it, and each end asks the
//!   system whether the other runs as the same user, and refuses it if not. No certificate is
//!   shown, as a process of this user could read the node's key as well, and be it everywhere. A
//!   process that serves one tenant runs as this user too; it has no calls to connect by
//!   (`confine`).
//! - One process listens under a name: it holds the lock `<name>.lock`, which ends with it. What
//!   lies there without its holder is what a crash left.
//!
//! Keeps true: all of it is done within the handshake time, and no stranger is waited for by
//! anybody but the task that greets it.
//!
//! Leaves to the caller: whose names it takes links from, how many it greets at a time, and the
//! folders above that of the meeting.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, os::unix::net::SocketAddr};

use rustix::process::geteuid;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use crate::ends::Sender;
use crate::error::Error;
use crate::ring::{self, Limits, Offer, RingReceiver, RingSender};
use crate::tls::wire::{self, Hello};
use crate::tls::{self, Identity, NodeName};

const TAKEN: u8 = 1;
/// Why not, by the code of the answer less 2.
const REFUSALS: [&str; 4] = [
    "its version is older than our format",
    "our packets are larger than it takes",
    "it is not whom we want, or runs as another user",
    "it did not understand our hello",
];

/// Rights of the folder, if it is made here.
const FOLDER_MODE: u32 = 0o700;
/// Rights of the files in it.
const FILE_MODE: u32 = 0o600;
/// Those that let others change what is in a folder.
const OTHERS_WRITE: u32 = 0o022;

/// Which way a link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Through memory that both processes have.
    Ring,
    /// Over the network.
    Network,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Network => "network",
        })
    }
}

/// What a sender asks for, whichever way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Of a ring.
    pub ring: Offer,
    /// Of the network.
    pub tls: tls::Settings,
}

/// Begins a link to the node of this name: through memory if it is met there, else by TLS on a
/// connection, which is made only then.
///
/// # Errors
/// The settings, the system, that the other end cannot show who it is, or what it answers. A node
/// that is met and then refuses is not tried by the other way.
pub async fn connect(
    meeting: Option<&Meeting>,
    socket: impl Future<Output = Result<TcpStream, Error>>,
    identity: &Identity,
    to: &NodeName,
    settings: Settings,
) -> Result<(Class, Box<dyn Sender>), Error> {
    if let Some(meeting) = meeting
        && let Some(sender) = meeting.connect(identity.name(), to, settings.ring).await?
    {
        return Ok((Class::Ring, Box::new(sender)));
    }
    let sender = tls::connect(socket.await?, identity, to, settings.tls).await?;
    Ok((Class::Network, Box::new(sender)))
}

/// A folder in which nodes of one machine meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    dir: PathBuf,
}

impl Meeting {
    /// The one in this folder, which is made if it is not there, for this user alone.
    ///
    /// # Errors
    /// [`Error::Setting`]: it is no folder, another user's, or others may write to it; the system.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let dir = dir.into();
        match DirBuilder::new().mode(FOLDER_MODE).create(&dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io("make the folder")(error));
            }
            _ => {}
        }
        // Of the name itself: what a link of the file system points at is for others to change.
        let found = fs::symlink_metadata(&dir).map_err(Error::io("look at the folder"))?;
        let what = if !found.is_dir() {
            "nodes meet in a folder, and it is none"
        } else if found.uid() != geteuid().as_raw() {
            "the folder where nodes meet is another user's"
        } else if found.mode() & OTHERS_WRITE != 0 {
            "others may write to the folder where nodes meet"
        } else {
            return Ok(Self { dir });
        };
        Err(Error::Setting { what })
    }

    /// Listens as the node of this name, until what this gives is dropped. In a runtime that drives
    /// sockets.
    ///
    /// # Errors
    /// [`Error::Setting`]: somebody listens under it, or folder and name are too long; the system.
    pub fn listen(&self, own: &NodeName) -> Result<RingListener, Error> {
        let path = self.path(own, "sock");
        if !is_short(&path) {
            let what = "a node that is met on one machine has a shorter name, or a shorter folder";
            return Err(Error::Setting { what });
        }
        let lock = take_lock(&self.path(own, "lock"))?;
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path).map_err(Error::io("listen at the socket"))?;
        // From here on it goes with the rest, also if the next step fails.
        let listener = RingListener { listener, path, _lock: lock };
        fs::set_permissions(&listener.path, Permissions::from_mode(FILE_MODE))
            .map_err(Error::io("set the rights of the socket"))?;
        Ok(listener)
    }

    /// Begins a link to the node of this name. `None` if nobody on this machine listens under it.
    ///
    /// # Errors
    /// The settings, the system, that it is another user's, or what it answers.
    pub async fn connect(
        &self,
        own: &NodeName,
        to: &NodeName,
        offer: Offer,
    ) -> Result<Option<RingSender>, Error> {
        offer.sizes.check()?;
        let path = self.path(to, "sock");
        in_time(offer.handshake_time_max, "greeting it", async {
            // Nobody can listen at a name that is too long.
            if !is_short(&path) {
                return Ok(None);
            }
            let mut socket = match UnixStream::connect(&path).await {
                Ok(socket) => socket,
                Err(error) if is_nobody(&error) => return Ok(None),
                Err(error) => return Err(Error::io("connect to the socket")(error)),
            };
            is_same_user(&socket)?;
            let packet_bytes_max = offer.sizes.packet_bytes_max as u64;
            let hello = Hello { from: own.clone(), to: to.clone(), packet_bytes_max };
            wire::write(&mut socket, &hello.encode()).await?;
            let answer = socket.read_u8().await.map_err(Error::io("read the answer"))?;
            understand(answer)?;
            let socket = blocking(socket)?;
            ring::offer(socket, offer).await.map(Some)
        })
        .await
    }

    fn path(&self, node: &NodeName, ending: &str) -> PathBuf {
        self.dir.join(format!("{node}.{ending}"))
    }
}

/// The socket of a node by which others of its machine reach it. Removed when it is dropped.
#[derive(Debug)]
pub struct RingListener {
    listener: UnixListener,
    path: PathBuf,
    /// Held until the socket is removed, so that what is removed is this one.
    _lock: File,
}

impl RingListener {
    /// The next that connects; who it is tells [`greet`], for which others need not wait.
    ///
    /// # Errors
    /// The system has no file for it. The caller waits a while before it asks again.
    pub async fn accept_socket(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for RingListener {
    fn drop(&mut self) {
        // One that is gone already, or stays, is found to be nobody's.
        drop(fs::remove_file(&self.path));
    }
}

/// Takes a link from whoever connected. Gives the name that it says.
///
/// # Errors
/// The system, that it is another user's or wants another node, or what is wrong with its offer;
/// the other end is told that it was not taken.
pub async fn greet(
    mut socket: UnixStream,
    own: &NodeName,
    limits: Limits,
) -> Result<(NodeName, RingReceiver), Error> {
    in_time(limits.handshake_time_max, "its greeting", async {
        let checked = hear(&mut socket, own, &limits).await;
        let answered = wire::write(&mut socket, &[answer_to(checked.as_ref().err())]).await;
        let from = checked?;
        answered?;
        let receiver = ring::accept(blocking(socket)?, limits).await?;
        Ok((from, receiver))
    })
    .await
}

/// Who it is, if it may be.
async fn hear(socket: &mut UnixStream, own: &NodeName, limits: &Limits) -> Result<NodeName, Error> {
    is_same_user(socket)?;
    let hello = Hello::read(socket).await?;
    hello.fits(own, limits.packet_bytes_max)?;
    Ok(hello.from)
}

fn answer_to(error: Option<&Error>) -> u8 {
    match error {
        None => TAKEN,
        Some(Error::FormatNewer { .. }) => 2,
        Some(Error::TooLarge { .. }) => 3,
        Some(Error::Peer { .. }) => 4,
        Some(_) => 5,
    }
}

fn understand(answer: u8) -> Result<(), Error> {
    match (answer, REFUSALS.get(usize::from(answer).wrapping_sub(2))) {
        (TAKEN, _) => Ok(()),
        (_, Some(why)) => Err(Error::Refused { why }),
        (_, None) => Err(Error::Garbage { what: "an answer that does not exist" }),
    }
}

/// Refuses a process that does not run as the user that this one does.
fn is_same_user(socket: &UnixStream) -> Result<(), Error> {
    let other = socket.peer_cred().map_err(Error::io("ask who is at the socket"))?;
    let (other, own) = (other.uid(), geteuid().as_raw());
    if other == own {
        return Ok(());
    }
    Err(Error::Peer { why: format!("it runs as user {other}, this node as {own}") })
}

/// Whether nobody listens there.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// Whether the system has room for it in the address of a socket.
fn is_short(path: &Path) -> bool {
    SocketAddr::from_pathname(path).is_ok()
}

/// The right to listen, which ends with the process at the latest.
fn take_lock(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    let lock = options.open(path).map_err(Error::io("open the lock of the socket"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let what = "another process listens as the node of this name on this machine";
            Err(Error::Setting { what })
        }
        Err(TryLockError::Error(error)) => Err(Error::io("take the lock of the socket")(error)),
    }
}

/// Removes the socket that a crash left. Nothing else is removed.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = || Error::io("remove the old socket");
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed()),
        Ok(_) => Err(Error::Setting { what: "something lies where the socket of the node goes" }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed()(error)),
    }
}

/// The socket as the ring's handover takes it.
fn blocking(socket: UnixStream) -> Result<std::os::unix::net::UnixStream, Error> {
    socket.into_std().map_err(Error::io("set the socket"))
}

async fn in_time<T>(
    time_max: Duration,
    doing: &'static str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(time_max, future).await.unwrap_or(Err(Error::Timeout { doing }))
}

#[cfg(test)]
mod tests;
