//! A node as another one sees it, played by a test: with a certificate of a cluster it asks what it
//! likes, and answers what it likes.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sluicebox_link::tls::{Identity, NodeName, Settings, peer_accept, peer_connect};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::Reply;
use crate::cluster::Cluster;
use crate::eventually::{SOON, eventually};

/// See the module.
#[derive(Debug)]
pub struct Peer(Identity);

/// Who answers in a node's place, for as long as it lives.
#[derive(Debug)]
pub struct Playing {
    _serving: JoinSet<()>,
}

/// What a question is answered with: a status and a body, by the path.
pub type Answer = Arc<dyn Fn(&str) -> (u16, Bytes) + Send + Sync>;

impl Peer {
    /// With the certificate that a cluster has for this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn of(cluster: &Cluster, name: &str) -> Self {
        let read = |file: &str| std::fs::read(cluster.file(file)).expect("it was made");
        let (own, key) = (read(&format!("{name}.crt")), read(&format!("{name}.key")));
        let name = NodeName::new(name).expect("a name");
        let identity = Identity::from_pem(name, &own, &key, &read("authority.crt"));
        Self(identity.expect("what was made can be used"))
    }

    /// Asks a node: `GET /path`. None if it does not take us for a node.
    ///
    /// # Panics
    /// If it neither answers nor closes.
    pub async fn ask(&self, to: (&str, SocketAddr), line: &str) -> Option<Reply> {
        self.tell(to, line, "").await
    }

    /// Has a node do something with what is said: `POST /path`. None if it does not take us for a
    /// node.
    ///
    /// # Panics
    /// If it neither answers nor closes.
    pub async fn tell(
        &self,
        (name, address): (&str, SocketAddr),
        line: &str,
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let body = Full::new(body.into());
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let asked = async move {
            let socket = TcpStream::connect(address).await.ok()?;
            let to = NodeName::new(name).expect("a name");
            let stream = peer_connect(socket, &self.0, &to, Settings::default()).await.ok()?;
            let (mut sender, serving) =
                http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.ok()?;
            // It ends with what is asked.
            let mut alive = JoinSet::new();
            alive.spawn(async move { drop(serving.await) });
            let request = Request::builder().method(method).uri(path).header("host", "localhost");
            let request = request.body(body).expect("a test writes good requests");
            let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            let (version, status) = (parts.version, parts.status.as_u16());
            Some(Reply { version, status, headers: parts.headers, body })
        };
        tokio::time::timeout(SOON, asked).await.expect("it answers or closes")
    }

    /// Answers at the address of a node, whose process is gone, whoever of these asks.
    ///
    /// # Panics
    /// If the address does not become free.
    pub async fn play(&self, address: SocketAddr, known: &[&str], answer: Answer) -> Playing {
        let bind = || async { TcpListener::bind(address).await.ok() };
        let listener = eventually("its address is free", SOON, bind).await;
        let known = known.iter().map(|name| NodeName::new(name).expect("a name"));
        let (identity, known) = (self.0.clone(), Arc::new(known.collect::<Vec<_>>()));
        let mut playing = JoinSet::new();
        playing.spawn(async move {
            let mut answering = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (identity, known, answer) = (identity.clone(), known.clone(), answer.clone());
                answering.spawn(async move {
                    // Who wants a link gets none.
                    let taken = peer_accept(socket, &identity, &known, Settings::default()).await;
                    let Ok((_, stream)) = taken else { return };
                    let service = service_fn(|request: Request<Incoming>| {
                        let path = request.uri().path_and_query().map(ToString::to_string);
                        let (status, body) = answer(&path.unwrap_or_default());
                        let response = Response::builder().status(status).body(Full::new(body));
                        ready(Ok::<_, Infallible>(response.expect("a status there is")))
                    });
                    let serving = server::Builder::new();
                    drop(serving.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Playing { _serving: playing }
    }
}
