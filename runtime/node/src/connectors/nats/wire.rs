//! What a server of NATS says, cut out of its bytes.
//!
//! ```text
//! INFO {…}␍␊   PING␍␊   PONG␍␊   +OK␍␊   -ERR '…'␍␊
//! MSG subject sid [reply] bytes␍␊payload␍␊
//! HMSG subject sid [reply] header-bytes all-bytes␍␊header payload␍␊
//! ```
//!
//! - The server is believed nothing: lines, headers and payloads have bounds, and what is no such
//!   message is a fault, behind which nothing more is read.
//! - Of a message that is larger than its reader wants only the beginning is kept, whatever it says
//!   of its size: the rest goes as it comes.
//!
//! Pure: whoever reads the connection puts bytes in.

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::super::Fault;

/// Longest line; INFO names all servers of a cluster.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest header.
pub(super) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Fields of a header that are looked at.
const HEADER_FIELDS_MAX: usize = 256;
/// What no server sends: none can be configured for more.
const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// What is kept of a message that is too large.
const BEGINNING_BYTES: usize = 1024;

/// Something a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Info(Info),
    Message(Message),
    Ping,
    Pong,
    Okay,
    Error(String),
}

/// How the server is. Other servers that it names are not for it to choose, and not read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    /// Bytes of the largest message it takes, header and payload.
    pub max_payload: u64,
    pub tls_required: bool,
    pub headers: bool,
    /// What an nkey signs.
    pub nonce: String,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub subject: String,
    pub reply: Option<String>,
    /// None if they are none.
    pub header: Option<Header>,
    /// All of it, or the beginning of one that is too large.
    pub payload: Bytes,
    pub is_whole: bool,
}

/// What is before the payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// What the server says instead of a message.
    pub status: Option<u16>,
    pub about: String,
    /// The fields that mean something here: what is said of the payload.
    pub fields: HeaderMap,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cut {
    pub bytes: BytesMut,
    payload_bytes_max: usize,
    at: At,
}

#[derive(Debug)]
enum At {
    Line,
    /// In a message of which all is wanted.
    Message(Head),
    /// In one that is too large: what is kept of it, and the bytes that are still to go.
    Excess(Head, BytesMut, usize),
}

/// The line of a message.
#[derive(Debug, Default)]
struct Head {
    subject: String,
    reply: Option<String>,
    header_bytes: usize,
    all_bytes: usize,
}

impl Cut {
    /// Of a connection that has just begun. Payloads of more than these bytes are cut.
    pub(super) fn new(payload_bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), payload_bytes_max, at: At::Line }
    }

    /// What is said next, if all of it is there.
    ///
    /// # Errors
    /// It is nothing that a server of NATS says.
    pub(super) fn next(&mut self) -> Result<Option<Said>, Fault> {
        loop {
            match std::mem::replace(&mut self.at, At::Line) {
                At::Line => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    match said(&line)? {
                        Line::Said(said) => return Ok(Some(said)),
                        Line::Message(head) => self.at = self.message_at(head),
                    }
                }
                At::Message(head) => {
                    if self.bytes.len() < head.all_bytes + 2 {
                        // At once, rather than bit by bit and copied each time.
                        self.bytes.reserve(head.all_bytes + 2 - self.bytes.len());
                        self.at = At::Message(head);
                        return Ok(None);
                    }
                    let header = self.bytes.split_to(head.header_bytes);
                    let payload = self.bytes.split_to(head.all_bytes - head.header_bytes);
                    if self.bytes.split_to(2) != b"\r\n"[..] {
                        return Err(nonsense("a message does not end where it says"));
                    }
                    let header = match head.header_bytes {
                        0 => Some(Header::default()),
                        _ => Header::parse(&header),
                    };
                    let (subject, reply, payload) = (head.subject, head.reply, payload.freeze());
                    let message = Message { subject, reply, header, payload, is_whole: true };
                    return Ok(Some(Said::Message(message)));
                }
                At::Excess(head, mut kept, mut left) => {
                    let more = self.bytes.len().min(left);
                    let wanted = BEGINNING_BYTES.saturating_sub(kept.len()).min(more);
                    kept.extend_from_slice(&self.bytes[..wanted]);
                    self.bytes.advance(more);
                    left -= more;
                    if left > 0 {
                        self.at = At::Excess(head, kept, left);
                        return Ok(None);
                    }
                    let (subject, reply, payload) = (head.subject, head.reply, kept.freeze());
                    let header = Some(Header::default());
                    let message = Message { subject, reply, header, payload, is_whole: false };
                    return Ok(Some(Said::Message(message)));
                }
            }
        }
    }

    fn message_at(&self, head: Head) -> At {
        let payload_bytes = head.all_bytes - head.header_bytes;
        let fits = payload_bytes <= self.payload_bytes_max && head.header_bytes <= HEADER_BYTES_MAX;
        if fits {
            return At::Message(head);
        }
        let left = head.all_bytes + 2;
        At::Excess(head, BytesMut::new(), left)
    }

    /// A line without its end.
    fn line(&mut self) -> Result<Option<BytesMut>, Fault> {
        match memchr::memchr(b'\n', &self.bytes) {
            Some(end) if end <= LINE_BYTES_MAX => {
                let mut line = self.bytes.split_to(end + 1);
                let bare = line.strip_suffix(b"\r\n").map_or(end, <[u8]>::len);
                line.truncate(bare);
                Ok(Some(line))
            }
            None if self.bytes.len() <= LINE_BYTES_MAX => Ok(None),
            _ => Err(nonsense("a line has no end")),
        }
    }
}

enum Line {
    Said(Said),
    Message(Head),
}

fn said(line: &[u8]) -> Result<Line, Fault> {
    let text = std::str::from_utf8(line).map_err(|_| nonsense("a line is no text"))?;
    let (verb, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let said = match verb.to_ascii_uppercase().as_str() {
        "INFO" => {
            let info = serde_json::from_str(rest);
            Said::Info(info.map_err(|_| nonsense("it says nothing of itself that can be read"))?)
        }
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Okay,
        "-ERR" => Said::Error(rest.trim().trim_matches('\'').to_owned()),
        "MSG" => return head(rest, false).map(Line::Message),
        "HMSG" => return head(rest, true).map(Line::Message),
        _ => return Err(nonsense("it says what no server of NATS does")),
    };
    Ok(Line::Said(said))
}

fn head(rest: &str, has_header: bool) -> Result<Head, Fault> {
    let wrong = || nonsense("a message has another form");
    let words: Vec<&str> = rest.split_ascii_whitespace().take(6).collect();
    let (words, numbers) = words
        .split_at_checked(words.len().wrapping_sub(1 + usize::from(has_header)))
        .ok_or_else(wrong)?;
    let reply = match words {
        [_, _] => None,
        [_, _, reply] => Some((*reply).to_owned()),
        _ => return Err(wrong()),
    };
    let number = |at: usize| numbers.get(at).and_then(|word| word.parse::<usize>().ok());
    let (header_bytes, all_bytes) = match has_header {
        true => (number(0).ok_or_else(wrong)?, number(1).ok_or_else(wrong)?),
        false => (0, number(0).ok_or_else(wrong)?),
    };
    if all_bytes > MESSAGE_BYTES_MAX || header_bytes > all_bytes {
        return Err(wrong());
    }
    let subject = words.first().copied().unwrap_or_default().to_owned();
    Ok(Head { subject, reply, header_bytes, all_bytes })
}

impl Header {
    /// Reads `NATS/1.0 [status [about]]` and the fields behind it; none if it is no header.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
        let first = lines.next()?.strip_prefix("NATS/1.0")?.trim();
        let (status, about) = first.split_once(' ').unwrap_or((first, ""));
        let status = match status {
            "" => None,
            status => Some(status.parse().ok()?),
        };
        let mut header = Self { status, about: about.trim().to_owned(), ..Self::default() };
        for (at, line) in lines.enumerate() {
            let (name, value) = line.split_once(':').filter(|_| at < HEADER_FIELDS_MAX)?;
            let is_of_event = name.get(..3).is_some_and(|n| n.eq_ignore_ascii_case("ce-"));
            if !is_of_event && !name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()) {
                continue;
            }
            let name = HeaderName::try_from(name).ok()?;
            let value = HeaderValue::from_bytes(value.trim().as_bytes()).ok()?;
            // The first of a name counts.
            header.fields.entry(name).or_insert(value);
        }
        Some(header)
    }
}

/// What is told of a server that speaks something else.
pub(super) fn nonsense(what: &str) -> Fault {
    Fault::new("connector.protocol", format!("this is no server of NATS as it should be: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], most: usize, piece: usize) -> (Vec<Said>, Option<&'static str>) {
        let (mut cut, mut all) = (Cut::new(most), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            cut.bytes.extend_from_slice(piece);
            loop {
                match cut.next() {
                    Ok(Some(said)) => all.push(said),
                    Ok(None) => break,
                    Err(fault) => return (all, Some(fault.code)),
                }
            }
            let kept = HEADER_BYTES_MAX.max(LINE_BYTES_MAX) + most + piece.len() + 2;
            assert!(cut.bytes.len() <= kept, "what is kept is bounded");
        }
        (all, None)
    }

    fn message(subject: &str, reply: Option<&str>, payload: &str) -> Message {
        Message {
            subject: subject.to_owned(),
            reply: reply.map(str::to_owned),
            header: Some(Header::default()),
            payload: Bytes::from(payload.to_owned()),
            is_whole: true,
        }
    }

    #[test]
    fn what_a_server_says_is_cut_wherever_it_is_torn() {
        let text = "INFO {\"max_payload\":7,\"connect_urls\":[\"10.0.0.1:4222\"],\"x\":[]}\r\n\
                    +OK\r\nPING\r\nping\r\nPONG\r\n-ERR 'Authorization Violation'\r\n\
                    MSG a.b 1 5\r\nhe\r\no\r\nMSG a\t1 r.1  0\r\n\r\n\
                    HMSG a 1 r 28 30\r\nNATS/1.0\r\nCE-id: 7\r\nx: y\r\n\r\nok\r\n";
        let mut last = message("a", Some("r"), "ok");
        let fields = &mut last.header.as_mut().expect("a header").fields;
        fields.insert("ce-id", HeaderValue::from_static("7"));
        let expected = [
            Said::Info(Info { max_payload: 7, ..Info::default() }),
            Said::Okay,
            Said::Ping,
            Said::Ping,
            Said::Pong,
            Said::Error("Authorization Violation".to_owned()),
            Said::Message(message("a.b", None, "he\r\no")),
            Said::Message(message("a", Some("r.1"), "")),
            Said::Message(last),
        ];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(all(text.as_bytes(), 100, piece), (expected_again(&expected), None));
        }
    }

    fn expected_again(all: &[Said]) -> Vec<Said> {
        let again = |said: &Said| match said {
            Said::Info(info) => Said::Info(info.clone()),
            Said::Message(message) => Said::Message(message.clone()),
            Said::Error(text) => Said::Error(text.clone()),
            Said::Ping => Said::Ping,
            Said::Pong => Said::Pong,
            Said::Okay => Said::Okay,
        };
        all.iter().map(again).collect()
    }

    #[test]
    fn of_a_message_that_is_too_large_the_beginning_is_kept_and_the_next_is_whole() {
        let large = format!("MSG a 1 {}\r\n{}\r\nMSG b 1 2\r\nok\r\n", 5000, "x".repeat(5000));
        for piece in [1, 100, 10_000] {
            let (found, fault) = all(large.as_bytes(), 100, piece);
            assert_eq!(fault, None);
            let [Said::Message(large), Said::Message(next)] = found.as_slice() else {
                panic!("{found:?}")
            };
            assert!(!large.is_whole && large.payload == "x".repeat(BEGINNING_BYTES));
            assert_eq!(*next, message("b", None, "ok"));
        }
        let header = format!("HMSG a 1 {0} {0}\r\n{1}\r\n", 70_000, "h".repeat(70_000));
        let (found, _) = all(header.as_bytes(), 1_000_000, 4096);
        let Some(Said::Message(found)) = found.first() else { panic!("{found:?}") };
        assert!(!found.is_whole);
    }

    #[test]
    fn what_no_server_says_ends_it() {
        for wrong in [
            "HTTP/1.1 400 Bad Request\r\n",
            "\r\n",
            "INFO\r\n",
            "INFO []x\r\n",
            "MSG\r\n",
            "MSG a 1\r\n",
            "MSG a 1 r x 5\r\n",
            "MSG a 1 -5\r\n",
            "MSG a 1 99999999999999999999\r\n",
            "MSG a 1 18446744073709551615\r\n",
            "MSG a 1 999999999\r\n",
            "HMSG a 1 5\r\n",
            "HMSG a 1 6 5\r\n",
            "MSG a 1 2\r\nabc\r\n",
            "\u{fffd}\u{fffd}\r\n",
        ] {
            let (_, fault) = all(wrong.as_bytes(), 100, 1000);
            assert_eq!(fault, Some("connector.protocol"), "{wrong:?}");
        }
        let endless = vec![b'x'; LINE_BYTES_MAX + 2];
        assert_eq!(all(&endless, 100, 4096).1, Some("connector.protocol"));
    }

    #[test]
    fn a_header_says_what_the_payload_is_or_is_none() {
        let header = |text: &str| Header::parse(text.as_bytes());
        let status = header("NATS/1.0 404 No Messages\r\n\r\n").expect("a header");
        assert_eq!((status.status, status.about.as_str()), (Some(404), "No Messages"));
        let found = header("NATS/1.0\r\nContent-Type:  text/plain \r\nNats-Msg-Id: 1\r\n\r\n");
        let found = found.expect("a header");
        assert_eq!((found.status, found.fields.len()), (None, 1));
        assert_eq!(found.fields[CONTENT_TYPE], "text/plain");
        for wrong in [
            "",
            "NATS/1.0",
            "NATS/2.0\r\n\r\n",
            "NATS/1.0 x\r\n\r\n",
            "NATS/1.0\r\nno colon\r\n\r\n",
            "NATS/1.0\r\nce-id: \u{1}\r\n\r\n",
            "NATS/1.0\r\nce- id: a\r\n\r\n",
            "NATS/1.0\r\nce-id: a\r\n",
        ] {
            assert_eq!(header(wrong), None, "{wrong:?}");
        }
        assert_eq!(Header::parse(b"NATS/1.0\r\nce-id: \xFF\r\n\r\n"), None);
        let many = "a: b\r\n".repeat(HEADER_FIELDS_MAX + 1);
        assert_eq!(header(&format!("NATS/1.0\r\n{many}\r\n")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_keep_much(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            text in "(MSG|HMSG|INFO|PING|-ERR|[ a-c0-9.{}\"\r\n]){0,60}",
            most in 0_usize..40,
            piece in 1_usize..50,
        ) {
            drop(all(&bytes, most, piece));
            drop(all(text.as_bytes(), most, piece));
        }
    }
}
