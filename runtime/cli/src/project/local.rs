//! A node in this process, for `up`, `dev` and `test`: development mode, on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use sluicebox_node::RunningNode;
use sluicebox_node::config::{Config, Sources};

use crate::args::Connection;
use crate::client::{Call, Client};
use crate::failure::{Cause, Failure};
use crate::serve::start;

/// How long it may take to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Starts a node with this directory and nothing but defaults, whatever the environment says.
pub(super) async fn node(data_dir: &Path, listen: SocketAddr) -> Result<RunningNode, Failure> {
    std::fs::create_dir_all(data_dir)
        .map_err(|error| Failure::local(format!("make {}", data_dir.display()), &error))?;
    let mut sources = Sources::default();
    sources.flag("here", "node.data-dir", data_dir.display());
    sources.flag("here", "node.dev", true);
    sources.flag("here", "http.listen", listen);
    start(Config::load(&sources)?.config).await
}

/// Ends a node, with what it has taken.
pub(super) async fn end(node: RunningNode) {
    node.drain(DRAIN_TIME_MAX).await;
}

/// The same connection to another place.
pub(super) fn connection(url: String, like: &Connection) -> Connection {
    Connection { url, ca_cert: None, ..like.clone() }
}

/// Whether a node answers.
pub(super) async fn answers(client: &Client) -> Result<bool, Failure> {
    match client.send(Call::new(Method::GET, "/readyz")).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.code == "client.connect" => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Where a node of this machine has to listen to be found at a URL.
pub(super) fn listen_at(url: &str) -> Result<SocketAddr, Failure> {
    let elsewhere = || {
        Failure::new(Cause::Unavailable, format!("no node answers at {url}"))
            .code("client.connect")
            .fix("start it there; only for http://127.0.0.1:PORT one is started in this process")
    };
    let authority = url.strip_prefix("http://").ok_or_else(elsewhere)?.trim_end_matches('/');
    let authority = authority.replace("localhost", "127.0.0.1");
    let address: SocketAddr = authority.parse().map_err(|_| elsewhere())?;
    if address.ip().is_loopback() { Ok(address) } else { Err(elsewhere()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_at_a_url_of_this_machine_a_node_can_be_started() {
        assert_eq!(listen_at("http://127.0.0.1:7411").unwrap().port(), 7411);
        assert_eq!(listen_at("http://localhost:80/").unwrap().port(), 80);
        assert!(listen_at("http://[::1]:7411").unwrap().is_ipv6());
        for elsewhere in ["https://127.0.0.1:1", "http://node.example:7411", "http://10.0.0.1:1"] {
            assert_eq!(listen_at(elsewhere).unwrap_err().cause, Cause::Unavailable, "{elsewhere}");
        }
    }
}
