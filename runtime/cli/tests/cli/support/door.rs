//! A node's door for streams that plays what a test tells it to, one request after another, and
//! remembers what it heard.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a client may be silent before a test has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What the door does with a request, one behind the other.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A whole reply.
    Answers(u16, String),
    /// The head of a reply in lines: the ordinal, and a cursor.
    Opens(u64, &'static str),
    /// Waits until so many bytes of the body came.
    Takes(usize),
    /// Waits for the end of the body.
    TakesAll,
    /// A line, or a part of one.
    Says(String),
    /// The reply is over.
    Closes,
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// `GET /v1/…`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// What came of the body.
    pub(crate) body: Vec<u8>,
    /// Whether the body ended, and was not broken off.
    pub(crate) ended: bool,
}

impl Heard {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A door on a free port.
pub(crate) struct Door {
    /// Where it listens.
    pub(crate) url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    playing: std::thread::JoinHandle<()>,
}

impl Door {
    /// Plays a list of steps for each request. Behind them the connection is broken off.
    pub(crate) fn playing(requests: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        let playing = std::thread::spawn(move || {
            for steps in requests {
                let (connection, _) = listener.accept().unwrap();
                connection.set_read_timeout(Some(SILENCE_MAX)).unwrap();
                let mut guest = Guest::new(connection);
                let played = steps.into_iter().try_for_each(|step| guest.play(step));
                log.lock().unwrap().push(guest.heard);
                played.unwrap();
            }
        });
        Self { url, heard, playing }
    }

    /// Everything it heard, when all of it was played.
    pub(crate) fn heard(self) -> Vec<Heard> {
        self.playing.join().unwrap();
        self.heard.lock().unwrap().clone()
    }
}

/// One request.
struct Guest {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    heard: Heard,
}

impl Guest {
    fn new(connection: TcpStream) -> Self {
        let writer = connection.try_clone().unwrap();
        let mut reader = BufReader::new(connection);
        let mut heard = Heard { line: line(&mut reader).unwrap(), ..Heard::default() };
        loop {
            let header = line(&mut reader).unwrap();
            let Some((name, value)) = header.split_once(": ") else { break };
            heard.headers.push((name.to_lowercase(), value.to_owned()));
        }
        Self { reader, writer, heard }
    }

    fn play(&mut self, step: Step) -> std::io::Result<()> {
        match step {
            Step::Answers(status, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
                write!(self.writer, "{head}connection: close\r\n\r\n{body}")
            }
            Step::Opens(ordinal, cursor) => write!(
                self.writer,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nsluicebox-ordinal: {ordinal}\r\n\
                 sluicebox-cursor: {cursor}\r\n\r\n"
            ),
            Step::Takes(bytes) => {
                while self.heard.body.len() < bytes {
                    assert!(self.chunk()?, "the body ended before {bytes} bytes");
                }
                Ok(())
            }
            Step::TakesAll => {
                while self.chunk()? {}
                Ok(())
            }
            Step::Says(text) => write!(self.writer, "{:x}\r\n{text}\r\n", text.len()),
            Step::Closes => write!(self.writer, "0\r\n\r\n"),
        }
    }

    /// Reads a chunk of the body; false at its end, or where it is broken off.
    fn chunk(&mut self) -> std::io::Result<bool> {
        let size = line(&mut self.reader)?;
        let Ok(size) = usize::from_str_radix(&size, 16) else { return Ok(false) };
        let mut chunk = vec![0; size];
        self.reader.read_exact(&mut chunk)?;
        self.heard.body.extend(chunk);
        line(&mut self.reader)?;
        self.heard.ended = size == 0;
        Ok(size > 0)
    }
}

/// A line without its end; nothing of a connection that is over.
fn line(reader: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        // What was broken off has no more lines either.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(String::new()),
        read => read.map(|_| line.trim_end().to_owned()),
    }
}
