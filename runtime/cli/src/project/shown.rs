//! What `up` and `dev` say, in one place: lines for people, or one JSON object a line.
//!
//! Outputs and dead letters of all pipelines come together here, each followed by a task of its own
//! that hands records over in order.

use std::time::Duration;

use serde_json::{Value, json};
use sluicebox_core::ids::Name;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::failure::{Cause, Failure};
use crate::screen::Screen;
use crate::tail::{Follower, readable};

/// Records that wait to be written, of all outputs together; who follows waits for room.
const RECORDS_WAITING_MAX: usize = 1_024;

/// How long one request waits for records.
const WAIT: Duration = Duration::from_secs(10);

/// How long a follower rests after a request that failed.
const REST: Duration = Duration::from_millis(500);

/// Where a record came out.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pipeline: Name,
    /// Nothing for dead letters.
    output: Option<Name>,
    record: Value,
}

/// Writes what happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    screen: Screen,
}

impl Shown {
    pub(super) const fn new(screen: Screen) -> Self {
        Self { screen }
    }

    /// Something that happened, as JSON with its name and as a line.
    pub(super) fn event(&self, name: &str, mut value: Value, text: &str) -> Result<(), Failure> {
        if !self.screen.json() {
            return self.screen.line(text);
        }
        if let Some(members) = value.as_object_mut() {
            members.insert("event".to_owned(), name.into());
        }
        self.screen.line(&value.to_string())
    }

    /// Something failed and the rest goes on.
    pub(super) fn failed(&self, failure: &Failure) -> Result<(), Failure> {
        let mut value = failure.json(0);
        if let Some(error) = value.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("exit-code");
        }
        self.event("failed", value, &self.screen.alarm(&failure.text()))
    }

    /// What came out of a pipeline.
    pub(super) fn record(&self, record: &Record) -> Result<(), Failure> {
        let Record { pipeline, output, record } = record;
        let (name, place) = match output {
            Some(output) => ("output", format!("{pipeline}.{output}")),
            None => ("dead-letter", format!("{pipeline} dead letter")),
        };
        let text = format!("{}  {}", self.screen.faint(&place), readable(self.screen, record));
        let output = output.as_ref().map(Name::as_str);
        let value = json!({ "pipeline": pipeline.as_str(), "output": output, "record": record });
        self.event(name, value, &text)
    }
}

/// Followers of pipelines; they end with it.
pub(super) struct Followers {
    client: Client,
    tasks: JoinSet<()>,
    followed: Vec<(Name, Option<Name>)>,
    sender: mpsc::Sender<Record>,
}

impl Followers {
    /// Nobody yet, and where records will come from.
    pub(super) fn new(client: Client) -> (Self, mpsc::Receiver<Record>) {
        let (sender, records) = mpsc::channel(RECORDS_WAITING_MAX);
        (Self { client, tasks: JoinSet::new(), followed: Vec::new(), sender }, records)
    }

    /// Follows an output from now on, or the dead letters; each once.
    pub(super) fn follow(&mut self, pipeline: &Name, output: Option<&Name>) {
        let what = (pipeline.clone(), output.cloned());
        if self.followed.contains(&what) {
            return;
        }
        self.followed.push(what);
        let follower = match output {
            Some(output) => Follower::output(self.client.clone(), pipeline, output, "latest"),
            None => Follower::dead_letters(self.client.clone(), pipeline, "latest"),
        };
        let (pipeline, output) = (pipeline.clone(), output.cloned());
        self.tasks.spawn(hand_over(follower, pipeline, output, self.sender.clone()));
    }
}

/// Hands records over until nobody wants them, or what it follows is gone.
async fn hand_over(
    mut follower: Follower,
    pipeline: Name,
    output: Option<Name>,
    to: mpsc::Sender<Record>,
) {
    loop {
        let records = match follower.records(WAIT).await {
            Ok(records) => records,
            Err(failure) if failure.cause == Cause::NotFound => return,
            // A node that is busy or away for a moment is waited for.
            Err(_) => {
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        for record in records {
            let record = Record { pipeline: pipeline.clone(), output: output.clone(), record };
            if to.send(record).await.is_err() {
                return;
            }
        }
    }
}
