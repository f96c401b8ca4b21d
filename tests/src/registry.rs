//! A real registry of OCI artifacts on loopback: Debian's docker-registry with a folder of its own,
//! in which tests can look at what it keeps, and damage it.
//!
//! It ends with the test, by a panic too. One that is missing fails the test with the command that
//! installs it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::eventually::{SOON, eventually};
use crate::tls;

/// How to get what is missing.
const ADVICE: &str = "install it with `apt-get install docker-registry`, or let `cargo xtask test` \
                      do that";

/// Who is let in where anybody is asked: user and password, as `USER:PASSWORD`.
pub const USER: &str = "ada:lace";

/// The same as the registry has it.
const HASHED: &str = "ada:$2y$05$abcdefghijklmnopqrstuuiMNWKP4RszvWnsAYJiTRjthyU1J3Pru\n";

/// `USER` as a client says it.
const BASIC: &str = "Basic YWRhOmxhY2U=";

/// A manifest.
pub const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A layer that is a component, as it is called today.
pub const MEDIA_WASM: &str = "application/wasm";

/// A registry.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
    /// Somebody has to say who they are.
    asks: bool,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Registry {
    /// One that lets everybody in.
    pub async fn open() -> Self {
        Self::start(tempfile::tempdir().expect("a temporary directory"), false, None).await
    }

    /// One that lets only [`USER`] in.
    pub async fn closed() -> Self {
        Self::start(tempfile::tempdir().expect("a temporary directory"), true, None).await
    }

    /// Another one with the same content, which speaks TLS with the first certificate of the tests.
    pub async fn by_tls(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        Self::start(folder, false, Some(&self.kept())).await
    }

    async fn start(folder: TempDir, asks: bool, kept_by_tls: Option<&Path>) -> Self {
        let at = |name: &str| folder.path().join(name);
        let own = at("kept");
        let kept = kept_by_tls.unwrap_or(&own);
        let tls = kept_by_tls.map(
            |_| json!({ "certificate": tls::file("first.pem"), "key": tls::file("first.key") }),
        );
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "info", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": kept } },
            "http": { "addr": "127.0.0.1:0", "tls": tls.unwrap_or_else(|| json!({})) },
        });
        if asks {
            std::fs::write(at("users"), HASHED).expect("a directory of ours can be written");
            config["auth"] = json!({ "htpasswd": { "realm": "tests", "path": at("users") } });
        }
        // JSON is YAML.
        std::fs::write(at("config.yml"), config.to_string()).expect("it can be written");
        let said = at("said");
        let log = std::fs::File::create(&said).expect("it can be written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(at("config.yml")).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let spawned = command.spawn();
        let child = spawned.unwrap_or_else(|why| panic!("no docker-registry: {why}; {ADVICE}"));
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        // From here on a panic ends it.
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut registry = Self { child, folder, address, asks, http };
        let port = eventually("the registry listens", SOON, || {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let port = text.split("listening on 127.0.0.1:").nth(1).and_then(|rest| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse::<u16>().ok()
            });
            std::future::ready(port)
        })
        .await;
        registry.address.set_port(port);
        registry
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept")
    }

    /// The file in which it keeps what has this digest.
    #[must_use]
    pub fn file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        self.kept().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        media: &str,
        body: Bytes,
    ) -> (StatusCode, String) {
        let uri = if target.starts_with('/') {
            format!("http://{}{target}", self.address)
        } else {
            target.to_owned()
        };
        let mut request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, media);
        if self.asks {
            request = request.header(AUTHORIZATION, BASIC);
        }
        let request = request.body(Full::new(body)).expect("a good request");
        let reply = self.http.request(request).await.expect("the registry answers");
        let location = reply.headers().get(LOCATION);
        let location = location.map(|value| value.to_str().expect("text").to_owned());
        let status = reply.status();
        let body = reply.into_body().collect().await.expect("a whole answer").to_bytes();
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        (status, location.unwrap_or_default())
    }

    /// Puts bytes into a repository; gives what names them.
    ///
    /// # Panics
    /// If the registry does not take them.
    pub async fn blob(&self, repository: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = digest_of(&bytes);
        let begin = format!("/v2/{repository}/blobs/uploads/");
        let (_, place) = self.ask(Method::POST, &begin, "text/plain", Bytes::new()).await;
        let joint = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{joint}digest={digest}");
        self.ask(Method::PUT, &place, "application/octet-stream", bytes).await;
        digest
    }

    /// Puts a manifest of these layers under a tag; gives its digest.
    ///
    /// # Panics
    /// If the registry does not take it.
    pub async fn manifest(&self, repository: &str, tag: &str, layers: Value) -> String {
        let config = self.blob(repository, "{}").await;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": config,
                        "size": 2 },
            "layers": layers,
            "annotations": { "org.opencontainers.image.title": "test" },
        });
        let text = Bytes::from(manifest.to_string());
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.ask(Method::PUT, &path, MEDIA_MANIFEST, text.clone()).await;
        digest_of(&text)
    }

    /// Puts a component into a repository, as tools do; gives the digest of its manifest.
    pub async fn component(&self, repository: &str, tag: &str, wasm: impl Into<Bytes>) -> String {
        let wasm = wasm.into();
        let size = wasm.len();
        let digest = self.blob(repository, wasm).await;
        let layer = json!([{ "mediaType": MEDIA_WASM, "digest": digest, "size": size }]);
        self.manifest(repository, tag, layer).await
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// What names these bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
