//! The ceiling: a server of bare hyper on one thread, that reads a body and gives a fixed reply.
//!
//! What a node does for a request is measured against this, in the same run, with the same
//! requests. Says its address on standard output and runs until it is ended.

// It says its address, and that is how it is found.
#![allow(clippy::print_stdout, reason = "the address is for whoever started it")]

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// The allocator of the node's program, so that neither has an advantage.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as the events that are sent.
const REPLY: &[u8] = &[b'.'; sluicebox_bench::events::PAYLOAD_BYTES];

fn main() -> Result<()> {
    let runtime = sluicebox_bench::runtime()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let serving =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::task::spawn_local(async move {
                // How a connection ends is the client's business.
                let _ended = serving.await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    std::hint::black_box(body);
    let mut response = Response::new(Full::new(Bytes::from_static(REPLY)));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}
