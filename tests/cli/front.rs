//! Something that says it is a registry and says whatever a test likes, one request a connection.
//! It remembers what it heard.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The first line of a request and its headers, names in lower case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) target: String,
    pub(crate) authorisation: Option<String>,
}

/// What it says: a status, headers, a body.
#[derive(Debug, Clone)]
pub(crate) struct Says {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) length: Length,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// As it says.
    Said,
    /// It does not say so.
    Unsaid,
    /// It does not say so, and does not end.
    Endless,
}

impl Says {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), length: Length::Said }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    pub(crate) fn length(self, length: Length) -> Self {
        Self { length, ..self }
    }
}

/// One on a free port.
pub(crate) struct Front {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    ends: Arc<AtomicBool>,
    playing: Option<JoinHandle<()>>,
}

impl Front {
    /// Answers each request by what this says to it.
    pub(crate) fn saying(answer: impl Fn(&Heard) -> Says + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (heard, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (heard.clone(), ends.clone());
        let playing = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let mut connection = connection.expect("a connection");
                let heard = hear(&connection);
                log.lock().expect("nobody panics with it").push(heard.clone());
                // Who asks may have heard enough.
                let _gone = say(&mut connection, &answer(&heard));
            }
        });
        Self { address, heard, ends, playing: Some(playing) }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// What came so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
        if let Some(playing) = self.playing.take() {
            let _ended = playing.join();
        }
    }
}

fn hear(connection: &TcpStream) -> Heard {
    let mut heard = Heard::default();
    for line in BufReader::new(connection).lines().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        if heard.target.is_empty() {
            heard.target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            heard.authorisation = Some(value.to_owned());
        }
    }
    heard
}

fn say(connection: &mut TcpStream, says: &Says) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", says.status);
    for (name, value) in &says.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if says.length == Length::Said {
        head.push_str(&format!("content-length: {}\r\n", says.body.len()));
    }
    connection.write_all(head.as_bytes())?;
    connection.write_all(b"\r\n")?;
    connection.write_all(&says.body)?;
    if says.length != Length::Endless {
        return Ok(());
    }
    loop {
        connection.write_all(&[b' '; 64 << 10])?;
    }
}
