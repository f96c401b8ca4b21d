//! A connection to a server of NATS.
//!
//! - Only the server that was allowed is connected to: others that it names in INFO are not read.
//! - Whoever waits may stop waiting: what was read stays, and what was to be written is written
//!   with what comes next. But for that, one whose answer did not come is given up.
//! - What the server says is read when somebody asks; it waits in the connection until then. A
//!   server that is not listened to for long ends the connection, and it is made anew.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use futures_util::FutureExt as _;
use serde_json::Map;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::super::road::{Road, unreachable};
use super::super::{Fault, secret};
use super::credentials::{Credentials, FORM};
use super::wire::{Cut, Info, Message, Said, nonsense};
use crate::deploy::secret_number;
use crate::error::shown;

/// How long a server may take to let somebody in.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take to answer a question.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Bytes that are read at a time, at least.
const READ_BYTES: usize = 64 * 1024;

/// A server, and who one is to it.
pub(super) struct Server {
    pub road: Road,
    /// Where the secret is, which is read for each connection.
    pub secret: Option<PathBuf>,
    /// What the server shows of who is connected.
    pub name: String,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// See the module.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    cut: Cut,
    /// What is to be written.
    out: BytesMut,
    info: Info,
    /// What subjects of answers begin with. Nobody can guess it.
    inbox: String,
    number: u64,
}

impl Server {
    /// A connection on which payloads of more than these bytes are cut.
    pub(super) async fn connect(&mut self, payload_bytes_max: usize) -> Result<Client, Fault> {
        within(CONNECT, async {
            let credentials = self.credentials().await?;
            let mut stream = self.road.connect().await?;
            let mut cut = Cut::new(payload_bytes_max);
            let info = loop {
                match cut.next()? {
                    Some(Said::Info(info)) => break info,
                    Some(Said::Error(text)) => return Err(said_no(&text)),
                    Some(_) => return Err(nonsense("it does not say first who it is")),
                    None => read(&mut stream, &mut cut.bytes).await?,
                }
            };
            let by_tls = self.road.is_by_tls();
            if info.tls_required && !by_tls {
                let message = "the server wants TLS: write tls:// in the URL";
                return Err(Fault::new("connector.unreachable", message));
            }
            if by_tls && !cut.bytes.is_empty() {
                return Err(nonsense("it goes on talking before TLS begins"));
            }
            let stream: Box<dyn Stream> = match by_tls {
                true => Box::new(self.road.secure(stream).await?),
                false => Box::new(stream),
            };
            let mut client = Client::new(stream, cut, info)?;
            client.introduce(&self.name, by_tls, &credentials);
            client.settle().await?;
            Ok(client)
        })
        .await
    }

    async fn credentials(&self) -> Result<Credentials, Fault> {
        let Some(path) = &self.secret else { return Ok(Credentials::Nothing) };
        let text = secret::read(path, FORM).await?;
        let wrong = || secret::refused("is not written as a secret".to_owned(), FORM);
        Ok(Credentials::parse(&text).ok_or_else(wrong)?)
    }
}

impl Client {
    fn new(stream: Box<dyn Stream>, cut: Cut, info: Info) -> Result<Self, Fault> {
        if !info.headers {
            return Err(nonsense("it knows no headers, as servers do since 2.2"));
        }
        let random = || secret_number().map_err(|error| Fault::new("internal", error.to_string()));
        let inbox = format!("_INBOX.{:016x}{:016x}", random()?, random()?);
        Ok(Self { stream, cut, out: BytesMut::new(), info, inbox, number: 0 })
    }

    fn introduce(&mut self, name: &str, by_tls: bool, credentials: &Credentials) {
        let mut said = Map::new();
        for (flag, value) in [
            ("verbose", false),
            ("pedantic", false),
            ("tls_required", by_tls),
            ("headers", true),
            ("no_responders", true),
            ("echo", true),
        ] {
            said.insert(flag.to_owned(), value.into());
        }
        said.insert("protocol".to_owned(), 1.into());
        said.insert("lang".to_owned(), "rust".into());
        said.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        said.insert("name".to_owned(), name.into());
        credentials.say(&self.info.nonce, &mut said);
        let said = serde_json::Value::Object(said);
        self.out.put_slice(format!("CONNECT {said}\r\n").as_bytes());
    }

    /// Bytes of the largest message, header and payload, that the server takes.
    pub(super) const fn message_bytes_max(&self) -> u64 {
        self.info.max_payload
    }

    /// Listens to a subject, together with a group if there is one.
    pub(super) fn listen(&mut self, subject: &str, group: Option<&str>) {
        let group = group.map(|group| format!("{group} ")).unwrap_or_default();
        self.out.put_slice(format!("SUB {subject} {group}1\r\n").as_bytes());
    }

    /// Listens to answers.
    pub(super) fn listen_to_answers(&mut self) {
        let all = format!("{}.*", self.inbox);
        self.listen(&all, None);
    }

    /// Where the next answer is to go; no other goes there.
    pub(super) fn answer_to(&mut self) -> String {
        self.number += 1;
        format!("{}.{}", self.inbox, self.number)
    }

    /// Gets a message ready, which is sent with the next [`Self::flush`].
    pub(super) fn publish(
        &mut self,
        subject: &str,
        reply: &str,
        (header, payload): (&[u8], &[u8]),
    ) {
        let all = header.len() + payload.len();
        let space = if reply.is_empty() { "" } else { " " };
        let line = match header {
            [] => format!("PUB {subject}{space}{reply} {all}\r\n"),
            _ => format!("HPUB {subject}{space}{reply} {} {all}\r\n", header.len()),
        };
        for part in [line.as_bytes(), header, payload, b"\r\n"] {
            self.out.put_slice(part);
        }
    }

    /// Writes what is ready.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        while !self.out.is_empty() {
            let written = self.stream.write_buf(&mut self.out).await;
            if written.map_err(|error| unreachable(&error))? == 0 {
                return Err(ended());
            }
        }
        self.stream.flush().await.map_err(|error| unreachable(&error))
    }

    /// What the server says next that is for others than the connection itself.
    pub(super) async fn said(&mut self) -> Result<Said, Fault> {
        loop {
            match self.cut.next()? {
                Some(Said::Ping) => {
                    self.out.put_slice(b"PONG\r\n");
                    self.flush().await?;
                }
                Some(Said::Info(info)) => self.info = info,
                Some(Said::Okay) => {}
                Some(Said::Error(text)) => return Err(said_no(&text)),
                Some(said) => return Ok(said),
                None => read(&mut self.stream, &mut self.cut.bytes).await?,
            }
        }
    }

    /// The same of what is at hand.
    pub(super) fn at_hand(&mut self) -> Result<Option<Said>, Fault> {
        self.said().now_or_never().transpose()
    }

    /// Asks the server whether it is there.
    pub(super) async fn ping(&mut self) -> Result<(), Fault> {
        self.out.put_slice(b"PING\r\n");
        self.flush().await
    }

    /// Waits until the server has all that was written, and did not refuse it.
    pub(super) async fn settle(&mut self) -> Result<(), Fault> {
        self.ping().await?;
        while self.said().await? != Said::Pong {}
        Ok(())
    }

    /// Asks something and waits for the answer. What else comes meanwhile is passed over.
    pub(super) async fn ask(&mut self, subject: &str, question: &[u8]) -> Result<Message, Fault> {
        let answer_to = self.answer_to();
        self.publish(subject, &answer_to, (b"", question));
        within(ANSWER, async {
            self.flush().await?;
            loop {
                match self.said().await? {
                    Said::Message(message) if message.subject == answer_to => return Ok(message),
                    _ => {}
                }
            }
        })
        .await
    }
}

/// Reads some bytes.
async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut BytesMut) -> Result<(), Fault> {
    bytes.reserve(READ_BYTES);
    match stream.read_buf(bytes).await {
        Ok(0) => Err(ended()),
        Ok(_) => Ok(()),
        Err(error) => Err(unreachable(&error)),
    }
}

fn ended() -> Fault {
    Fault::new("connector.unreachable", "the server ended the connection")
}

/// Waits no longer than this.
pub(super) async fn within<T>(
    most: Duration,
    what: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(most, what).await.unwrap_or_else(|_| {
        let message = format!("the server does not answer within {most:?}");
        Err(Fault::new("connector.unreachable", message))
    })
}

/// What is told of a server that says no.
fn said_no(text: &str) -> Fault {
    let small = text.to_ascii_lowercase();
    let is_about_who = ["authorization", "authentication", "permissions", "user", "account"];
    let code = match is_about_who.iter().any(|word| small.contains(word)) {
        true => "connector.credentials",
        false => "connector.unreachable",
    };
    Fault::new(code, format!("the server says: {}", shown(text)))
}
