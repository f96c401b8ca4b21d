//! Messages of a stream of JetStream, each once, through a durable consumer.
//!
//! - What has been taken is known by the message's number in its stream, which is in the log with
//!   what was taken. A message is confirmed when that is on disk, and one that comes again is
//!   confirmed and not given again.
//! - Messages are given in the order of the stream. A consumer's are not always: what was lost on
//!   the way comes again after what follows it. So a session begins with what was delivered before
//!   it, which is read from the stream by number; and a delivery that is missing between two ends
//!   the session.
//! - A stream that was made anew under its name is another; one that has lost its end is not read,
//!   since what comes there next would be taken for what came before.

use std::time::Duration;

use sluicebox_core::key;
use sluicebox_core::pipeline::NatsSource as Declared;
use tokio::time::Instant;

use super::super::source::{Piece, Places, Source, What};
use super::super::{Fault, places};
use super::client::{ANSWER, Client, Server, within};
use super::consumer::{self, Delivery, Names};
use super::wire::{Message, Said};
use crate::error::shown;
use crate::http::feed;

/// Most messages of a piece, and that are asked for at a time.
const MESSAGES_MAX: u64 = 256;
/// Bytes behind which a piece takes no more.
const PIECE_BYTES: usize = 512 * 1024;
/// How long the server waits for messages before it says that there are none.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often it says meanwhile that it is there, and how long it may be quiet.
const HEARTBEAT: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(15);
/// A connection nobody listened to for so long is not trusted.
const STALE: Duration = Duration::from_secs(60);

/// See the module.
pub(in crate::connectors) struct Stream {
    server: Server,
    source: String,
    names: Names,
    message_bytes: usize,
    begins_new: bool,
    session: Option<Session>,
    /// The last attempt came to nothing, which is told of the source.
    has_failed: bool,
}

/// What is known as long as a connection is.
struct Session {
    client: Client,
    place: String,
    /// What was confirmed when it began, for whoever remembers no place.
    floor: u64,
    /// The place, or that there is none, says what that says; else it is noted first.
    is_placed: bool,
    /// Up to here messages were delivered before it began.
    before: u64,
    deliveries: u64,
    /// The last message that was given.
    given: u64,
    /// What is to be confirmed when it is on disk, and how.
    open: Vec<(String, Word)>,
    /// Where those go that were asked for, and how many may still come.
    asked: (String, u64),
    heard: Instant,
}

/// What is said of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It was taken.
    Taken,
    /// It is left out, and must not come again.
    Never,
}

/// Messages that become a piece.
#[derive(Default)]
struct Group {
    messages: Vec<feed::Message>,
    bytes: usize,
    left_out: u64,
    /// The number of the last.
    last: u64,
    behind: u64,
}

impl Group {
    fn is_full(&self) -> bool {
        self.messages.len() as u64 + self.left_out >= MESSAGES_MAX || self.bytes >= PIECE_BYTES
    }

    const fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.left_out == 0
    }

    /// Adds a message; none is one that cannot be an event.
    fn add(&mut self, number: u64, message: Option<feed::Message>) {
        self.last = number;
        match message {
            Some(message) => {
                self.bytes += message.payload.len();
                self.messages.push(message);
            }
            None => self.left_out += 1,
        }
    }
}

impl Stream {
    pub(super) fn new(server: Server, source: &str, names: Names, declared: &Declared) -> Self {
        Self {
            server,
            source: source.to_owned(),
            names,
            message_bytes: usize::try_from(declared.message_bytes).unwrap_or(usize::MAX),
            begins_new: declared.begins_new,
            session: None,
            has_failed: false,
        }
    }

    async fn begin(&mut self, places: &impl Places) -> Result<Session, Fault> {
        let most = consumer::answer_bytes_max(self.message_bytes);
        let mut client = self.server.connect(most).await?;
        client.listen_to_answers();
        let known = consumer::known(&mut client, &self.names.stream).await?;
        let identity = format!("{}\0{}", self.names.stream, known.created);
        let place = format!("nats.{:016x}", key::hash(identity.as_bytes()));
        let place = places::of_file(&self.source, &place);
        let at = places.of(&place);
        if at.is_some_and(|at| at > known.last) {
            let (at, last) = (at.unwrap_or_default(), known.last);
            let message = format!(
                "the stream ends with message {last}, and message {at} was taken from it: it has \
                 lost its end. Make it anew, or let another source read it"
            );
            return Err(Fault::new("connector.stream", message));
        }
        let standing = match consumer::standing(&mut client, &self.names).await? {
            Some(standing) => standing,
            None => consumer::make(&mut client, &self.names, (at, self.begins_new)).await?,
        };
        let Some(floor) = standing.confirmed.or(at) else {
            let message = "the consumer has delivered messages that nobody confirmed, and does not \
                           begin with the first of the stream: name another";
            return Err(Fault::new("connector.stream", message));
        };
        Ok(Session {
            client,
            place,
            floor,
            // After a failure too, as a stream may be quiet for long before a piece tells the end
            // of that; a place that is noted again is no news for the log.
            is_placed: (at.is_some() || floor == 0) && !self.has_failed,
            before: standing.delivered,
            deliveries: standing.deliveries,
            given: 0,
            open: Vec::new(),
            asked: (String::new(), 0),
            heard: Instant::now(),
        })
    }
}

impl Source for Stream {
    async fn next(&mut self, places: &impl Places) -> Result<Piece, Fault> {
        let given = self.give(places).await;
        self.has_failed = given.is_err();
        given
    }
}

impl Stream {
    async fn give(&mut self, places: &impl Places) -> Result<Piece, Fault> {
        loop {
            // Taken out: one that is let go of in between is not gone on with.
            let usable = self.session.take().filter(|session| session.is_usable(places));
            let mut session = match usable {
                Some(session) => session,
                None => self.begin(places).await?,
            };
            if !session.is_placed {
                // Before anything is asked for: what was asked for moves where it begins.
                session.is_placed = true;
                session.given = session.at(places);
                let group = Group { last: session.given, ..Group::default() };
                let piece = self.piece(&session, group);
                self.session = Some(session);
                return Ok(piece);
            }
            session.confirm(places).await?;
            let at = session.at(places);
            let group = match at < session.before {
                true => session.stored(&self.names, at, self.message_bytes).await?,
                false => session.delivered(&self.names, at, self.message_bytes).await?,
            };
            if !group.is_empty() {
                session.given = group.last;
                let piece = self.piece(&session, group);
                self.session = Some(session);
                return Ok(piece);
            }
            self.session = Some(session);
        }
    }

    fn piece(&self, session: &Session, group: Group) -> Piece {
        let what = match group.messages.is_empty() {
            true => What::Nothing,
            false => What::Messages(group.messages),
        };
        let (stream, last, behind) = (&self.names.stream, group.last, group.behind);
        Piece {
            place: session.place.clone(),
            number: last,
            what,
            left_out: group.left_out,
            shown: format!("{stream}: message {last}, {behind} behind it"),
            lag: 0,
        }
    }
}

impl Session {
    /// What was given was taken, and somebody listened lately.
    fn is_usable(&self, places: &impl Places) -> bool {
        let taken = places.of(&self.place).unwrap_or(0);
        self.given <= taken && self.heard.elapsed() < STALE
    }

    /// Up to which message all were taken.
    fn at(&self, places: &impl Places) -> u64 {
        places.of(&self.place).unwrap_or(0).max(self.floor)
    }

    /// Confirms what was taken, once that is on disk; so is the place before anything is asked for.
    async fn confirm(&mut self, places: &impl Places) -> Result<(), Fault> {
        if self.open.is_empty() && !self.asked.0.is_empty() {
            return Ok(());
        }
        places.on_disk(&self.place).await?;
        for (reply, word) in self.open.drain(..) {
            let word: &[u8] = match word {
                Word::Taken => b"+ACK",
                Word::Never => b"+TERM",
            };
            self.client.publish(&reply, "", (b"", word));
        }
        within(ANSWER, self.client.flush()).await
    }

    /// Messages that were delivered before this session, and not taken.
    async fn stored(&mut self, names: &Names, at: u64, most: usize) -> Result<Group, Fault> {
        let mut group = Group { last: at, ..Group::default() };
        while group.last < self.before && !group.is_full() {
            let found = consumer::stored(&mut self.client, names, group.last + 1).await?;
            let Some(found) = found.filter(|found| found.number <= self.before) else {
                // What is left of them is no longer there.
                self.before = group.last;
                break;
            };
            let content = found.content.filter(|(_, payload)| payload.len() <= most);
            let message = content.map(|(header, payload)| feed::Message {
                subject: found.subject,
                headers: header.fields,
                payload,
                time: found.time,
            });
            group.add(found.number, message);
        }
        group.behind = self.before.saturating_sub(group.last);
        self.heard = Instant::now();
        Ok(group)
    }

    /// Messages as they are delivered: waits for one, and takes what is at hand besides.
    async fn delivered(&mut self, names: &Names, at: u64, most: usize) -> Result<Group, Fault> {
        let mut group = Group { last: at, ..Group::default() };
        if self.asked.1 == 0 {
            self.ask(names).await?;
        }
        let mut said = Some(within(QUIET, self.client.said()).await?);
        while let Some(Said::Message(message)) = said {
            self.heard = Instant::now();
            self.heed(message, most, &mut group)?;
            if group.is_full() || self.asked.1 == 0 {
                break;
            }
            said = self.client.at_hand()?;
        }
        Ok(group)
    }

    /// Asks for messages.
    async fn ask(&mut self, names: &Names) -> Result<(), Fault> {
        let question = serde_json::json!({
            "batch": MESSAGES_MAX,
            "expires": u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX),
            "idle_heartbeat": u64::try_from(HEARTBEAT.as_nanos()).unwrap_or(u64::MAX),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", names.stream, names.consumer);
        self.asked = (self.client.answer_to(), MESSAGES_MAX);
        self.client.publish(&subject, &self.asked.0, (b"", question.to_string().as_bytes()));
        within(ANSWER, self.client.flush()).await
    }

    /// What came: a message, or why there is none.
    fn heed(&mut self, message: Message, most: usize, group: &mut Group) -> Result<(), Fault> {
        let status = message.header.as_ref().and_then(|header| header.status);
        if let Some(status) = status.filter(|_| message.reply.is_none()) {
            return self.heed_status(status, &message);
        }
        let reply = message.reply.unwrap_or_default();
        // Messages are sent to the subject they have in the stream, and confirmed to another.
        let Some(delivery) = Delivery::parse(&reply) else { return Ok(()) };
        if Some(delivery.deliveries) != self.deliveries.checked_add(1) {
            let message = "deliveries are missing: they were lost, or somebody else takes from \
                           this consumer; what is missing is read from the stream";
            return Err(Fault::new("connector.stream", message));
        }
        self.deliveries = delivery.deliveries;
        self.asked.1 = self.asked.1.saturating_sub(1);
        group.behind = delivery.behind;
        if delivery.number <= group.last {
            self.open.push((reply, Word::Taken));
            return Ok(());
        }
        let fits = message.is_whole && message.payload.len() <= most;
        let event = message.header.filter(|_| fits).map(|header| feed::Message {
            subject: message.subject,
            headers: header.fields,
            payload: message.payload,
            time: Some(delivery.time),
        });
        let word = if event.is_some() { Word::Taken } else { Word::Never };
        self.open.push((reply, word));
        group.add(delivery.number, event);
        Ok(())
    }

    fn heed_status(&mut self, status: u16, message: &Message) -> Result<(), Fault> {
        match status {
            // It is there.
            100 => Ok(()),
            _ if message.subject != self.asked.0 => Ok(()),
            // There was nothing more.
            404 | 408 => {
                self.asked.1 = 0;
                Ok(())
            }
            _ => {
                let about = message.header.as_ref().map_or("", |header| header.about.as_str());
                let message = format!("the server gives no messages: {} ({status})", shown(about));
                Err(Fault::new("connector.stream", message))
            }
        }
    }
}
