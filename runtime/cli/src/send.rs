//! `send`: events into a pipeline.
//!
//! - Requests go one after another, so events of a key stay in order.
//! - A request the node had no room for (429, 503) did nothing and is made again, after the time
//!   the node asks for, until patience ends. One whose fate is unknown is not: it would count
//!   twice.
//! - Input that trickles is passed on at once; a batch waits for company only while more is there.
//! - Whatever ends the sending, what was accepted until then is said.

pub(crate) mod batch;
mod lines;
pub(crate) mod pace;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use sluicebox_core::ids::Name;
use sluicebox_node::config::quantity::duration_text;
use tokio::io::AsyncRead;

use self::batch::{Batch, Form, Packet};
use self::lines::{LINE_BYTES_MAX, Lines, LinesError};
use self::pace::Pace;
use crate::args::SendArgs;
use crate::client::{Call, Client};
use crate::failure::{Cause, Failure, Mistake, printable};
use crate::render::grouped;
use crate::screen::Screen;

/// How long a batch that has events waits for more.
const LINGER: Duration = Duration::from_millis(5);

/// Refused lines that are listed; all are counted.
const MISTAKES_MAX: usize = 20;

/// The first wait before another try, unless the node names one; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// `send`
pub(crate) async fn run(screen: Screen, args: SendArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    if let Some(data) = args.data.clone() {
        return one(screen, &client, args, data).await;
    }
    let form = if args.lines {
        Form::Raw { key: args.key.clone().unwrap_or_default() }
    } else {
        Form::Json
    };
    let mut feed = Feed::new(client, args.pipeline.clone(), args.patience);
    if let (Form::Json, Some(key)) = (&form, &args.key) {
        feed.key = Some(key.clone());
    }
    let plan = Plan { form, batch: args.batch, pace: args.rate.map(Pace::new) };
    if args.file.is_none() && std::io::stdin().is_terminal() {
        screen.hint("reading lines from the terminal; Ctrl-D ends them");
    }
    let (input, total) = open(args.file.as_ref()).await?;
    let bar = screen.progress(total);
    let outcome = stream(&mut feed, plan, input, &bar).await;
    bar.finish_and_clear();
    finish(screen, feed.tally, outcome)
}

/// Sends events of one pipeline and keeps count.
pub(crate) struct Feed {
    client: Client,
    pipeline: Name,
    patience: Duration,
    /// Key of JSON lines.
    key: Option<String>,
    pub(crate) tally: Tally,
}

/// What became of the events so far.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    /// Requests made again.
    pub(crate) repeated: u64,
    mistakes: Vec<Mistake>,
    start: Instant,
}

/// How lines are sent.
struct Plan {
    form: Form,
    batch: u32,
    pace: Option<Pace>,
}

impl Feed {
    pub(crate) fn new(client: Client, pipeline: Name, patience: Duration) -> Self {
        let tally = Tally {
            accepted: 0,
            rejected: 0,
            repeated: 0,
            mistakes: Vec::new(),
            start: Instant::now(),
        };
        Self { client, pipeline, patience, key: None, tally }
    }

    /// Sends one request, as often as it takes and patience lasts.
    pub(crate) async fn send(&mut self, packet: Packet) -> Result<(), Failure> {
        let mut call = Call::new(Method::POST, self.client.pipeline(&self.pipeline, "/events"))
            .body(packet.media_type, packet.body.clone());
        if let Some(key) = &self.key {
            call = call.query("key", key.clone());
        }
        let (reply, repeated) = patiently(&self.client, &call, self.patience).await;
        self.tally.repeated += repeated;
        match reply {
            Ok(reply) => self.tally.count(&reply, &packet),
            Err(failure) if failure.code == "ingest.rejected" => {
                self.tally.count(&failure.details, &packet);
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

/// Makes a request again while the node says it has no room.
pub(crate) async fn patiently(
    client: &Client,
    call: &Call,
    patience: Duration,
) -> (Result<Value, Failure>, u64) {
    let give_up = Instant::now() + patience;
    let mut wait = RETRY_FIRST;
    let mut repeated = 0;
    loop {
        let failure = match client.send(call.clone()).await {
            Ok(reply) => return (reply.json(), repeated),
            Err(failure) => failure,
        };
        let pause = failure.retry_after.unwrap_or(wait);
        if !failure.may_pass() || Instant::now() + pause > give_up {
            return (Err(failure), repeated);
        }
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(RETRY_LAST);
        repeated += 1;
    }
}

impl Tally {
    /// Adds what the node says about a request.
    fn count(&mut self, reply: &Value, packet: &Packet) {
        let number = |name: &str| reply.get(name).and_then(Value::as_u64);
        let events = packet.numbers.len() as u64;
        let rejected = number("rejected").unwrap_or(0).min(events);
        self.rejected += rejected;
        self.accepted += number("accepted").unwrap_or(events - rejected).min(events);
        for error in reply.get("errors").and_then(Value::as_array).into_iter().flatten() {
            if self.mistakes.len() == MISTAKES_MAX {
                break;
            }
            let line = error.get("line").and_then(Value::as_u64).unwrap_or(0);
            let message = error.get("message").and_then(Value::as_str).unwrap_or("refused");
            self.mistakes.push(Mistake {
                place: format!("line {}", packet.input_line(line)),
                what: printable(message),
                fix: None,
            });
        }
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Events accepted a second.
    pub(crate) fn rate(&self) -> u64 {
        // Far below 2^53, and the cast saturates.
        (self.accepted as f64 / self.seconds().max(1e-3)) as u64
    }

    fn text(&self) -> String {
        let accepted = grouped(self.accepted);
        let mut text =
            format!("{accepted} accepted in {:.2} s ({}/s)", self.seconds(), grouped(self.rate()));
        if self.rejected > 0 {
            text.push_str(&format!(", {} refused", grouped(self.rejected)));
        }
        if self.repeated > 0 {
            text.push_str(&format!(", {} requests sent again", grouped(self.repeated)));
        }
        text
    }

    fn json(&self) -> Value {
        let errors: Vec<Value> = self
            .mistakes
            .iter()
            .map(|mistake| json!({ "place": mistake.place, "message": mistake.what }))
            .collect();
        json!({
            "accepted": self.accepted,
            "rejected": self.rejected,
            "repeated": self.repeated,
            "seconds": (self.seconds() * 1e3).round() / 1e3,
            "errors": errors,
        })
    }
}

/// The input, and its size if it has one.
async fn open(
    file: Option<&PathBuf>,
) -> Result<(Box<dyn AsyncRead + Unpin>, Option<u64>), Failure> {
    let Some(path) = file else { return Ok((Box::new(tokio::io::stdin()), None)) };
    let doing = || format!("read {}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|e| Failure::local(doing(), &e))?;
    let metadata = file.metadata().await.map_err(|e| Failure::local(doing(), &e))?;
    if metadata.is_dir() {
        return Err(Failure::new(Cause::Local, format!("{} is a directory", path.display())));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Sends all lines of an input.
async fn stream(
    feed: &mut Feed,
    mut plan: Plan,
    input: impl AsyncRead + Unpin,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut lines = Lines::new(input);
    let burst = plan.pace.map_or(plan.batch, |pace| pace.burst(plan.batch));
    let mut batch = Batch::new(plan.form.clone(), burst as usize);
    let mut checked = plan.form != Form::Json;
    loop {
        gather(&mut lines, &mut batch).await?;
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(pace) = &mut plan.pace {
            tokio::time::sleep_until((feed.tally.start + pace.due()).into()).await;
            pace.sent(batch.len() as u64);
        }
        let packet = batch.take();
        if !checked {
            looks_like_json(&packet)?;
            checked = true;
        }
        feed.send(packet).await?;
        bar.set_position(lines.bytes_read());
        bar.set_message(format!(
            "{} events, {}/s",
            grouped(feed.tally.accepted),
            grouped(feed.tally.rate())
        ));
    }
}

/// Fills a batch with what is there, waiting only while it is empty or more is just coming. An
/// empty batch afterwards means the end.
async fn gather<R: AsyncRead + Unpin>(
    lines: &mut Lines<R>,
    batch: &mut Batch,
) -> Result<(), Failure> {
    while !batch.is_full() && !lines.is_done() {
        if let Some((number, line)) = lines.ready().map_err(unreadable)? {
            batch.push(number, &line);
        } else if batch.is_empty() {
            lines.fill().await.map_err(unreadable)?;
        } else {
            match tokio::time::timeout(LINGER, lines.fill()).await {
                Ok(filled) => filled.map_err(unreadable)?,
                Err(_) => return Ok(()),
            }
        }
    }
    Ok(())
}

fn unreadable(error: LinesError) -> Failure {
    match error {
        LinesError::Io(error) => Failure::local("read the input", &error),
        LinesError::TooLong(number) => {
            let what = format!("line {number} is longer than {LINE_BYTES_MAX} bytes");
            Failure::new(Cause::Invalid, what).fix("no event may be that large; split it")
        }
    }
}

/// Someone who sends plain text by mistake learns of `--lines` at once, not by a thousand refusals.
fn looks_like_json(packet: &Packet) -> Result<(), Failure> {
    let first = packet.body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if serde_json::from_slice::<serde::de::IgnoredAny>(first).is_ok() {
        return Ok(());
    }
    let number = packet.numbers.first().copied().unwrap_or(1);
    let shown = printable(&String::from_utf8_lossy(&first[..first.len().min(60)]));
    Err(Failure::new(Cause::Invalid, format!("line {number} is not JSON: {shown}"))
        .fix("to send each line as it is, add --lines; nothing was sent"))
}

/// Says what became of everything, and fails if not everything went in.
fn finish(screen: Screen, tally: Tally, outcome: Result<(), Failure>) -> Result<(), Failure> {
    if let Err(mut failure) = outcome {
        if tally.accepted > 0 {
            failure.what.push_str(&format!("; accepted before: {}", grouped(tally.accepted)));
        }
        return Err(failure);
    }
    screen.result(&tally.json(), &tally.text())?;
    if tally.rejected == 0 {
        return Ok(());
    }
    let what = match tally.rejected {
        1 => "one event was refused".to_owned(),
        many => format!("{} events were refused", grouped(many)),
    };
    let mut failure = Failure::new(Cause::Partial, what).code("ingest.rejected");
    failure.fix = Some("correct these lines and send them again, without the others".to_owned());
    failure.mistakes = tally.mistakes;
    Err(failure)
}

/// Sends one event, and waits for its result if asked to.
async fn one(screen: Screen, client: &Client, args: SendArgs, data: String) -> Result<(), Failure> {
    let json = serde_json::from_str::<serde::de::IgnoredAny>(&data).is_ok();
    let media_type = if json { "application/json" } else { "text/plain; charset=utf-8" };
    let mut call = Call::new(Method::POST, client.pipeline(&args.pipeline, "/events"))
        .body(media_type, Bytes::from(data));
    if let Some(key) = args.key {
        call = call.query("key", key);
    }
    if let Some(id) = &args.id {
        call = call.header("sluicebox-id", id)?;
    }
    if args.end {
        call = call.header("sluicebox-end", "true")?;
    }
    let Some(wait) = args.wait else {
        let (reply, _) = patiently(client, &call, args.patience).await;
        return screen.result(&reply?, "1 accepted");
    };
    let reply = client.send(call.query("wait", duration_text(wait)).within(wait)).await?;
    if reply.status == StatusCode::NO_CONTENT {
        screen.hint("the event was handled; no result came of it");
        return if screen.json() { screen.document(&Value::Null) } else { Ok(()) };
    }
    if screen.json() {
        return screen.document(&result_document(&reply.body, reply.header("content-type")));
    }
    screen.bytes(&reply.body)?;
    if screen.watched() && !reply.body.ends_with(b"\n") { screen.bytes(b"\n") } else { Ok(()) }
}

/// A result as JSON: its payload as JSON if it is, as text if it is, else by its bytes.
fn result_document(body: &[u8], media_type: Option<&str>) -> Value {
    let data: Value = serde_json::from_slice(body)
        .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into());
    json!({ "data": data, "content-type": media_type })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(lines: &[&str]) -> Packet {
        let mut batch = Batch::new(Form::Json, 100);
        for (number, line) in (11..).zip(lines) {
            batch.push(number, line.as_bytes());
        }
        batch.take()
    }

    #[test]
    fn refused_lines_are_told_by_their_number_in_the_input() {
        let mut feed = Tally {
            accepted: 0,
            rejected: 0,
            repeated: 0,
            mistakes: Vec::new(),
            start: Instant::now(),
        };
        let reply = json!({ "accepted": 2, "rejected": 1,
                            "errors": [{ "line": 2, "code": "ingest.json", "message": "bad" }] });
        feed.count(&reply, &packet(&["1", "{", "3"]));
        assert_eq!((feed.accepted, feed.rejected), (2, 1));
        assert_eq!(feed.mistakes[0].place, "line 12");
        for _ in 0..100 {
            feed.count(&reply, &packet(&["1", "{", "3"]));
        }
        assert_eq!((feed.rejected, feed.mistakes.len()), (101, MISTAKES_MAX));
    }

    #[test]
    fn a_reply_cannot_count_more_than_was_sent() {
        let mut feed = Tally {
            accepted: 0,
            rejected: 0,
            repeated: 0,
            mistakes: Vec::new(),
            start: Instant::now(),
        };
        let reply = json!({ "accepted": u64::MAX, "rejected": u64::MAX });
        feed.count(&reply, &packet(&["1"]));
        assert_eq!((feed.accepted, feed.rejected), (1, 1));
    }

    #[test]
    fn plain_text_without_the_flag_is_told_about_it() {
        let failure = looks_like_json(&packet(&["GNU GENERAL PUBLIC LICENSE"])).unwrap_err();
        assert!(failure.what.starts_with("line 11 is not JSON: GNU"), "{}", failure.what);
        assert!(failure.text().contains("--lines"));
        assert!(looks_like_json(&packet(&["{\"a\":1}"])).is_ok());
    }
}
