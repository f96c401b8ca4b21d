//! The ceiling: a server of bare hyper on one thread, that reads a body and gives a fixed reply.
//!
//! What a node does for a request is measured against this, in the same run, with the same
//! requests. Says its address on standard output and runs until it is ended.
//!
//! With a file as its argument it keeps what it was sent: one more thread appends the bodies of all
//! requests that wait, syncs the file, and then they are answered, each with how often its key has
//! come. Nothing is ever read back, and no limits are kept: the least that a durable count can be.

// It says its address, and that is how it is found.
#![allow(clippy::print_stdout, reason = "the address is for whoever started it")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// The allocator of the node's program, so that neither has an advantage.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as the events that are sent.
const REPLY: &[u8] = &[b'.'; sluicebox_bench::events::PAYLOAD_BYTES];
/// The header with the key of an event.
const KEY: &str = "sluicebox-key";
/// Room that is taken for the file at once, so that a sync rarely has a new length to write.
const RESERVED_BYTES: u64 = 64 << 20;

fn main() -> Result<()> {
    let log = std::env::args_os().nth(1).map(|path| Log::start(Path::new(&path))).transpose()?;
    let counts = Rc::new(RefCell::new(HashMap::new()));
    let runtime = sluicebox_bench::runtime()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let server = Server { log: log.clone(), counts: counts.clone() };
            let answer = service_fn(move |request| server.clone().answer(request));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            tokio::task::spawn_local(async move {
                // How a connection ends is the client's business.
                let _ended = serving.await;
            });
        }
    })
}

#[derive(Clone)]
struct Server {
    log: Option<Arc<Log>>,
    /// How often each key has come.
    counts: Rc<RefCell<HashMap<Bytes, u64>>>,
}

impl Server {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let reply = match self.log {
            None => {
                std::hint::black_box(body);
                Bytes::from_static(REPLY)
            }
            Some(log) => {
                let key = parts.headers.get(KEY).context("a key")?;
                let key = Bytes::copy_from_slice(key.as_bytes());
                log.keep(key.clone(), body).await?;
                let mut counts = self.counts.borrow_mut();
                let count = counts.entry(key).or_default();
                *count += 1;
                Bytes::copy_from_slice(&count.to_le_bytes())
            }
        };
        let mut response = Response::new(Full::new(reply));
        let kind = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }
}

/// The file, and who waits for it.
#[derive(Default)]
struct Log {
    waiting: Mutex<Vec<Waiting>>,
    wake: Condvar,
}

struct Waiting {
    key: Bytes,
    body: Bytes,
    synced: oneshot::Sender<()>,
}

impl Log {
    /// Begins a file.
    fn start(path: &Path) -> Result<Arc<Self>> {
        let log = Arc::<Self>::default();
        let file = File::create(path).context("create the file")?;
        let writer = log.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            if let Err(error) = writer.write(&file) {
                // Requests are never answered, and whoever sent them says so.
                println!("the file: {error:#}");
            }
        })?;
        Ok(log)
    }

    /// Waits until an event is on disk.
    async fn keep(&self, key: Bytes, body: Bytes) -> Result<()> {
        let (synced, told) = oneshot::channel();
        let waiting = Waiting { key, body, synced };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
        self.wake.notify_one();
        told.await.context("the file failed")
    }

    /// Brings what waits to disk, all of it at once, for ever.
    fn write(&self, file: &File) -> Result<()> {
        let (mut end, mut reserved) = (0, 0);
        let mut buffer = Vec::new();
        loop {
            let waiting = {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let waiting = self.wake.wait_while(waiting, |waiting| waiting.is_empty());
                std::mem::take(&mut *waiting.unwrap_or_else(PoisonError::into_inner))
            };
            buffer.clear();
            for Waiting { key, body, .. } in &waiting {
                for part in [key, body] {
                    buffer.extend_from_slice(&(part.len() as u32).to_le_bytes());
                    buffer.extend_from_slice(part);
                }
            }
            if end + buffer.len() as u64 > reserved {
                fallocate(file, FallocateFlags::empty(), reserved, RESERVED_BYTES)?;
                reserved += RESERVED_BYTES;
            }
            file.write_all_at(&buffer, end)?;
            file.sync_data()?;
            end += buffer.len() as u64;
            for Waiting { synced, .. } in waiting {
                // A client that went away does not want to know.
                let _gone = synced.send(());
            }
        }
    }
}
