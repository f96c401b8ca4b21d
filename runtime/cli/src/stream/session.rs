//! A stream over one connection after another.
//!
//! - The first connection says where counting begins: at the ordinal that was asked for, else where
//!   the node says that the key stands. No unit is read from the input before.
//! - Later ones ask where the key stands first, and name the ordinal of the first unit they send.
//! - A result counts when its whole line came; the cursor behind it is where the next connection
//!   goes on.
//!
//! Leaves to `stream.rs`: whether there is another connection.

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use super::answer::{self, Answer};
use super::kept::Kept;
use super::source::Source;
use crate::args::StreamArgs;
use crate::client::live::{Feeder, Lines, Room};
use crate::client::{Call, Client};
use crate::failure::{Cause, Failure, printable};
use crate::screen::Screen;
use crate::tail;

/// Refused units that are listed; all are counted.
const REJECTED_LISTED_MAX: usize = 20;

/// What is the same in all requests.
pub(super) struct Request {
    /// Of the stream.
    pub(super) path: String,
    pub(super) media_type: String,
    /// Whether each unit comes behind its length.
    pub(super) prefixed: bool,
    pub(super) args: StreamArgs,
}

/// Why there is no further connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The input is over, and so is everything that came of it.
    Ended,
    /// The input is over and was taken, and the stream was to stay open.
    LeftOpen,
    /// The key stands behind all of the input.
    TakenBefore,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// A stream from its first connection to its last.
pub(super) struct Stream {
    client: Client,
    request: Request,
    screen: Screen,
    source: Source,
    /// What is over of the input, and how.
    over: Option<Result<(), Failure>>,
    /// Nothing before the first connection has told where counting begins.
    kept: Option<Kept>,
    /// The ordinal of the first unit of the input.
    first: u64,
    cursor: Option<String>,
    results: u64,
    rejected: u64,
    listed: Vec<(u64, String)>,
    /// Whether a connection stood before.
    opened: bool,
}

impl Stream {
    pub(super) fn new(client: Client, source: Source, screen: Screen, request: Request) -> Self {
        let cursor = request.args.cursor.clone();
        Self {
            client,
            request,
            screen,
            source,
            over: None,
            kept: None,
            first: 0,
            cursor,
            results: 0,
            rejected: 0,
            listed: Vec::new(),
            opened: false,
        }
    }

    /// Connects, and goes on for as long as the connection does.
    pub(super) async fn connect(&mut self) -> Result<Stop, Failure> {
        if self.kept.is_some() || self.request.args.from.is_some() {
            let stands_at = self.look().await?;
            self.begin(self.request.args.from.unwrap_or(stands_at));
            if self.opened {
                self.kept().release(stands_at);
            } else if self.pass_over(stands_at).await? {
                return Ok(Stop::TakenBefore);
            }
        }
        let mut call = self.call(Method::POST)?;
        if let Some(kept) = &self.kept {
            call = call.query("from", kept.first().to_string());
        }
        if let Some(cursor) = &self.cursor {
            call = call.query("cursor", cursor.clone());
        }
        let (feeder, answers) = self.client.open(call).await?;
        let stands_at = ordinal(&answers)?;
        self.begin(stands_at);
        self.kept().release(stands_at);
        if self.cursor.is_none() {
            self.cursor = answers.header("sluicebox-cursor").map(str::to_owned);
        }
        self.opened = true;
        self.kept().rewind();
        self.talk(feeder, answers).await
    }

    /// How much was gained so far: units acknowledged, results written.
    pub(super) fn gained(&self) -> (u64, u64) {
        (self.taken(), self.results)
    }

    /// True once a connection stood.
    pub(super) const fn was_open(&self) -> bool {
        self.opened
    }

    /// Units that were acknowledged.
    pub(super) fn taken(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.first() - self.first)
    }

    /// The ordinal of the first unit, the one behind the last acknowledged, and the cursor behind
    /// the last result.
    pub(super) fn place(&self) -> Option<(u64, u64, &str)> {
        let kept = self.kept.as_ref().filter(|_| self.opened)?;
        Some((self.first, kept.first(), self.cursor.as_deref().unwrap_or("latest")))
    }

    /// How many units were refused, and the first of them by their number in the input.
    pub(super) fn rejected(&self) -> (u64, &[(u64, String)]) {
        (self.rejected, &self.listed)
    }

    /// Goes on with the oldest results that are kept, if the failure is that others are not.
    pub(super) fn skip_dropped(&mut self, failure: &Failure) -> bool {
        let Some(oldest) = failure.details.get("oldest").and_then(Value::as_str) else {
            return false;
        };
        self.screen
            .warn("results were dropped before they could be read; going on with the oldest kept");
        self.cursor = Some(oldest.to_owned());
        true
    }

    /// Tells something that is no result.
    pub(super) fn hint(&self, text: &str) {
        self.screen.hint(text);
    }

    fn call(&self, method: Method) -> Result<Call, Failure> {
        let args = &self.request.args;
        let mut call = Call::new(method, self.request.path.clone());
        call = call.header("content-type", &self.request.media_type)?;
        if self.request.prefixed {
            call = call.query("chunk", "prefixed");
        }
        if let Some(results) = &args.results {
            call = call.query("output", results.to_string());
        }
        Ok(call)
    }

    /// Asks where the key stands.
    async fn look(&self) -> Result<u64, Failure> {
        let said = self.client.get(self.request.path.clone()).await?;
        said.get("at").and_then(Value::as_u64).ok_or_else(|| {
            Failure::new(Cause::Internal, "the node does not say where the key stands")
                .fix("is --url the address of a sluicebox node of this version?")
        })
    }

    /// Counting begins here, if it has not begun.
    fn begin(&mut self, first: u64) {
        if self.kept.is_none() {
            self.first = first;
            self.kept = Some(Kept::from(first));
        }
    }

    fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    /// Leaves out what the node has of the input; true if that is all of it, and the key stands
    /// behind it.
    async fn pass_over(&mut self, stands_at: u64) -> Result<bool, Failure> {
        while self.kept().end() < stands_at && self.over.is_none() {
            match self.source.skip().await? {
                Some(unit) => {
                    self.kept().add(unit);
                    self.kept().release(stands_at);
                }
                None => self.over = Some(Ok(())),
            }
        }
        Ok(self.kept().end() < stands_at)
    }

    /// Sends and reads at once until the stream or the connection ends.
    async fn talk(&mut self, feeder: Feeder, mut answers: Lines) -> Result<Stop, Failure> {
        let mut feeder = Some(feeder);
        loop {
            if let Some(stop) = self.left_open()? {
                return Ok(stop);
            }
            let open = feeder.as_ref();
            let has_unsent = self.kept().has_unsent();
            // Of an input with a mistake in it the stream is not ended.
            let at_end = matches!(self.over, Some(Ok(()))) && !self.request.args.no_end;
            let reads = self.over.is_none() && !has_unsent && self.kept().has_room();
            let room = async {
                match open {
                    Some(feeder) => feeder.room().await,
                    None => std::future::pending().await,
                }
            };
            let goes_on = tokio::select! {
                biased;
                // What the node says first: it makes room, and a full connection must not wait for
                // us.
                line = answers.next() => {
                    let Some(line) = line? else { return Err(broken_off()) };
                    if let Some(stop) = self.hear(line)? {
                        return Ok(stop);
                    }
                    true
                }
                room = room, if has_unsent || at_end => self.write(room),
                unit = self.source.next(), if reads => {
                    self.read(unit);
                    true
                }
            };
            if !goes_on {
                feeder = None;
            }
        }
    }

    /// Sends the next unit, or the end; false if nothing more is to be sent over this connection.
    fn write(&mut self, room: Option<Room<'_>>) -> bool {
        match (room, self.kept().unsent()) {
            (Some(room), Some(unit)) => {
                room.send(unit);
                true
            }
            (Some(room), None) => {
                room.end();
                false
            }
            // The connection takes nothing more; the node says why.
            (None, _) => false,
        }
    }

    fn read(&mut self, unit: Result<Option<Bytes>, Failure>) {
        match unit {
            Ok(Some(unit)) => self.kept().add(unit),
            Ok(None) => self.over = Some(Ok(())),
            Err(failure) => self.over = Some(Err(failure)),
        }
    }

    /// Whether it is time to go without an end: all was taken that there is.
    fn left_open(&mut self) -> Result<Option<Stop>, Failure> {
        if !self.kept().is_settled() {
            return Ok(None);
        }
        match &self.over {
            Some(Err(failure)) => Err(failure.clone()),
            Some(Ok(())) if self.request.args.no_end => Ok(Some(Stop::LeftOpen)),
            _ => Ok(None),
        }
    }

    /// Takes one line of the reply.
    fn hear(&mut self, line: Bytes) -> Result<Option<Stop>, Failure> {
        match answer::read(line)? {
            Answer::Output { cursor, line } => {
                self.show(&line)?;
                self.cursor = Some(cursor);
                self.results += 1;
            }
            Answer::Taken(ordinal) => self.kept().release(ordinal),
            Answer::Rejected { at, message } => {
                // One that was sent again is refused again.
                let fresh = self.kept().refuse(at);
                self.rejected += u64::from(fresh);
                if fresh && self.listed.len() < REJECTED_LISTED_MAX {
                    self.listed.push((at.saturating_sub(self.first) + 1, printable(&message)));
                }
            }
            Answer::Ended => {
                let end = self.kept().end();
                self.kept().release(end);
                return Ok(Some(Stop::Ended));
            }
            Answer::Suspended(failure) => return Err(failure),
            Answer::Nothing => {}
        }
        Ok(None)
    }

    /// Writes a result.
    fn show(&self, line: &[u8]) -> Result<(), Failure> {
        if self.request.args.raw {
            return self.screen.bytes(&answer::payload(line)?);
        }
        if self.screen.json_records() {
            return self.screen.bytes(&[line, b"\n"].concat());
        }
        self.screen.line(&tail::readable(self.screen, &tail::parse(line)?))
    }
}

fn ordinal(answers: &Lines) -> Result<u64, Failure> {
    let said = answers.header("sluicebox-ordinal").and_then(|text| text.parse().ok());
    said.ok_or_else(|| {
        Failure::new(Cause::Internal, "the node's reply does not say where the stream stands")
            .fix("is --url the address of a sluicebox node of this version?")
    })
}

fn broken_off() -> Failure {
    Failure::new(Cause::Unavailable, "the node broke off its reply")
}
