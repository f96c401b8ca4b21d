//! `dead-letters replay`: giving events to the stage they failed in again, page by page.
//!
//! - It stops at what was there when it began: an event that fails again is left for the next time.
//! - A page the node had no room for is asked for again, until patience ends. In a pipeline with
//!   exactly-once a page whose fate is unknown is as well, as no dead letter is replayed twice.
//! - Whatever ends it, what was replayed until then is said, and how to go on.

use std::time::Duration;

use hyper::Method;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::args::traffic::ReplayArgs;
use crate::client::{Call, Client};
use crate::failure::{Cause, Failure};
use crate::render::grouped;
use crate::screen::Screen;
use crate::send::patiently;

/// How long to try again when the node is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of the dead letters so far.
#[derive(Debug, Default)]
struct Tally {
    replayed: u64,
    duplicates: u64,
    skipped: u64,
}

/// `dead-letters replay`
pub(crate) async fn run(screen: Screen, args: ReplayArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let bar = screen.progress(None);
    let (mut tally, mut cursor) = (Tally::default(), args.from.clone());
    let outcome = pages(&client, &args, &mut tally, &mut cursor, &bar).await;
    bar.finish_and_clear();
    let value = json!({
        "pipeline": args.pipeline.as_str(),
        "replayed": tally.replayed,
        "duplicates": tally.duplicates,
        "skipped": tally.skipped,
        "cursor": cursor,
    });
    screen.result(&value, &tally.text())?;
    if tally.skipped > 0 {
        screen.warn("skipped dead letters are of a stage or an input this version does not have");
    }
    screen.hint(&format!("go on from here with --from {cursor}"));
    outcome
}

/// Replays page after page.
async fn pages(
    client: &Client,
    args: &ReplayArgs,
    tally: &mut Tally,
    cursor: &mut String,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut until: Option<String> = None;
    loop {
        let left = args.limit.map(|limit| limit.saturating_sub(tally.replayed));
        if left == Some(0) {
            return Ok(());
        }
        let path = client.pipeline(&args.pipeline, "/dead-letters/replay");
        let mut call = Call::new(Method::POST, path).query("cursor", cursor.clone());
        let stage = args.stage.as_ref().map(ToString::to_string);
        let more = [("until", until.clone()), ("stage", stage)];
        for (name, value) in more.into_iter().chain([("limit", left.map(|n| n.to_string()))]) {
            if let Some(value) = value {
                call = call.query(name, value);
            }
        }
        let reply = match patiently(client, &call, PATIENCE).await.0 {
            Ok(reply) => reply,
            Err(failure) => {
                // Dead letters were dropped meanwhile: those that are left are still wanted.
                let oldest = failure.details.get("oldest").and_then(Value::as_str);
                *cursor = oldest.map(str::to_owned).ok_or(failure)?;
                continue;
            }
        };
        tally.count(&reply);
        bar.set_message(tally.text());
        bar.tick();
        let text = |name: &str| reply.get(name).and_then(Value::as_str).map(str::to_owned);
        *cursor = text("cursor").ok_or_else(no_reply)?;
        until = Some(text("until").ok_or_else(no_reply)?);
        if reply.get("done").and_then(Value::as_bool).ok_or_else(no_reply)? {
            return Ok(());
        }
    }
}

fn no_reply() -> Failure {
    Failure::new(Cause::Internal, "the node's reply does not say what was replayed")
        .fix("is --url the address of a sluicebox node of this version?")
}

impl Tally {
    fn count(&mut self, reply: &Value) {
        let number = |name: &str| reply.get(name).and_then(Value::as_u64).unwrap_or_default();
        self.replayed += number("replayed");
        self.duplicates += number("duplicates");
        self.skipped += number("skipped");
    }

    fn text(&self) -> String {
        let mut text = format!("replayed {} dead letters", grouped(self.replayed));
        if self.duplicates > 0 {
            text.push_str(&format!(", {} were before", grouped(self.duplicates)));
        }
        if self.skipped > 0 {
            text.push_str(&format!(", skipped {}", grouped(self.skipped)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replayed_before_and_skipped_is_told_if_there_is_any() {
        let mut tally = Tally::default();
        tally.count(&json!({ "replayed": 1200 }));
        assert_eq!(tally.text(), "replayed 1,200 dead letters");
        tally.count(&json!({ "replayed": 1, "duplicates": 2, "skipped": 3 }));
        assert_eq!(tally.text(), "replayed 1,201 dead letters, 2 were before, skipped 3");
    }
}
