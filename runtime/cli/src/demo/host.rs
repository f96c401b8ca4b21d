//! The second part: this machine's own figures, watched for deviations.
//!
//! Every figure is an event with its series as key, and each series is a stream of its own. The
//! pipeline answers each with the mean and deviation of those before it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicebox_core::ids::Name;
use tokio::time::MissedTickBehavior;

use super::Stage;
use crate::failure::Failure;
use crate::host_metrics::{Reading, Sampler};
use crate::render::{align, figure, grouped};
use crate::sample::ndjson;
use crate::send::Feed;
use crate::send::batch::{Batch, Form};
use crate::tail::Follower;

/// Time between two readings: short, so that a few seconds show something.
const INTERVAL: Duration = Duration::from_millis(250);

/// Longest wait for the answers to a reading before the next is taken.
const ANSWER_TIME: Duration = Duration::from_millis(150);

/// How long the last answers may take.
const FINISH_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a request is made again while the node has no room.
const PATIENCE: Duration = Duration::from_secs(10);

/// Series shown.
const ROWS_MAX: usize = 16;

/// Anomalies listed at the end.
const ANOMALIES_MAX: usize = 10;

/// The last answer for each series, and what stood out.
#[derive(Default)]
struct Board {
    latest: BTreeMap<String, [f64; 3]>,
    anomalies: Vec<String>,
    answers: u64,
    /// Lines the table took on the screen.
    drawn: usize,
}

/// Watches this machine for a while and shows what the pipeline says.
pub(super) async fn play(stage: &Stage<'_>, pipeline: &Name) -> Result<Value, Failure> {
    let seconds = stage.args.seconds;
    stage.say(&format!("reading this machine's /proc every {INTERVAL:?} for {seconds} s"))?;
    let output = |name: &str| {
        let name = Name::new(name).expect("the example's outputs keep the rule for names");
        Follower::output(stage.client.clone(), pipeline, &name, "oldest")
    };
    let (mut stats, mut anomalies) = (output("stats"), output("anomalies"));
    let mut feed = Feed::new(stage.client.clone(), pipeline.clone(), PATIENCE);
    let mut sampler = Sampler::default();
    sampler.sample()?;
    let mut board = Board::default();
    let mut readings = 0;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        ticks.tick().await;
        readings += send(&mut feed, &sampler.sample()?).await?;
        board.take(&stats.records(ANSWER_TIME).await?);
        board.note(&anomalies.records(Duration::ZERO).await?);
        board.draw(stage)?;
    }
    let give_up = Instant::now() + FINISH_TIME_MAX;
    while board.answers < readings && Instant::now() < give_up {
        board.take(&stats.records(Duration::from_secs(1)).await?);
    }
    board.note(&anomalies.records(Duration::ZERO).await?);
    board.finish(stage, readings)
}

/// Sends readings and gives their number.
async fn send(feed: &mut Feed, readings: &[Reading]) -> Result<u64, Failure> {
    let text = ndjson(readings)?;
    let mut batch = Batch::new(Form::Json, usize::MAX);
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        batch.push(number, line);
    }
    feed.send(batch.take()).await?;
    Ok(readings.len() as u64)
}

impl Board {
    /// Takes answers in.
    fn take(&mut self, records: &[Value]) {
        for record in records {
            let Some((series, figures)) = answer(record) else { continue };
            self.latest.insert(series.to_owned(), figures);
            self.answers += 1;
        }
    }

    /// Takes anomalies in.
    fn note(&mut self, records: &[Value]) {
        for (series, [value, mean, deviation]) in records.iter().filter_map(answer) {
            let [value, mean, deviation] = [value, mean, deviation].map(figure);
            self.anomalies.push(format!("{series} was {value}, usually {mean} ± {deviation}"));
        }
    }

    /// The table, over the one before it.
    fn draw(&mut self, stage: &Stage<'_>) -> Result<(), Failure> {
        if !stage.screen.watched() || stage.screen.json() {
            return Ok(());
        }
        let table = self.table();
        let back = match self.drawn {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A\u{1b}[J"),
        };
        self.drawn = table.lines().count();
        stage.screen.line(&format!("{back}{}", table.trim_end()))
    }

    /// Series that move, in the order of their names.
    fn table(&self) -> String {
        let moving = || self.latest.iter().filter(|(_, figures)| figures.iter().any(|f| *f != 0.0));
        let head = ["  SERIES", "NOW", "MEAN", "DEVIATION"].map(str::to_owned).to_vec();
        let rows = moving().take(ROWS_MAX).map(|(series, [value, mean, deviation])| {
            vec![format!("  {series}"), figure(*value), figure(*mean), figure(*deviation)]
        });
        let mut text = align(std::iter::once(head).chain(rows).collect());
        let more = moving().count().saturating_sub(ROWS_MAX);
        if more > 0 {
            text.push_str(&format!("  and {more} more\n"));
        }
        text
    }

    /// The last word.
    fn finish(mut self, stage: &Stage<'_>, readings: u64) -> Result<Value, Failure> {
        if stage.screen.watched() {
            self.draw(stage)?;
        } else {
            stage.say(self.table().trim_end())?;
        }
        let (answers, series) = (grouped(self.answers), self.latest.len());
        stage.say(&format!(
            "{answers} of {} readings answered, {series} series",
            grouped(readings)
        ))?;
        if self.anomalies.is_empty() {
            stage.say(
                "Nothing stood out. Watch longer with --seconds, and give the machine work.",
            )?;
        } else {
            let count = grouped(self.anomalies.len() as u64);
            stage.say(&format!("{count} stood out (further than 4 deviations from the mean):"))?;
        }
        for anomaly in self.anomalies.iter().take(ANOMALIES_MAX) {
            stage.say(&format!("  {}", stage.screen.alarm(anomaly)))?;
        }
        Ok(json!({
            "readings": readings,
            "answers": self.answers,
            "series": series,
            "anomalies": self.anomalies,
        }))
    }
}

/// Series, value, mean and deviation of a record.
fn answer(record: &Value) -> Option<(&str, [f64; 3])> {
    let data = record.get("data")?;
    let number = |name: &str| data.get(name)?.as_f64();
    Some((data.get("series")?.as_str()?, [number("value")?, number("mean")?, number("deviation")?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(series: &str, value: f64) -> Value {
        json!({ "key": series,
                "data": { "series": series, "value": value, "mean": 1.0, "deviation": 0.5 } })
    }

    #[test]
    fn the_board_shows_the_last_answer_of_each_series_that_moves() {
        let mut board = Board::default();
        board.take(&[record("cpu.user", 5.0), record("cpu.user", 7.25), json!({ "data": "odd" })]);
        let still = json!({ "data": { "series": "s", "value": 0, "mean": 0, "deviation": 0 } });
        board.take(&[still]);
        assert_eq!(board.answers, 3);
        assert_eq!(
            board.table(),
            "  SERIES    NOW   MEAN  DEVIATION\n  cpu.user  7.25  1.00  0.500\n"
        );
    }

    #[test]
    fn many_series_are_cut_and_counted() {
        let mut board = Board::default();
        let records: Vec<Value> = (0..40).map(|n| record(&format!("s{n:02}"), 1.0)).collect();
        board.take(&records);
        assert!(board.table().ends_with("  and 24 more\n"));
        assert_eq!(board.table().lines().count(), ROWS_MAX + 2);
    }

    #[test]
    fn an_anomaly_is_told_with_what_is_usual() {
        let mut board = Board::default();
        board.note(&[record("cpu.user", 95.5)]);
        assert_eq!(board.anomalies, ["cpu.user was 95.5, usually 1.00 ± 0.500"]);
    }
}
