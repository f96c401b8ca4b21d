//! Messages of a subject as they are published, each at most once: who does not listen does not
//! get them, and nobody keeps them.
//!
//! Several sources that name one queue share its messages.

use std::time::Duration;

use sluicebox_core::pipeline::NatsSource as Declared;

use super::super::Fault;
use super::super::source::{Piece, Places, Source, What};
use super::client::{ANSWER, Client, Server, within};
use super::wire::{Message, Said};
use crate::http::feed;

/// Most messages of a piece, and the bytes behind which it takes no more.
const MESSAGES_MAX: usize = 256;
const PIECE_BYTES: usize = 512 * 1024;
/// How long nothing may come before the server is asked whether it is there.
const QUIET: Duration = Duration::from_secs(20);

/// See the module.
pub(in crate::connectors) struct Subject {
    server: Server,
    subject: String,
    queue: Option<String>,
    message_bytes: usize,
    client: Option<Client>,
    /// Messages so far, since it was opened.
    count: u64,
}

impl Subject {
    pub(super) fn new(server: Server, subject: &str, declared: &Declared) -> Self {
        Self {
            server,
            subject: subject.to_owned(),
            queue: declared.queue.clone(),
            message_bytes: usize::try_from(declared.message_bytes).unwrap_or(usize::MAX),
            client: None,
            count: 0,
        }
    }

    async fn begin(&mut self) -> Result<Client, Fault> {
        let mut client = self.server.connect(self.message_bytes).await?;
        client.listen(&self.subject, self.queue.as_deref());
        within(ANSWER, client.settle()).await?;
        Ok(client)
    }

    fn piece(&mut self, messages: Vec<feed::Message>, left_out: u64) -> Piece {
        self.count += messages.len() as u64 + left_out;
        let what = match messages.is_empty() {
            true => What::Nothing,
            false => What::Messages(messages),
        };
        Piece {
            place: String::new(),
            number: self.count,
            what,
            left_out,
            shown: format!("{} messages", self.count),
            lag: 0,
        }
    }
}

impl Source for Subject {
    async fn next(&mut self, _: &impl Places) -> Result<Piece, Fault> {
        // Taken out: one that went wrong, or was let go of in between, is not gone on with.
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.begin().await?,
        };
        let mut said = Some(first(&mut client).await?);
        let (mut messages, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        while let Some(Said::Message(message)) = said {
            match event(message) {
                Some(message) => {
                    bytes += message.payload.len();
                    messages.push(message);
                }
                None => left_out += 1,
            }
            if messages.len() >= MESSAGES_MAX || bytes >= PIECE_BYTES || left_out >= 1000 {
                break;
            }
            said = client.at_hand()?;
        }
        self.client = Some(client);
        Ok(self.piece(messages, left_out))
    }
}

/// The next thing said, however long it takes; a server that is not there is found out.
async fn first(client: &mut Client) -> Result<Said, Fault> {
    let mut asked = false;
    loop {
        match tokio::time::timeout(QUIET, client.said()).await {
            Ok(Ok(Said::Pong)) => asked = false,
            Ok(said) => return said,
            Err(_) if asked => {
                return Err(Fault::new("connector.unreachable", "the server is silent"));
            }
            Err(_) => {
                within(ANSWER, client.ping()).await?;
                asked = true;
            }
        }
    }
}

/// What becomes an event; none if it cannot.
fn event(message: Message) -> Option<feed::Message> {
    let header = message.header.filter(|_| message.is_whole)?;
    Some(feed::Message {
        subject: message.subject,
        headers: header.fields,
        payload: message.payload,
        time: None,
    })
}
