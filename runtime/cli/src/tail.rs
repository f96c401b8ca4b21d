//! `tail`, `dead-letters` and `logs`: following an output, or what stages say, by its cursor.
//!
//! - A record is written once, in the node's order; the cursor moves only when its page was
//!   written.
//! - Records that were dropped before they could be read are never passed over in silence.
//! - A node that goes away for a moment is waited for.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;
use sluicebox_core::ids::Name;
use sluicebox_node::config::quantity::duration_text;

use crate::args::TailArgs;
use crate::args::traffic::{DeadLettersArgs, DeadLettersCommand, Reading};
use crate::args::watch::LogsArgs;
use crate::client::{Call, Client, Reply};
use crate::failure::{Cause, Failure, printable};
use crate::replay;
use crate::screen::Screen;

/// Longest wait asked for in one request; nodes allow more, proxies often do not.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Records asked for in one request.
const PAGE_RECORDS: u64 = 10_000;

/// How often a node that does not answer is asked again before giving up.
const ATTEMPTS_MAX: u32 = 6;

/// Characters of a record's data on a terminal.
const DATA_CHARS_MAX: usize = 400;

/// `tail`
pub(crate) async fn run(screen: Screen, args: TailArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let follower = Follower::output(client, &args.pipeline, &args.output_name, &args.reading.from);
    follow(screen, follower, &args.reading).await
}

/// `dead-letters`
pub(crate) async fn dead_letters(screen: Screen, args: DeadLettersArgs) -> Result<(), Failure> {
    if let Some(DeadLettersCommand::Replay(args)) = args.command {
        return replay::run(screen, args).await;
    }
    let Some(pipeline) = args.pipeline else {
        return Err(Failure::new(Cause::Usage, "the pipeline's name is missing"));
    };
    let client = Client::new(&args.connection)?;
    let follower = Follower::dead_letters(client, &pipeline, &args.reading.from);
    follow(screen, follower, &args.reading).await
}

/// `logs`
pub(crate) async fn logs(screen: Screen, args: LogsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let path = client.pipeline(&args.pipeline, "/logs");
    let mut follower = Follower::at(client, path, &args.from);
    follower.readable = said;
    follower.query.push(("level", args.level.word().to_owned()));
    follower.query.extend(args.stage.map(|stage| ("stage", stage.to_string())));
    let reading =
        Reading { from: args.from, limit: args.limit, no_follow: !args.follow, timeout: None };
    follow(screen, follower, &reading).await
}

/// A reader's place in an output.
pub(crate) struct Follower {
    client: Client,
    path: String,
    cursor: String,
    /// What else is asked for.
    query: Vec<(&'static str, String)>,
    /// How a record is shown to people.
    readable: fn(Screen, &Value) -> String,
}

/// Records that were there.
pub(crate) struct Page {
    reply: Reply,
    /// The cursor behind them.
    next: String,
}

impl Follower {
    /// Begins at `from`: `oldest`, `latest` or a cursor.
    pub(crate) fn output(client: Client, pipeline: &Name, output: &Name, from: &str) -> Self {
        let path = client.pipeline(pipeline, &format!("/outputs/{output}"));
        Self::at(client, path, from)
    }

    fn at(client: Client, path: String, from: &str) -> Self {
        Self { client, path, cursor: from.to_owned(), query: Vec::new(), readable }
    }

    /// The same for the events a pipeline could not handle.
    pub(crate) fn dead_letters(client: Client, pipeline: &Name, from: &str) -> Self {
        let path = client.pipeline(pipeline, "/dead-letters");
        Self::at(client, path, from)
    }

    /// Asks for the records behind the cursor, waiting for the first one if there are none. Does
    /// not move the cursor.
    async fn page(&self, wait: Duration, limit: u64) -> Result<Page, Failure> {
        let mut call = Call::new(Method::GET, self.path.clone())
            .query("cursor", self.cursor.clone())
            .query("limit", limit.to_string());
        for (name, value) in &self.query {
            call = call.query(name, value.clone());
        }
        if !wait.is_zero() {
            call = call.query("wait", duration_text(wait)).within(wait);
        }
        let reply = self.client.send(call).await?;
        let Some(next) = reply.header("sluicebox-cursor").map(str::to_owned) else {
            return Err(Failure::new(Cause::Internal, "the node's reply has no cursor")
                .fix("is --url the address of a sluicebox node of this version?"));
        };
        Ok(Page { reply, next })
    }

    /// The next records, parsed; for commands that look into them. Goes on with the oldest kept if
    /// some were dropped.
    pub(crate) async fn records(&mut self, wait: Duration) -> Result<Vec<Value>, Failure> {
        let page = match self.page(wait, PAGE_RECORDS).await {
            Ok(page) => page,
            Err(failure) => {
                let oldest = failure.details.get("oldest").and_then(Value::as_str);
                self.cursor = oldest.map(str::to_owned).ok_or(failure)?;
                return Ok(Vec::new());
            }
        };
        let records = page.lines().map(parse).collect::<Result<_, _>>()?;
        self.cursor = page.next;
        Ok(records)
    }
}

impl Page {
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.reply.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// A record from its line.
pub(crate) fn parse(line: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(line).map_err(|error| {
        Failure::new(Cause::Internal, format!("the node sent a record that is not JSON: {error}"))
    })
}

async fn follow(screen: Screen, mut follower: Follower, reading: &Reading) -> Result<(), Failure> {
    let end = reading.timeout.map(|timeout| Instant::now() + timeout);
    let mut left = reading.limit.unwrap_or(u64::MAX);
    let mut failed = 0;
    while left > 0 {
        let until_end = end.map_or(WAIT_MAX, |end| end.saturating_duration_since(Instant::now()));
        let wait = if reading.no_follow { Duration::ZERO } else { until_end.min(WAIT_MAX) };
        let page = match follower.page(wait, left.min(PAGE_RECORDS)).await {
            Ok(page) => page,
            Err(failure) => {
                recover(screen, &mut follower, failure, &mut failed).await?;
                continue;
            }
        };
        failed = 0;
        if let Some(missed) = page.reply.header("sluicebox-missed") {
            screen
                .warn(&format!("{} lines were gone before they could be read", printable(missed)));
        }
        let shown = show(screen, &page, follower.readable)?;
        left = left.saturating_sub(shown);
        follower.cursor = page.next;
        let over = end.is_some_and(|end| Instant::now() >= end);
        if over || (reading.no_follow && shown == 0) {
            break;
        }
    }
    screen.hint(&format!("go on from here with --from {}", follower.cursor));
    Ok(())
}

/// Decides whether reading can go on after a failure, and from where.
async fn recover(
    screen: Screen,
    follower: &mut Follower,
    failure: Failure,
    failed: &mut u32,
) -> Result<(), Failure> {
    if let Some(oldest) = failure.details.get("oldest").and_then(Value::as_str) {
        screen
            .warn("records were dropped before they could be read; going on with the oldest kept");
        follower.cursor = oldest.to_owned();
        return Ok(());
    }
    *failed += 1;
    // The first try tells people of a wrong address at once.
    let fresh = *failed == 1 && matches!(follower.cursor.as_str(), "oldest" | "latest");
    let passing = failure.cause == Cause::Unavailable || failure.may_pass();
    if !passing || fresh || *failed >= ATTEMPTS_MAX {
        return Err(failure);
    }
    let pause =
        failure.retry_after.unwrap_or_else(|| Duration::from_millis(100) * 2_u32.pow(*failed));
    screen.hint(&format!("{}; trying again", failure.what));
    tokio::time::sleep(pause).await;
    Ok(())
}

/// Writes the records of a page and counts them.
fn show(
    screen: Screen,
    page: &Page,
    readable: fn(Screen, &Value) -> String,
) -> Result<u64, Failure> {
    let count = page.lines().count() as u64;
    if count == 0 {
        return Ok(0);
    }
    if screen.json_records() {
        screen.bytes(&page.reply.body)?;
        if !page.reply.body.ends_with(b"\n") {
            screen.bytes(b"\n")?;
        }
        return Ok(count);
    }
    for line in page.lines() {
        screen.line(&readable(screen, &parse(line)?))?;
    }
    Ok(count)
}

/// A record for people: when, key, data; of a dead letter also which stage said what.
pub(crate) fn readable(screen: Screen, record: &Value) -> String {
    let text = |name: &str| member(record, name);
    let data = match text("data") {
        data if data.is_empty() => text("data_base64"),
        data => data,
    };
    let mut line = screen.faint(&of_day(record));
    for part in [screen.strong(&text("key")), data.chars().take(DATA_CHARS_MAX).collect()] {
        if !part.is_empty() {
            line.push_str("  ");
            line.push_str(&part);
        }
    }
    if record.get("stage").is_some() {
        let (stage, class, message) = (text("stage"), text("class"), text("message"));
        line.push_str(&screen.alarm(&format!("  [{stage}: {class}: {message}]")));
    }
    line
}

/// A line of a stage's log for people: when, how grave, who, what.
fn said(screen: Screen, record: &Value) -> String {
    let level = member(record, "level");
    let level = match level.as_str() {
        "warn" | "error" => screen.alarm(&format!("{level:<5}")),
        _ => format!("{level:<5}"),
    };
    let (time, stage) = (screen.faint(&of_day(record)), screen.strong(&member(record, "stage")));
    format!("{time}  {level}  {stage}  {}", member(record, "text"))
}

/// A member as it may be shown; nothing if there is none.
fn member(record: &Value, name: &str) -> String {
    match record.get(name) {
        Some(Value::String(text)) => printable(text),
        Some(value) if !value.is_null() => printable(&value.to_string()),
        _ => String::new(),
    }
}

/// The time of day is enough to watch by.
fn of_day(record: &Value) -> String {
    let time = member(record, "time");
    time.split_once('T').map_or_else(|| time.clone(), |(_, of_day)| of_day.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::args::{Format, Globals};

    fn plain() -> Screen {
        Screen::new(&Globals { output: Some(Format::Text), quiet: true, log_format: None })
    }

    #[test]
    fn a_record_is_one_readable_line() {
        let record = json!({ "time": "2026-11-20T08:00:00.5Z", "key": "the", "data": { "n": 1 } });
        assert_eq!(readable(plain(), &record), "08:00:00.5Z  the  {\"n\":1}");
    }

    #[test]
    fn a_dead_letter_says_who_refused_it_and_cannot_reach_for_the_terminal() {
        let record = json!({ "time": "T1Z", "key": "k", "data_base64": "/w==", "stage": "count",
                             "class": "trap", "message": "\u{1b}[2Junreachable" });
        let line = readable(plain(), &record);
        assert!(line.ends_with("/w==  [count: trap: \\u{1b}[2Junreachable]"), "{line:?}");
    }

    #[test]
    fn what_a_stage_said_is_one_line_and_cannot_reach_for_the_terminal() {
        let record = json!({ "time": "2026-11-20T08:00:00.5Z", "stage": "count", "partition": 0,
                             "level": "warn", "text": "\u{1b}[2Jlow" });
        assert_eq!(said(plain(), &record), "08:00:00.5Z  warn   count  \\u{1b}[2Jlow");
    }
}
