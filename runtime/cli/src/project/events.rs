//! Recorded events and expected outputs: lines of JSON in files beside a pipeline.
//!
//! An event is `{key, data | data_base64, time}`; what else a line has, as those that `tail`
//! writes, is passed over. An expected output says where it comes out and as much of the record as
//! is to be compared; a field nobody knows is a mistake, since it would be compared with nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::failure::{Cause, Failure, Mistake, printable};

/// The name under which dead letters are expected.
pub(super) const DEAD_LETTERS: &str = "dead-letters";

/// What of a record may be expected.
const FIELDS: [&str; 7] = ["key", "port", "data", "data_base64", "time", "stage", "class"];

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Differences that are shown; all are counted.
const SHOWN_MAX: usize = 20;

/// Where something comes out, and its key: of these, order is kept.
type Place = (String, String);

/// Outputs in the order they came in, place by place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outputs {
    by_place: BTreeMap<Place, Vec<Value>>,
}

/// The events of a file as CloudEvents, one a line.
pub(super) fn events(file: &Path) -> Result<(Vec<u8>, usize), Failure> {
    let mut text = Vec::new();
    let mut count = 0;
    for (number, line) in lines(file)? {
        let event = cloud_event(number, &line)
            .map_err(|what| wrong(file, number, what, "write {\"key\": \"k\", \"data\": 1}"))?;
        text.extend_from_slice(event.to_string().as_bytes());
        text.push(b'\n');
        count += 1;
    }
    Ok((text, count))
}

fn cloud_event(number: usize, line: &Map<String, Value>) -> Result<Value, String> {
    let mut event = json!({
        "specversion": "1.0", "id": number.to_string(), "source": "events.ndjson", "type": "event",
    });
    let text = |name: &str| match line.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} is no text")),
    };
    if let Some(key) = text("key")? {
        event["partitionkey"] = key.into();
    }
    if let Some(time) = text("time")? {
        event["time"] = time.into();
    }
    match (line.get("data"), text("data_base64")?) {
        (Some(_), Some(_)) => return Err("it has both data and data_base64".to_owned()),
        (None, None) => return Err("it has neither data nor data_base64".to_owned()),
        (None, Some(bytes)) => event["data_base64"] = bytes.into(),
        (Some(data), None) => {
            // Of a text the payload is the text itself, and not its JSON.
            let media = if data.is_string() { "text/plain" } else { "application/json" };
            event["datacontenttype"] = media.into();
            event["data"] = data.clone();
        }
    }
    Ok(event)
}

impl Outputs {
    /// What a file expects; nothing if there is none.
    pub(super) fn expected(file: &Path) -> Result<Self, Failure> {
        let mut outputs = Self::default();
        if !file.exists() {
            return Ok(outputs);
        }
        for (number, mut line) in lines(file)? {
            let fix = "write {\"output\": \"reply\", \"key\": \"k\", \"data\": 1}";
            let Some(Value::String(output)) = line.remove("output") else {
                return Err(wrong(file, number, "it does not say which output".to_owned(), fix));
            };
            if let Some(unknown) = line.keys().find(|name| !FIELDS.contains(&name.as_str())) {
                let what = format!("{} is nothing that is compared", printable(unknown));
                return Err(wrong(file, number, what, &format!("known are {}", FIELDS.join(", "))));
            }
            outputs.push(&output, line);
        }
        Ok(outputs)
    }

    /// Takes in a record that came.
    pub(super) fn add(&mut self, output: &str, record: Value) {
        if let Value::Object(record) = record {
            self.push(output, record);
        }
    }

    fn push(&mut self, output: &str, record: Map<String, Value>) {
        let key = record.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.by_place.entry((output.to_owned(), key)).or_default().push(Value::Object(record));
    }

    pub(super) fn len(&self) -> usize {
        self.by_place.values().map(Vec::len).sum()
    }

    /// The file that expects just these.
    pub(super) fn text(&self, with_time: bool) -> String {
        let mut text = String::new();
        for ((output, _), records) in &self.by_place {
            for record in records {
                let mut line = Map::new();
                line.insert("output".to_owned(), output.clone().into());
                for field in FIELDS {
                    // The usual port need not be said.
                    let is_said = match field {
                        "time" => with_time,
                        "port" => record.get("port").is_some_and(|port| port != "out"),
                        _ => true,
                    };
                    if let (Some(value), true) = (record.get(field), is_said) {
                        line.insert(field.to_owned(), value.clone());
                    }
                }
                text.push_str(&Value::Object(line).to_string());
                text.push('\n');
            }
        }
        text
    }

    /// What differs, in lines; nothing if everything came as it is expected.
    pub(super) fn differences(expected: &Self, found: &Self) -> Vec<String> {
        let places = expected.by_place.keys();
        let more = found.by_place.keys().filter(|place| !expected.by_place.contains_key(*place));
        let mut differences = Vec::new();
        for place in places.chain(more) {
            let wanted = expected.by_place.get(place).map_or(&[][..], Vec::as_slice);
            let came = found.by_place.get(place).map_or(&[][..], Vec::as_slice);
            differences.extend(differences_of(place, wanted, came));
        }
        differences
    }
}

fn differences_of(place: &Place, wanted: &[Value], came: &[Value]) -> Vec<String> {
    let (output, key) = place;
    let at = |number: usize| format!("{output}, key {}, number {}", printable(key), number + 1);
    let mut differences = Vec::new();
    for number in 0..wanted.len().max(came.len()) {
        let line = match (wanted.get(number), came.get(number)) {
            (Some(wanted), Some(came)) if fits(wanted, came) => continue,
            (wanted, came) => {
                let like = wanted.and_then(Value::as_object);
                let minus = wanted.map(|wanted| format!("\n  - {}", shown(wanted, None)));
                let plus = came.map(|came| format!("\n  + {}", shown(came, like)));
                format!("{}:{}{}", at(number), minus.unwrap_or_default(), plus.unwrap_or_default())
            }
        };
        differences.push(line);
    }
    differences
}

/// The first differences, and how many more there are.
pub(super) fn shortened(differences: &[String]) -> String {
    let mut text = differences[..differences.len().min(SHOWN_MAX)].join("\n");
    if differences.len() > SHOWN_MAX {
        text.push_str(&format!("\n... and {} more", differences.len() - SHOWN_MAX));
    }
    text
}

/// Whether a record has all that is expected of it.
fn fits(wanted: &Value, came: &Value) -> bool {
    wanted.as_object().into_iter().flatten().all(|(name, value)| came.get(name) == Some(value))
}

/// A record with what is compared; with what another one says, if there is one.
fn shown(record: &Value, like: Option<&Map<String, Value>>) -> String {
    let is_shown = |name: &str| match like {
        Some(like) => like.contains_key(name),
        None => name != "time" && name != "port",
    };
    let mut line = Map::new();
    for field in FIELDS.into_iter().filter(|field| is_shown(field)) {
        if let Some(value) = record.get(field) {
            line.insert(field.to_owned(), value.clone());
        }
    }
    printable(&Value::Object(line).to_string())
}

/// A record, and the line it is in.
type Numbered = (usize, Map<String, Value>);

/// The lines of a file that are not empty, by number.
fn lines(file: &Path) -> Result<Vec<Numbered>, Failure> {
    let doing = || format!("read {}", file.display());
    let size = std::fs::metadata(file).map_err(|error| Failure::local(doing(), &error))?.len();
    if size > FILE_BYTES_MAX {
        let what = format!("{} has more than {FILE_BYTES_MAX} bytes", file.display());
        return Err(Failure::new(Cause::Local, what).fix("try with fewer events"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| Failure::local(doing(), &error))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(at, line)| match serde_json::from_str(line) {
        Ok(Value::Object(line)) => Ok((at + 1, line)),
        Ok(_) => Err(wrong(file, at + 1, "it is no object".to_owned(), "write {...}")),
        Err(error) => Err(wrong(file, at + 1, error.to_string(), "write one JSON object a line")),
    });
    read.collect()
}

fn wrong(file: &Path, number: usize, what: String, fix: &str) -> Failure {
    let mut failure = Failure::new(Cause::Invalid, format!("{} is wrong", file.display()));
    let place = format!("line {number}");
    failure.mistakes.push(Mistake { place, what, fix: Some(fix.to_owned()) });
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(records: &[Value]) -> Outputs {
        let mut outputs = Outputs::default();
        for record in records {
            outputs.add("reply", record.clone());
        }
        outputs
    }

    #[test]
    fn order_counts_within_a_key_and_only_what_is_said_is_compared() {
        let expected = outputs(&[
            json!({"key": "a", "data": 1}),
            json!({"key": "a", "data": 2}),
            json!({"key": "b", "data": 1}),
        ]);
        let came = |data: [u8; 2]| {
            outputs(&[
                json!({"key": "b", "data": 1, "offset": 7}),
                json!({"key": "a", "data": data[0], "time": "t"}),
                json!({"key": "a", "data": data[1]}),
            ])
        };
        assert_eq!(Outputs::differences(&expected, &came([1, 2])), [""; 0]);
        let wrong = Outputs::differences(&expected, &came([2, 1]));
        assert_eq!(wrong.len(), 2);
        assert_eq!(
            wrong[0],
            "reply, key a, number 1:\n  - {\"data\":1,\"key\":\"a\"}\n  + {\"data\":2,\"key\":\"a\"}"
        );
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_differ() {
        let one = outputs(&[json!({"key": "a", "data": 1})]);
        let none = outputs(&[]);
        let missing = Outputs::differences(&one, &none);
        assert_eq!(missing, ["reply, key a, number 1:\n  - {\"data\":1,\"key\":\"a\"}"]);
        let more = Outputs::differences(&none, &one);
        assert_eq!(more, ["reply, key a, number 1:\n  + {\"data\":1,\"key\":\"a\"}"]);
    }

    #[test]
    fn what_came_is_what_its_own_file_expects() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outputs.ndjson");
        let came =
            outputs(&[json!({"key": "a", "data": "x", "port": "late", "time": "t", "offset": 1})]);
        std::fs::write(&file, came.text(false)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("late") && !text.contains("time") && !text.contains("offset"),
            "{text}"
        );
        let expected = Outputs::expected(&file).unwrap();
        assert_eq!(Outputs::differences(&expected, &came), [""; 0]);
        std::fs::write(&file, "{\"output\": \"reply\", \"dta\": 1}\n").unwrap();
        let failure = Outputs::expected(&file).unwrap_err();
        assert!(failure.text().contains("line 1: dta is nothing"), "{}", failure.text());
    }

    #[test]
    fn an_event_is_what_tail_writes_or_less() {
        let line = |text: &str| {
            cloud_event(3, serde_json::from_str::<Value>(text).unwrap().as_object().unwrap())
        };
        let event =
            line(r#"{"id":"x","key":"k","data":{"n":1},"partition":2,"offset":9}"#).unwrap();
        assert_eq!((&event["partitionkey"], &event["data"]), (&json!("k"), &json!({"n": 1})));
        assert_eq!((&event["id"], event.get("offset")), (&json!("3"), None));
        assert_eq!(line(r#"{"data":"t"}"#).unwrap()["datacontenttype"], "text/plain");
        assert_eq!(line(r#"{"data_base64":"/w=="}"#).unwrap()["data_base64"], "/w==");
        assert!(line(r#"{"key":"k"}"#).unwrap_err().contains("neither"));
        assert!(line(r#"{"key":1,"data":1}"#).unwrap_err().contains("key is no text"));
    }
}
