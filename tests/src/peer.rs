//! A node as another one sees it, played by a test: with a certificate of a cluster it asks what it
//! likes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sluicebox_link::tls::{Identity, NodeName, Settings, peer_connect};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::Reply;
use crate::cluster::Cluster;
use crate::eventually::SOON;

/// See the module.
#[derive(Debug)]
pub struct Peer(Identity);

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
}
