//! A server on loopback that answers well, and badly in every way a path names.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sluicebox_tests::eventually::{SOON, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Bytes of one part of `/big`.
const PART: Bytes = Bytes::from_static(&[b'b'; 64 * 1024]);

/// See the module. Ends with the runtime of its test.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
    /// What takes connections, and each that is open.
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
    /// Bytes that `/raw` is answered with, on a connection that ends behind them.
    raw: Arc<Mutex<Option<Vec<u8>>>>,
    /// So many requests end their connection unanswered.
    closing: Arc<AtomicUsize>,
    /// Requests at once now, and most of them ever.
    present: Arc<(AtomicUsize, AtomicUsize)>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (connections, requests, present) = Default::default();
        let (tasks, raw, closing) = Default::default();
        let server = Self { address, connections, requests, tasks, raw, closing, present };
        server.take_from(listener);
        server
    }

    fn take_from(&self, listener: TcpListener) {
        let serving = self.clone();
        self.keep(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let one = serving.clone();
                serving.keep(async move { one.serve(stream).await });
            }
        });
    }

    fn keep(&self, work: impl Future<Output = ()> + 'static) {
        let task = tokio::task::spawn_local(work).abort_handle();
        let mut tasks = self.tasks.lock().expect("no test panics with it");
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    async fn serve(self, stream: TcpStream) {
        let end = Arc::new(Notify::new());
        let (told, one) = (end.clone(), self.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (one, told) = (one.clone(), told.clone());
            async move {
                let left = |left: usize| left.checked_sub(1);
                let closing = one.closing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
                if closing.is_ok() || request.uri().path() == "/raw" {
                    told.notify_one();
                    std::future::pending::<()>().await;
                }
                one.answer(request).await
            }
        });
        let mut serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            biased;
            _ = &mut serving => return,
            () = end.notified() => {}
        }
        let mut stream = serving.into_parts().io.into_inner();
        let raw = self.raw.lock().expect("no test panics with it").take();
        if let Some(raw) = raw {
            drop(stream.write_all(&raw).await);
            drop(stream.shutdown().await);
        }
    }

    /// What the next request of `/raw` is answered with.
    pub(crate) fn say_raw(&self, text: &str) {
        *self.raw.lock().expect("no test panics with it") = Some(text.as_bytes().to_vec());
    }

    /// So many requests end their connection unanswered.
    pub(crate) fn close_when_asked(&self, requests: usize) {
        self.closing.store(requests, Ordering::Relaxed);
    }

    /// Takes no connections, and ends those there are.
    pub(crate) async fn pause(&self) {
        for task in self.tasks.lock().expect("no test panics with it").drain(..) {
            task.abort();
        }
        eventually("nobody listens", SOON, || async {
            TcpStream::connect(self.address).await.is_err().then_some(())
        })
        .await;
    }

    /// Takes connections again, where it did.
    pub(crate) async fn go_on(&self) {
        let bound = || async { TcpListener::bind(self.address).await.ok() };
        self.take_from(eventually("its port is free", SOON, bound).await);
    }

    /// As a manifest and a guest write it.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests that were ever there at once.
    pub(crate) fn most(&self) -> usize {
        self.present.1.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self, path: &str) -> usize {
        self.requests.lock().expect("no test panics with it").get(path).copied().unwrap_or_default()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (now, most) = &*self.present;
        most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let answer = self.answer_now(request).await;
        now.fetch_sub(1, Ordering::Relaxed);
        Ok(answer)
    }

    async fn answer_now(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        *self.requests.lock().expect("no test panics with it").entry(path.clone()).or_default() +=
            1;
        let header = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("none").to_owned()
        };
        match path.as_str() {
            "/hello" => full("hello"),
            // The connection ends behind it.
            "/last" => {
                let answer = Response::builder().header("connection", "close");
                answer.body(full("last").into_body()).expect("good headers")
            }
            // How often it has seen a key.
            "/seen" => {
                let key = header("idempotency-key");
                let count = {
                    let mut seen = self.requests.lock().expect("no test panics with it");
                    let count = seen.entry(format!("key {key}")).or_default();
                    *count += 1;
                    *count
                };
                full(&format!("{key} {count}"))
            }
            "/echo" => {
                let (host, key) = (header("host"), header("idempotency-key"));
                let method = request.method().clone();
                let body = request.into_body().collect().await.map(|body| body.to_bytes());
                let body = body.map(|body| String::from_utf8_lossy(&body).into_owned());
                full(&format!("{method} {host} {key} {}", body.unwrap_or_default()))
            }
            "/count" => {
                let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
                full(&body.unwrap_or_default().to_string())
            }
            "/redirect" => {
                let answer = Response::builder().status(302);
                let answer = answer.header("location", format!("{}/hello", self.origin()));
                answer.body(full("elsewhere").into_body()).expect("good headers")
            }
            "/heads" => {
                let answer = Response::builder().header("x-long", "h".repeat(200_000));
                answer.body(full("").into_body()).expect("good headers")
            }
            // Says how much comes, or does not.
            "/known" => full(&"k".repeat(100_000)),
            "/big" => parts(Duration::ZERO, PART),
            "/drip" => parts(Duration::from_millis(50), Bytes::from_static(b".")),
            "/brief" => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                full("at last")
            }
            _ => std::future::pending().await,
        }
    }
}

fn full(text: &str) -> Response<Body> {
    Response::new(Full::new(Bytes::from(text.to_owned())).boxed_unsync())
}

/// Parts without end.
fn parts(pause: Duration, part: Bytes) -> Response<Body> {
    let stream = futures_util::stream::repeat(part);
    let stream = futures_util::StreamExt::then(stream, move |part| async move {
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(pause).await;
        }
        Ok(Frame::data(part))
    });
    Response::new(StreamBody::new(stream).boxed_unsync())
}
