//! What is asked of a stream of JetStream, and what its answers mean.
//!
//! All questions are of the API that any client may use (`$JS.API.…`): nothing is changed but that
//! a consumer is made where there is none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::super::Fault;
use super::client::Client;
use super::wire::{HEADER_BYTES_MAX, Header, nonsense};
use crate::error::shown;
use crate::http::parse_rfc3339;

/// What the server says where there is no consumer, and no message.
const NO_CONSUMER: u64 = 10_014;
const NO_MESSAGE: u64 = 10_037;

/// How long the server waits for what was delivered to be confirmed, in nanoseconds. What is
/// lost on the way is read by its number; it is confirmed when it comes again.
const ACK_WAIT_NS: u64 = 10_000_000_000;
/// Deliveries that are not confirmed before the server waits. Each session that ends leaves some
/// behind for the time above, so that these are some sessions' in a row.
const OPEN_MAX: u64 = 4096;

/// Bytes besides the message in an answer that holds one.
const ANSWER_BYTES: usize = 4096;

/// A stream and the consumer of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub stream: String,
    pub consumer: String,
    /// Which messages of it.
    pub filter: Option<String>,
}

/// How a consumer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// All messages up to this number were confirmed, or are before where it begins; none if
    /// nobody knows.
    pub confirmed: Option<u64>,
    /// The last one that was delivered to anybody.
    pub delivered: u64,
    /// How many times something was delivered.
    pub deliveries: u64,
}

/// A stream as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// One that is made again under the same name is another.
    pub created: String,
    /// Number of its last message.
    pub last: u64,
}

/// A message of a stream, read by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub number: u64,
    pub subject: String,
    /// None if it is larger than wanted, or its header is none.
    pub content: Option<(Header, Bytes)>,
    /// When the stream got it, in microseconds.
    pub time: Option<u64>,
}

/// What a delivery says of itself, in the subject that confirms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The message's number in its stream.
    pub number: u64,
    /// How many there were, with this one.
    pub deliveries: u64,
    /// When the stream got the message, in microseconds.
    pub time: u64,
    /// Messages that wait behind it.
    pub behind: u64,
}

impl Delivery {
    /// Reads it: `$JS.ACK.stream.consumer.tries.number.deliveries.time.behind`, with a domain, an
    /// account and more in it from servers of some age on.
    pub(super) fn parse(subject: &str) -> Option<Self> {
        let words: Vec<&str> = subject.strip_prefix("$JS.ACK.")?.split('.').take(16).collect();
        let words = match words.len() {
            7 => words.get(3..)?,
            9.. => words.get(5..)?,
            _ => return None,
        };
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        Some(Self {
            number: number(0)?,
            deliveries: number(1)?,
            time: number(2)? / 1000,
            behind: number(3)?,
        })
    }
}

#[derive(Debug, Deserialize)]
struct Maybe {
    error: Option<Wrong>,
}

/// Why the server does not do something.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wrong {
    pub err_code: u64,
    pub description: String,
}

impl Wrong {
    pub(super) fn fault(&self, what: &str) -> Fault {
        let (code, description) = (self.err_code, shown(&self.description));
        Fault::new("connector.stream", format!("{what}: the server says {description} ({code})"))
    }
}

#[derive(Debug, Deserialize)]
struct StreamAnswer {
    created: String,
    state: StateAnswer,
}

#[derive(Debug, Deserialize)]
struct StateAnswer {
    last_seq: u64,
}

#[derive(Debug, Deserialize)]
struct ConsumerAnswer {
    config: ConfigAnswer,
    delivered: PairAnswer,
    ack_floor: PairAnswer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigAnswer {
    ack_policy: String,
    deliver_policy: String,
    deliver_subject: String,
    filter_subject: String,
    filter_subjects: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct PairAnswer {
    consumer_seq: u64,
    stream_seq: u64,
}

#[derive(Debug, Deserialize)]
struct MessageAnswer {
    message: StoredAnswer,
}

#[derive(Debug, Deserialize)]
struct StoredAnswer {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    time: String,
}

/// What is said of a stream.
pub(super) async fn known(client: &mut Client, stream: &str) -> Result<Known, Fault> {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let answer: StreamAnswer =
        ask(client, &subject, b"").await?.map_err(|wrong| wrong.fault("the stream"))?;
    Ok(Known { created: answer.created, last: answer.state.last_seq })
}

/// How the consumer stands; none if there is none.
pub(super) async fn standing(
    client: &mut Client,
    names: &Names,
) -> Result<Option<Standing>, Fault> {
    let subject = format!("$JS.API.CONSUMER.INFO.{}.{}", names.stream, names.consumer);
    match ask::<ConsumerAnswer>(client, &subject, b"").await? {
        Ok(answer) => checked(names, answer).map(Some),
        Err(wrong) if wrong.err_code == NO_CONSUMER => Ok(None),
        Err(wrong) => Err(wrong.fault("the consumer")),
    }
}

/// Makes the consumer. It begins behind this message; where that is not allowed, or none is said,
/// with the first that is there, or with what comes.
pub(super) async fn make(
    client: &mut Client,
    names: &Names,
    (behind, begins_new): (Option<u64>, bool),
) -> Result<Standing, Fault> {
    let of_filter = names.filter.as_ref().map(|filter| format!(".{filter}")).unwrap_or_default();
    let (stream, consumer) = (&names.stream, &names.consumer);
    let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}{of_filter}");
    let policy = match (behind, begins_new) {
        (Some(_), _) => "by_start_sequence",
        (None, true) => "new",
        (None, false) => "all",
    };
    let config = |policy: &str| {
        let mut config = json!({
            "name": consumer,
            "durable_name": consumer,
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "deliver_policy": policy,
            "ack_wait": ACK_WAIT_NS,
            "max_ack_pending": OPEN_MAX,
        });
        if let Some(filter) = &names.filter {
            config["filter_subject"] = filter.as_str().into();
        }
        if let Some(behind) = behind.filter(|_| policy != "all") {
            config["opt_start_seq"] = behind.saturating_add(1).into();
        }
        json!({ "stream_name": stream, "config": config }).to_string()
    };
    let mut made = ask::<ConsumerAnswer>(client, &subject, config(policy).as_bytes()).await?;
    if made.is_err() && behind.is_some() {
        // Streams of work begin with what is there, which is what was not confirmed.
        made = ask(client, &subject, config("all").as_bytes()).await?;
    }
    checked(names, made.map_err(|wrong| wrong.fault("the consumer cannot be made"))?)
}

/// A consumer with other messages than the source wants is not for it.
fn checked(names: &Names, answer: ConsumerAnswer) -> Result<Standing, Fault> {
    let ConsumerAnswer { config, delivered, ack_floor } = answer;
    let wrong = |why: &str| {
        let message = format!("the consumer {} {why}; name another", names.consumer);
        Err(Fault::new("connector.stream", message))
    };
    if !config.deliver_subject.is_empty() {
        return wrong("is one the server pushes to");
    }
    if config.ack_policy != "explicit" {
        return wrong("is one whose messages need not be confirmed");
    }
    let filter = names.filter.as_deref().unwrap_or_default();
    let is_other = |known: &String| known != filter;
    if is_other(&config.filter_subject) || config.filter_subjects.iter().any(is_other) {
        return wrong("takes other subjects");
    }
    // Where nothing was confirmed yet, servers say so, and not where the consumer begins.
    let confirmed = match (delivered.consumer_seq, ack_floor.consumer_seq) {
        (0, _) => Some(delivered.stream_seq),
        (_, 0) if config.deliver_policy != "all" => None,
        _ => Some(ack_floor.stream_seq),
    };
    Ok(Standing { confirmed, delivered: delivered.stream_seq, deliveries: delivered.consumer_seq })
}

/// The first message from this number on, of those that the source wants.
pub(super) async fn stored(
    client: &mut Client,
    names: &Names,
    from: u64,
) -> Result<Option<Stored>, Fault> {
    let subject = format!("$JS.API.STREAM.MSG.GET.{}", names.stream);
    let filter = names.filter.as_deref().unwrap_or(">");
    let question = json!({ "seq": from, "next_by_subj": filter }).to_string();
    let message = client.ask(&subject, question.as_bytes()).await?;
    if !message.is_whole {
        // Larger than wanted, even without the form it is in here.
        let number = number_of_cut(&message.payload).filter(|number| *number >= from);
        let number = number.ok_or_else(strange)?;
        return Ok(Some(Stored { number, subject: String::new(), content: None, time: None }));
    }
    let found = match read::<MessageAnswer>(&message.payload)? {
        Ok(answer) => answer.message,
        Err(wrong) if wrong.err_code == NO_MESSAGE => return Ok(None),
        Err(wrong) => return Err(wrong.fault("a message that was delivered before")),
    };
    if found.seq < from {
        return Err(strange());
    }
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| strange());
    let (header, payload) = (bytes(&found.hdrs)?, Bytes::from(bytes(&found.data)?));
    let header = match header.as_slice() {
        [] => Some(Header::default()),
        header => Header::parse(header),
    };
    let time = parse_rfc3339(found.time.as_bytes());
    let content = header.map(|header| (header, payload));
    Ok(Some(Stored { number: found.seq, subject: found.subject, content, time }))
}

/// Bytes of the largest answer that holds a message of this size.
pub(super) const fn answer_bytes_max(message_bytes: usize) -> usize {
    (message_bytes + HEADER_BYTES_MAX).div_ceil(3) * 4 + ANSWER_BYTES
}

/// The number of a message whose answer was cut: it is before its content.
fn number_of_cut(payload: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(payload);
    let (_, behind) = text.split_once("\"seq\":")?;
    let digits = behind.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

async fn ask<T: DeserializeOwned>(
    client: &mut Client,
    subject: &str,
    question: &[u8],
) -> Result<Result<T, Wrong>, Fault> {
    let message = client.ask(subject, question).await?;
    if message.header.as_ref().and_then(|header| header.status) == Some(503) {
        let message = "the server has no JetStream, or none for this account";
        return Err(Fault::new("connector.stream", message));
    }
    read(&message.payload)
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<Result<T, Wrong>, Fault> {
    let maybe: Maybe = serde_json::from_slice(payload).map_err(|_| strange())?;
    match maybe.error {
        Some(wrong) => Ok(Err(wrong)),
        None => serde_json::from_slice(payload).map(Ok).map_err(|_| strange()),
    }
}

fn strange() -> Fault {
    nonsense("JetStream answers something else than was asked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_says_which_message_it_is_whatever_the_server_puts_before() {
        let told = Delivery { number: 7, deliveries: 9, time: 1_700_000_000_000_000, behind: 3 };
        for subject in [
            "$JS.ACK.S.c.1.7.9.1700000000000000123.3",
            "$JS.ACK.hub.ACCHASH.S.c.1.7.9.1700000000000000123.3",
            "$JS.ACK._.ACCHASH.S.c.1.7.9.1700000000000000123.3.rnd",
        ] {
            assert_eq!(Delivery::parse(subject), Some(told), "{subject}");
        }
        for wrong in ["", "a.b", "$JS.ACK.S.c.1.7.9.1", "$JS.ACK.S.c.1.x.9.1.3", "$JS.ACK."] {
            assert_eq!(Delivery::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_consumer_for_other_messages_is_not_used() {
        let names = Names {
            stream: "S".to_owned(),
            consumer: "c".to_owned(),
            filter: Some("a.>".to_owned()),
        };
        let code = |config: &str| {
            let text = format!(
                r#"{{"config":{{{config}}},"num_pending":3,"ack_floor":{{"consumer_seq":1,
                "stream_seq":4}},"delivered":{{"consumer_seq":9,"stream_seq":6}}}}"#
            );
            let answer = read::<ConsumerAnswer>(text.as_bytes()).expect("JSON").expect("no error");
            checked(&names, answer).map_err(|fault| fault.message)
        };
        let good = r#""ack_policy":"explicit","filter_subject":"a.>""#;
        let standing = Standing { confirmed: Some(4), delivered: 6, deliveries: 9 };
        assert_eq!(code(good), Ok(standing));
        // What was never confirmed is known of consumers that begin with the first alone.
        let answer = |policy: &str, deliveries: u64| ConsumerAnswer {
            config: ConfigAnswer {
                ack_policy: "explicit".to_owned(),
                deliver_policy: policy.to_owned(),
                filter_subject: "a.>".to_owned(),
                ..ConfigAnswer::default()
            },
            delivered: PairAnswer { consumer_seq: deliveries, stream_seq: 6 },
            ack_floor: PairAnswer { consumer_seq: 0, stream_seq: 0 },
        };
        for (policy, deliveries, confirmed) in
            [("new", 0, Some(6)), ("new", 1, None), ("all", 1, Some(0)), ("all", 0, Some(6))]
        {
            let found = checked(&names, answer(policy, deliveries)).expect("for it");
            assert_eq!(found.confirmed, confirmed, "{policy} {deliveries}");
        }
        for wrong in [
            r#""ack_policy":"none","filter_subject":"a.>""#,
            r#""ack_policy":"explicit","filter_subject":"a.*""#,
            r#""ack_policy":"explicit""#,
            r#""ack_policy":"explicit","filter_subjects":["a.>","b"]"#,
            r#""ack_policy":"explicit","filter_subject":"a.>","deliver_subject":"x""#,
        ] {
            assert!(code(wrong).is_err_and(|why| why.contains("the consumer c ")), "{wrong}");
        }
    }

    #[test]
    fn errors_and_answers_that_are_none_are_told_apart() {
        let error = r#"{"type":"t","error":{"code":404,"err_code":10014,"description":"no"}}"#;
        let wrong = read::<StreamAnswer>(error.as_bytes()).expect("an answer").expect_err("one");
        assert_eq!(wrong.err_code, NO_CONSUMER);
        for strange in ["", "[]", "{}", r#"{"created":"x"}"#, "{\"error\":5}"] {
            assert!(read::<StreamAnswer>(strange.as_bytes()).is_err(), "{strange}");
        }
        assert_eq!(number_of_cut(br#"{"message":{"subject":"a","seq":17,"data":"AA"#), Some(17));
        assert_eq!(number_of_cut(br#"{"message":{"subject":"a"#), None);
    }
}
