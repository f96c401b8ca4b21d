//! A node that says what a test wants it to say, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /v1/…`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What to answer: status, extra headers, body.
#[derive(Debug, Clone)]
pub(crate) struct Answer(
    pub(crate) u16,
    pub(crate) Vec<(&'static str, &'static str)>,
    pub(crate) String,
);

/// A node on a free port; ends with the test.
pub(crate) struct FakeNode {
    /// Where it listens.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeNode {
    /// Gives these answers in this order; being asked more often fails the test.
    pub(crate) fn answering(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut answers = answers.into_iter().peekable();
            for connection in listener.incoming() {
                serve(connection.unwrap(), &mut answers, &log);
            }
        });
        Self { url, asked }
    }

    /// Everything it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    connection: TcpStream,
    answers: &mut std::iter::Peekable<impl Iterator<Item = Answer>>,
    log: &Mutex<Vec<Asked>>,
) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    while let Some(asked) = read(&mut reader) {
        log.lock().unwrap().push(asked);
        let answer = answers.next().expect("the test said too few answers");
        let Answer(status, headers, body) = &answer;
        let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if answers.peek().is_none() {
            text.push_str("connection: close\r\n");
        }
        writer.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let mut asked = Asked { line: line.trim_end().to_owned(), headers, body: Vec::new() };
    let length = asked.header("content-length").map_or(0, |value| value.parse().unwrap());
    asked.body.resize(length, 0);
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}
