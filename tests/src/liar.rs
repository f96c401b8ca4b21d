//! A node that was taken over, played by a test: it has a certificate of the cluster, and says
//! whatever it likes by links, over the network and through memory.
//!
//! Leaves to others: questions (`peer`), and what is said (the tests).

use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::pwrite;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sluicebox_core::message::Message;
use sluicebox_link::Outgoing;
use sluicebox_link::tls::wire::Hello;
use sluicebox_link::tls::{Identity, NodeName, Settings, connect};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::Cluster;
use crate::eventually::SOON;

/// What is spoken on a link, as both ends say in the handshake.
const LINK: &[u8] = b"sluicebox-link";

/// Bytes of the largest packet.
const PACKET_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// How long a node may take to end a link that it does not want.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A node that does not end a link for so long listens on.
const LISTENS: Duration = Duration::from_millis(300);

/// Where a ring's head is, and its data (docs/format/ring.md).
const HEAD: u64 = 128;
const DATA: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub struct Liar {
    name: NodeName,
    identity: Identity,
    config: Arc<ClientConfig>,
}

impl Liar {
    /// With the certificate that a cluster has for this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn of(cluster: &Cluster, name: &str) -> Self {
        let read = |file: &str| std::fs::read(cluster.file(file)).expect("it was made");
        let (own, key) = (read(&format!("{name}.crt")), read(&format!("{name}.key")));
        let authority = read("authority.crt");
        let name = NodeName::new(name).expect("a name");
        let identity = Identity::from_pem(name.clone(), &own, &key, &authority);
        let chain = CertificateDer::pem_slice_iter(&own).map(|one| one.expect("it is PEM"));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority).expect("PEM")).expect("one");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(
                chain.collect(),
                PrivateKeyDer::from_pem_slice(&key).expect("PEM"),
            )
            .expect("they belong together");
        config.alpn_protocols = vec![LINK.to_vec()];
        let identity = identity.expect("what was made can be used");
        Self { name, identity, config: Arc::new(config) }
    }

    /// A link as any node makes it.
    pub async fn link(&self, (name, address): (&str, SocketAddr)) -> Option<Outgoing> {
        let socket = TcpStream::connect(address).await.ok()?;
        let to = NodeName::new(name).expect("a name");
        let sender = connect(socket, &self.identity, &to, Settings::default()).await.ok()?;
        Some(Outgoing::new(Box::new(sender)).expect("packets have room"))
    }

    /// Says this on a link of its own. True if the node has ended it by itself, and in time; false
    /// if it listens on.
    pub async fn says(&self, to: (&str, SocketAddr), Said(head, frame): &Said) -> bool {
        let Some(mut link) = self.link(to).await else { return true };
        let sent = link.send(&[&head[..], &frame[..]]).await;
        sent.is_err() || tokio::time::timeout(LISTENS, link.end()).await.is_ok()
    }

    /// Says this on a link of its own, whatever the node makes of it, as soon as it has come there.
    pub async fn drops(&self, to: (&str, SocketAddr), Said(head, frame): &Said) {
        let Some(mut link) = self.link(to).await else { return };
        if link.send(&[&head[..], &frame[..]]).await.is_ok() {
            drop(tokio::time::timeout(SOON, link.close()).await);
        }
    }

    /// The connection under a link, for what no link says.
    pub async fn wire(&self, (name, address): (&str, SocketAddr)) -> Option<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(address).await.ok()?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(self.config.clone()).connect(name, socket).await.ok()
    }

    /// How a link begins on such a connection.
    #[must_use]
    pub fn hello(&self, to: &str) -> Vec<u8> {
        let to = NodeName::new(to).expect("a name");
        let packet_bytes_max = PACKET_BYTES_MAX as u64;
        Hello { from: self.name.clone(), to, packet_bytes_max }.encode()
    }

    /// The socket of a node of this machine, which has said that it takes a ring.
    ///
    /// # Panics
    /// If it does not take one.
    #[must_use]
    pub fn meet(&self, folder: &Path, to: &str) -> UnixStream {
        let mut socket = UnixStream::connect(folder.join(format!("{to}.sock"))).expect("it is met");
        socket.set_read_timeout(Some(SOON)).expect("a socket of ours");
        socket.write_all(&self.hello(to)).expect("it reads");
        let mut answer = [0];
        socket.read_exact(&mut answer).expect("it answers");
        assert_eq!(answer, [1], "it takes a link of a node");
        socket
    }
}

/// A message, as it goes over a link.
#[derive(Debug, Clone)]
pub struct Said(pub Vec<u8>, pub Bytes);

impl Said {
    /// What a node may say.
    #[must_use]
    pub fn of(message: &Message<'_>) -> Self {
        let mut head = Vec::new();
        message.encode_head(&mut head);
        Self(head, Bytes::copy_from_slice(message.frame()))
    }

    /// Anything.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec(), Bytes::new())
    }
}

/// Memory that is handed over as a ring, and that this end goes on writing to.
#[derive(Debug)]
pub struct Memory {
    file: OwnedFd,
    ring_bytes: u64,
    head: u64,
}

impl Memory {
    /// As a ring has it, with so many bytes of data and these seals.
    ///
    /// # Panics
    /// The system has none.
    #[must_use]
    pub fn new(ring_bytes: u64, seals: SealFlags) -> Self {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("lies", flags).expect("there is memory");
        ftruncate(&file, DATA + ring_bytes).expect("there is memory");
        fcntl_add_seals(&file, seals).expect("it is not sealed");
        let memory = Self { file, ring_bytes, head: 0 };
        let version = 1 | 1 << 16 | DATA << 32;
        let words = [u64::from_le_bytes(*b"SBXRNG\r\n"), version, ring_bytes, ring_bytes / 4];
        for (at, word) in (0..).zip(words) {
            memory.write(at * 8, word);
        }
        memory
    }

    /// Sealed as a ring is.
    #[must_use]
    pub fn sealed(ring_bytes: u64) -> Self {
        Self::new(ring_bytes, SealFlags::SHRINK | SealFlags::GROW)
    }

    /// Changes how large it is, if that can be.
    pub fn resize(&self, bytes: u64) -> bool {
        ftruncate(&self.file, bytes).is_ok()
    }

    /// Writes a word anywhere.
    pub fn write(&self, at: u64, word: u64) {
        // Behind the end of memory that is sealed there is nothing.
        let _written = pwrite(&self.file, &word.to_ne_bytes(), at);
    }

    /// Puts a packet, as a writer does. At most what the ring holds; nobody looks whether there is
    /// room.
    pub fn put(&mut self, packet: &[u8]) {
        let mut words = vec![0x5AC4_E77B << 32 | packet.len() as u64];
        words.extend(packet.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        }));
        for word in words {
            self.write(DATA + self.head % self.ring_bytes, word);
            self.head += 8;
        }
        self.write(HEAD, self.head);
    }

    /// Hands it over on a socket of a node that waits for it. The node's answer; none if it closed.
    ///
    /// # Panics
    /// If it does neither in time.
    pub fn hand_over(&self, socket: &mut UnixStream) -> Option<u8> {
        hand_over(socket, b"SBXRNG\r\n", &[self.file.as_fd()])
    }
}

/// Hands over any files with any words. The node's answer; none if it closed.
///
/// # Panics
/// If it does neither in time.
pub fn hand_over(
    socket: &mut UnixStream,
    words: &[u8],
    files: &[std::os::fd::BorrowedFd<'_>],
) -> Option<u8> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(files)), "there is room for eight");
    }
    let words = [std::io::IoSlice::new(words)];
    sendmsg(&*socket, &words, &mut control, SendFlags::NOSIGNAL).ok()?;
    let mut answer = [0];
    match socket.read_exact(&mut answer) {
        Ok(()) => Some(answer[0]),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("it neither answers nor closes")
        }
        Err(_) => None,
    }
}

/// Waits until a node has ended what it took on a socket.
///
/// # Panics
/// If it does not.
pub fn until_ended(socket: &mut UnixStream) {
    socket.set_read_timeout(Some(ENDS_WITHIN)).expect("a socket of ours");
    let mut bytes = [0; 64];
    loop {
        match socket.read(&mut bytes) {
            Ok(1..) => {}
            Ok(0) => return,
            Err(error) => {
                let is_late = error.kind() == std::io::ErrorKind::WouldBlock;
                assert!(!is_late, "the node keeps the link");
                return;
            }
        }
    }
}
