//! `log inspect`: what is in the log of a data directory, and is it sound?
//!
//! Reads files, takes no lock and changes nothing: it can be used beside a running node and on a
//! log that no node opens. It fails for damage and for records that cannot be read; a torn end is
//! what a kill leaves behind.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value, json};
use sluicebox_core::codec::{Fault, RecordError};
use sluicebox_node::config::Config;
use sluicebox_node::inspect::{self, Fact, Look, Segment, Told, Verdict};

use crate::args::LogCommand;
use crate::args::node::{InspectArgs, Overrides};
use crate::config::sources;
use crate::failure::{Cause, Failure, printable};
use crate::render;
use crate::screen::Screen;

/// Lines of records are written out when there are so many bytes of them.
const LINES_BYTES: usize = 64 << 10;

/// What to do about a damaged log.
pub(crate) const DAMAGE_FIX: &str = "nothing was changed; keep a copy of the data directory, then \
                                     restore it from a backup";

/// The code of a record that cannot be read, and what to do about it.
pub(crate) const fn unreadable(error: &RecordError) -> (&'static str, &'static str) {
    match error.fault {
        Fault::Kind | Fault::Newer(_) => {
            ("log.format-newer", "use the version of sluicebox that wrote it, or a newer one")
        }
        // Its checksum is right, so it was written so.
        Fault::Truncated(_) | Fault::Value(_) | Fault::Frame(_) => {
            ("internal", "keep a copy of the data directory, and report it")
        }
    }
}

/// `log`
pub(crate) fn run(screen: Screen, command: LogCommand) -> Result<(), Failure> {
    let LogCommand::Inspect(InspectArgs { configuration, records }) = command;
    let config = Config::load(&sources(&configuration, &Overrides::default())?)?.config;
    let look = look(&config.node.data_dir)?;
    screen.result(&document(&look), &text(&look))?;
    if records {
        show_records(screen, &look)?;
    }
    failure(&look).map_or(Ok(()), Err)
}

fn look(data_dir: &Path) -> Result<Look, Failure> {
    let found = inspect::log(data_dir).map_err(|error| {
        let mut failure = Failure::node(&error);
        failure.cause = Cause::Local;
        failure
    })?;
    found.ok_or_else(|| {
        Failure::new(Cause::Local, format!("there is no log in {}", data_dir.display()))
            .fix("name the data directory of a node with --data-dir")
    })
}

/// What is wrong, if anything.
fn failure(look: &Look) -> Option<Failure> {
    if look.found.verdict == Verdict::Damaged {
        let what = verdict(look);
        let failure = Failure::new(Cause::Local, format!("the log is {what}"));
        return Some(failure.code("log.corrupt").fix(DAMAGE_FIX));
    }
    look.unreadable.as_ref().map(|(_, error)| {
        let (code, fix) = unreadable(error);
        Failure::new(Cause::Local, verdict(look)).code(code).fix(fix)
    })
}

/// How the log is, in one line.
pub(crate) fn verdict(look: &Look) -> String {
    match (&look.found.verdict, look.problem(), &look.unreadable) {
        (_, Some((file, problem)), _) => printable(&format!(
            "damaged at position {}, in {file} at byte {}: {}",
            problem.position, problem.offset, problem.what
        )),
        (Verdict::Damaged, None, _) => "damaged".to_owned(),
        (_, None, Some((position, error))) => printable(&format!(
            "this program cannot read the record at position {position}: {error}"
        )),
        (Verdict::Empty, None, None) => "empty".to_owned(),
        (Verdict::Clean(end), None, None) => format!("clean up to position {end}"),
        (Verdict::Torn(end), None, None) => format!(
            "torn at position {end}: what was being written there was never acknowledged, and the \
             next start leaves it out"
        ),
    }
}

/// `3 commit, 2 ingest`
pub(crate) fn kinds(look: &Look) -> String {
    let kinds =
        look.kinds.iter().map(|(kind, count)| format!("{} {kind}", render::grouped(*count)));
    kinds.collect::<Vec<_>>().join(", ")
}

const fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Empty => "empty",
        Verdict::Clean(_) => "clean",
        Verdict::Torn(_) => "torn",
        Verdict::Damaged => "damaged",
    }
}

fn document(look: &Look) -> Value {
    let found = &look.found;
    let unreadable = look.unreadable.as_ref();
    json!({
        "verdict": word(&found.verdict),
        "end": look.end().0,
        "says": verdict(look),
        "segments": found.segments.iter().map(segment).collect::<Vec<_>>(),
        "spares": found.spares,
        "records": look.kinds,
        "unreadable": unreadable.map(|(at, error)| {
            json!({ "position": at.0, "what": printable(&error.to_string()) })
        }),
    })
}

fn segment(segment: &Segment) -> Value {
    let header = segment.header.as_ref();
    json!({
        "file": segment.file,
        "number": header.map(|header| header.number),
        "base": header.map(|header| header.base.0),
        "end": segment.end.0,
        "groups": segment.groups,
        "records": segment.records,
        "bytes": segment.body_bytes,
        "problem": segment.problem.as_ref().map(|problem| json!({
            "position": problem.position.0,
            "byte": problem.offset,
            "what": printable(&problem.what),
        })),
    })
}

fn text(look: &Look) -> String {
    let rows: Vec<Value> = look.found.segments.iter().map(segment).collect();
    let columns = ["file", "number", "base", "end", "groups", "records", "bytes"];
    let mut text = render::table(&rows, &columns);
    match look.found.spares.len() {
        0 => {}
        spares => text.push_str(&format!("spare files: {spares}\n")),
    }
    if look.records() > 0 {
        text.push_str(&format!("records: {}\n", kinds(look)));
    }
    text.push_str(&verdict(look));
    text
}

/// A line for each record, as they are read.
fn show_records(screen: Screen, look: &Look) -> Result<(), Failure> {
    let mut lines = String::new();
    if !screen.json() {
        lines.push_str("\nPOSITION      KIND        PIPELINE              SAYS\n");
    }
    let mut written = Ok(());
    let read = inspect::records(look, &mut |told| {
        lines.push_str(&if screen.json() { record(&told).to_string() } else { line(&told) });
        lines.push('\n');
        if lines.len() >= LINES_BYTES {
            written = screen.bytes(std::mem::take(&mut lines).as_bytes());
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    written?;
    screen.bytes(lines.as_bytes())?;
    read.map_err(|error| Failure::node(&error))
}

fn record(told: &Told) -> Value {
    let fact = |fact: &Fact| match fact {
        Fact::Number(number) => json!(number),
        Fact::Text(text) => json!(text),
    };
    let facts: Map<String, Value> =
        told.facts.iter().map(|(name, value)| ((*name).to_owned(), fact(value))).collect();
    json!({
        "position": told.position.0,
        "kind": told.kind,
        "pipeline": told.pipeline.map(|pipeline| pipeline.0),
        "name": told.name,
        "says": facts,
    })
}

fn line(told: &Told) -> String {
    let pipeline = match (&told.name, told.pipeline) {
        (Some(name), _) => name.clone(),
        (None, Some(pipeline)) => pipeline.0.to_string(),
        (None, None) => "-".to_owned(),
    };
    let says = told.facts.iter().map(|(name, fact)| match fact {
        Fact::Number(number) => format!("{name} {number}"),
        Fact::Text(text) => format!("{name} {}", printable(text)),
    });
    let says = says.collect::<Vec<_>>().join(", ");
    let line = format!("{:<12}  {:<10}  {pipeline:<20}  {says}", told.position.0, told.kind);
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use sluicebox_node::inspect::Position;

    use super::*;

    #[test]
    fn a_record_is_one_line_that_cannot_reach_for_the_terminal() {
        let told = Told {
            position: Position(4_128),
            kind: "ingest",
            pipeline: None,
            name: Some("dev/words".to_owned()),
            facts: vec![("seq", Fact::Number(7)), ("producer", Fact::Text("a\u{1b}[2J\nb".into()))],
        };
        let line = line(&told);
        assert!(
            line.starts_with("4128          ingest      dev/words             seq 7, producer a")
        );
        assert!(!line.contains(char::is_control), "{line:?}");
        assert_eq!(record(&told)["says"]["seq"], 7);
    }
}
