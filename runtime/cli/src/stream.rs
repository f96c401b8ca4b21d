//! `stream`: an input as one stream, and what comes of it as it comes.
//!
//! - A connection that breaks is no end: the next one goes on with the first unit that the node has
//!   not, and with the first result that was not written. So each unit counts once and each result
//!   is written once, as far as the pipeline's delivery goes.
//! - Nothing is sent before the node has said where the key stands: only then each unit has its
//!   ordinal.
//! - Only the whole input ends the stream. Ctrl-C, a mistake in the input or a node that stays away
//!   leave it open, and say how to go on.
//!
//! ```text
//!   input ──source──► units ──kept──► session ──► node
//!                               ▲        │
//!                 acknowledged  └────────┴──────► results
//! ```

mod answer;
mod cut;
mod kept;
mod session;
mod source;

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use self::cut::Form;
use self::session::{Request, Stop, Stream};
use self::source::Source;
use crate::args::StreamArgs;
use crate::args::traffic::Cutting;
use crate::client::{Client, quoted};
use crate::failure::{Cause, Failure, Mistake};
use crate::render::grouped;
use crate::screen::Screen;
use crate::serve::Ended;

/// The first wait before another connection, unless the node names one; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// Media types of what is sent.
const NDJSON: &str = "application/x-ndjson";
const FRAME: &str = "application/vnd.sluicebox.frame";
const JPEG: &str = "image/jpeg";
const BYTES: &str = "application/octet-stream";

/// `stream`
pub(crate) async fn run(screen: Screen, args: StreamArgs) -> Result<Ended, Failure> {
    let client = Client::new(&args.connection)?;
    let file = args.file.as_deref().filter(|path| *path != Path::new("-"));
    let form = form(&args.cutting, file)?;
    let media_type = media_type(form, args.content_type.as_deref())?;
    let every_second = args.every.map(|every| 1.0 / every.as_secs_f64()).or(args.rate);
    let source = Source::new(source::open(file).await?, form, every_second);
    let path = format!("/streams/{}", quoted(&args.key));
    let path = client.pipeline(&args.pipeline, &path);
    let (patience, key) = (args.patience, args.key.clone());
    let prefixed = !matches!(form, Form::Lines | Form::Frames);
    if file.is_none() && std::io::stdin().is_terminal() {
        screen.hint("reading from the terminal; Ctrl-D ends the stream");
    }
    let request = Request { path, media_type, prefixed, args };
    let mut stream = Stream::new(client, source, screen, request);
    let stop = {
        let attempts = attempts(&mut stream, patience);
        tokio::select! {
            biased;
            // What is under way is broken off, which leaves the stream open.
            pressed = tokio::signal::ctrl_c() => {
                pressed.map_err(|error| Failure::local("wait for Ctrl-C", &error))?;
                Ok(Stop::Interrupted)
            }
            stop = attempts => stop,
        }
    };
    finish(screen, &stream, &key, stop)
}

/// Connects as often as it takes, until patience ends without anything gained.
async fn attempts(stream: &mut Stream, patience: Duration) -> Result<Stop, Failure> {
    let (mut give_up, mut wait) = (Instant::now() + patience, RETRY_FIRST);
    loop {
        let (before, start) = (stream.gained(), Instant::now());
        let failure = match stream.connect().await {
            Ok(stop) => return Ok(stop),
            Err(failure) => failure,
        };
        // A source may have been silent for so long that the node suspended the session.
        if stream.gained() > before || start.elapsed() > patience {
            (give_up, wait) = (Instant::now() + patience, RETRY_FIRST);
        }
        let pause = failure.retry_after.unwrap_or(wait);
        // The first try tells people of a wrong address at once.
        let fresh = !stream.was_open() && failure.code == "client.connect";
        let passing = failure.cause == Cause::Unavailable || failure.may_pass();
        // A node that starts does not know its pipelines yet.
        let starts = stream.was_open() && failure.cause == Cause::NotFound;
        let passing = passing || starts || stream.skip_dropped(&failure);
        if !passing || fresh || Instant::now() + pause > give_up {
            return Err(failure);
        }
        stream.hint(&format!("{}; trying again", failure.what));
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

/// Says what became of the stream.
fn finish(
    screen: Screen,
    stream: &Stream,
    key: &str,
    stop: Result<Stop, Failure>,
) -> Result<Ended, Failure> {
    let open = || match stream.place() {
        Some((first, taken, cursor)) => format!(
            "the stream {key} is left open with {} taken; to go on, give the same input with \
             --from {first} --cursor {cursor}",
            units(taken - first)
        ),
        None => format!("nothing was sent to the stream {key}"),
    };
    let stop = match stop {
        Ok(stop) => stop,
        Err(failure) if failure.broken_pipe || stream.place().is_none() => return Err(failure),
        Err(mut failure) => {
            failure.what = format!("{}; {}", failure.what, open());
            return Err(failure);
        }
    };
    match stop {
        Stop::Interrupted => screen.warn(&open()),
        Stop::LeftOpen => screen.hint(&open()),
        Stop::Ended => screen.hint(&format!("{} taken", units(stream.taken()))),
        Stop::TakenBefore => screen.hint("all of it was taken before, and more behind it"),
    }
    refusals(stream)?;
    Ok(if matches!(stop, Stop::Interrupted) { Ended::AtOnce } else { Ended::Done })
}

/// Fails if units were left out.
fn refusals(stream: &Stream) -> Result<(), Failure> {
    let (count, listed) = stream.rejected();
    if count == 0 {
        return Ok(());
    }
    let what = match count {
        1 => "one unit was refused".to_owned(),
        many => format!("{} units were refused", grouped(many)),
    };
    let mut failure = Failure::new(Cause::Partial, what).code("ingest.rejected");
    failure.mistakes = listed
        .iter()
        .map(|(number, why)| Mistake {
            place: format!("unit {number}"),
            what: why.clone(),
            fix: None,
        })
        .collect();
    Err(failure)
}

fn units(count: u64) -> String {
    match count {
        1 => "1 unit".to_owned(),
        many => format!("{} units", grouped(many)),
    }
}

/// How to cut: as was said, or as the file's name says.
fn form(cutting: &Cutting, file: Option<&Path>) -> Result<Form, Failure> {
    match *cutting {
        Cutting { lines: true, .. } => return Ok(Form::Lines),
        Cutting { frames: true, .. } => return Ok(Form::Frames),
        Cutting { prefixed: true, .. } => return Ok(Form::Prefixed),
        Cutting { jpeg: true, .. } => return Ok(Form::Jpeg),
        Cutting { chunk: Some(bytes), .. } => return Ok(Form::Chunks(bytes)),
        Cutting { chunk: None, .. } => {}
    }
    // Of standard input `send` expects the same.
    let Some(file) = file else { return Ok(Form::Lines) };
    match file.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).as_deref() {
        Some("ndjson" | "jsonl" | "json") => Ok(Form::Lines),
        Some("mjpeg" | "mjpg" | "jpeg" | "jpg") => Ok(Form::Jpeg),
        _ => {
            let what = format!("{} does not say by its name how it is cut", file.display());
            Err(Failure::new(Cause::Usage, what)
                .fix("say --lines, --jpeg, --chunk BYTES, --prefixed or --frames"))
        }
    }
}

/// The content type of the body; where that is cut by the node, of each unit.
fn media_type(form: Form, asked: Option<&str>) -> Result<String, Failure> {
    let usual = match form {
        Form::Lines => NDJSON,
        Form::Frames => FRAME,
        Form::Jpeg => JPEG,
        Form::Chunks(_) | Form::Prefixed => BYTES,
    };
    if asked.is_some() && matches!(form, Form::Lines | Form::Frames) {
        let what = "lines and packed frames have their own content type";
        return Err(Failure::new(Cause::Usage, what).fix("leave out --content-type"));
    }
    Ok(asked.unwrap_or(usual).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Cutting =
        Cutting { lines: false, frames: false, chunk: None, prefixed: false, jpeg: false };

    #[test]
    fn the_name_of_a_file_says_how_it_is_cut_unless_something_else_was_said() {
        for (name, expected) in [
            ("a.ndjson", Form::Lines),
            ("a.JSONL", Form::Lines),
            ("a.json", Form::Lines),
            ("a.b.mjpeg", Form::Jpeg),
        ] {
            assert_eq!(form(&NOTHING, Some(Path::new(name))), Ok(expected), "{name}");
        }
        assert_eq!(form(&NOTHING, None), Ok(Form::Lines));
        let chunk = Cutting { chunk: Some(7), ..NOTHING };
        assert_eq!(form(&chunk, Some(Path::new("a.json"))), Ok(Form::Chunks(7)));
        for unknown in ["a.mp4", "a"] {
            let failure = form(&NOTHING, Some(Path::new(unknown))).unwrap_err();
            assert_eq!(failure.cause, Cause::Usage, "{unknown}");
        }
    }

    #[test]
    fn a_content_type_is_that_of_the_units() {
        assert_eq!(media_type(Form::Jpeg, None), Ok("image/jpeg".to_owned()));
        assert_eq!(media_type(Form::Chunks(4), Some("audio/L16")), Ok("audio/L16".to_owned()));
        assert_eq!(media_type(Form::Lines, Some("text/plain")).unwrap_err().cause, Cause::Usage);
    }
}
