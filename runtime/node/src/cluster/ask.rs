//! What is asked of another node for oneself, and not for a client: short, bounded, each on a
//! connection of its own unless it is asked again and again.
//!
//! The other end: `http/peers`.

mod partitions;

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluicebox_core::bill::Books;
use sluicebox_core::ids::{Digest, Name, PipelineId};
use tokio::io::{AsyncRead, AsyncWrite};

use super::peer::Peer;
use crate::components::{Names, blocking};
use crate::describe::PipelineInfo;
use crate::error::Error;
use crate::moving::pages::PAGE_BYTES_MAX;
use crate::moving::{Opening, Preparing};

/// Bytes of an answer that is no file of a tenant.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long a file of a tenant may take.
const FILE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long an account may take.
const ACCOUNT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a step of a hand-over may take.
const MOVE_TIME_MAX: Duration = Duration::from_secs(600);

/// Where questions of other nodes are answered.
pub(crate) const PEER: &str = "/peer/v1";

/// A connection on which questions are asked.
pub(super) type Questions = SendRequest<Full<Bytes>>;

/// Begins to ask on a connection.
pub(super) async fn begin<T>(stream: T) -> hyper::Result<Questions>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, serving) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
    // It ends with the node, or when nobody has the sender any more.
    drop(tokio::task::spawn_local(async move {
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection to a node broke off");
        }
    }));
    Ok(sender)
}

/// Asks; `None` if there is no such thing there.
pub(super) async fn ask(
    questions: &mut Questions,
    (path, body): (&str, Option<Bytes>),
    bytes_max: usize,
) -> Result<Option<Bytes>, String> {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::new(Full::new(body.unwrap_or_default()));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(path).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("node"));
    let response = questions.send_request(request).await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        other => return Err(format!("answers {other}")),
    }
    let body = Limited::new(response.into_body(), bytes_max).collect().await;
    body.map(|body| Some(body.to_bytes())).map_err(|error| error.to_string())
}

impl Peer {
    /// A tenant's pipelines that live there.
    ///
    /// # Errors
    /// [`Error::Peer`]: it cannot be asked.
    pub(crate) async fn pipelines(&self, tenant: &Name) -> Result<Vec<PipelineInfo>, Error> {
        let path = format!("{PEER}/tenants/{tenant}/pipelines");
        Ok(self.json(&path).await?.unwrap_or_default())
    }

    /// What a tenant has used there.
    ///
    /// # Errors
    /// As [`Self::pipelines`]; or what it says cannot be read.
    pub(crate) async fn account(&self, tenant: &Name) -> Result<Books, Error> {
        let path = format!("{PEER}/tenants/{tenant}/account");
        let mut books = Books::new();
        let kept = self.get(&path, ANSWER_BYTES_MAX, ACCOUNT_TIME_MAX).await?;
        // One of before there were bills has run something all the same.
        let kept = kept.ok_or_else(|| self.failed("it does not know what is asked", false))?;
        let tenant = tenant.clone();
        // It may be large.
        let taken = blocking(move || Ok(books.take_in(tenant, &kept).map(|()| books)));
        taken.await?.map_err(|error| self.failed(&error.to_string(), false))
    }

    /// What a manifest of this tenant may refer to, of what is there.
    ///
    /// # Errors
    /// As [`Self::pipelines`].
    pub(crate) async fn components(&self, tenant: &Name) -> Result<Names, Error> {
        let path = format!("{PEER}/tenants/{tenant}/components");
        Ok(self.json(&path).await?.unwrap_or_default())
    }

    /// A file of a tenant, of `kind`, if it is there. What it is is for the caller to check.
    ///
    /// # Errors
    /// As [`Self::pipelines`].
    pub(crate) async fn file(
        &self,
        tenant: &Name,
        (kind, digest): (&str, &Digest),
        bytes_max: usize,
    ) -> Result<Option<Bytes>, Error> {
        let path = format!("{PEER}/tenants/{tenant}/{kind}/{}", digest.hex());
        self.get(&path, bytes_max, FILE_TIME_MAX).await
    }

    /// Has it get ready for a pipeline.
    ///
    /// # Errors
    /// It refuses, with why; or it cannot be asked.
    pub(crate) async fn prepare(
        &self,
        (tenant, name): (&Name, &Name),
        (id, preparing): (PipelineId, &Preparing),
    ) -> Result<(), Error> {
        let path = format!("{PEER}/tenants/{tenant}/pipelines/{name}/prepare?pipeline={}", id.0);
        let refusal = self.post(&path, to_json(preparing)?, MOVE_TIME_MAX).await?;
        let refusal: Option<String> = self.read(&path, &refusal)?;
        match refusal {
            None => Ok(()),
            Some(why) => Err(Error::Conflict {
                what: "pipeline",
                name: name.to_string(),
                why: format!("the node {} does not take it: {why}", self.name()),
            }),
        }
    }

    /// Has it take the entries of a pipeline from here, which stands where so many bytes say.
    ///
    /// # Errors
    /// It cannot be asked, or does not manage to.
    pub(crate) async fn take(
        &self,
        (tenant, name): (&Name, &Name),
        (id, kept_bytes): (PipelineId, usize),
    ) -> Result<(), Error> {
        let path = format!("{PEER}/tenants/{tenant}/pipelines/{name}/take");
        let path = format!("{path}?pipeline={}&kept={kept_bytes}", id.0);
        self.post(&path, Vec::new(), MOVE_TIME_MAX).await.map(drop)
    }

    /// Has it run a pipeline it has taken. False if it has not.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) async fn open(
        &self,
        (tenant, name): (&Name, &Name),
        opening: &Opening,
    ) -> Result<bool, Error> {
        let path = format!("{PEER}/tenants/{tenant}/pipelines/{name}/open");
        let opened = self.post(&path, to_json(opening)?, MOVE_TIME_MAX).await?;
        self.read(&path, &opened)
    }

    /// A page of the entries of a pipeline that is leaving it, and where the next begins.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) async fn page(
        &self,
        (tenant, name): (&Name, &Name),
        from: &[u8],
    ) -> Result<(Bytes, Option<Vec<u8>>), Error> {
        let from: String = from.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("{PEER}/tenants/{tenant}/pipelines/{name}/page?from={from}");
        let page = self.get(&path, PAGE_BYTES_MAX, FILE_TIME_MAX).await?;
        self.divided(page)
    }

    /// What a page says of the next, and its entries.
    fn divided(&self, page: Option<Bytes>) -> Result<(Bytes, Option<Vec<u8>>), Error> {
        let gone = || self.failed("does not have the pipeline that it sends", false);
        let page = page.ok_or_else(gone)?;
        let nonsense = || self.failed("sends a page that is none", false);
        let (length, rest) = page.split_first_chunk().ok_or_else(nonsense)?;
        let length = u32::from_le_bytes(*length) as usize;
        let next = rest.get(..length).ok_or_else(nonsense)?.to_vec();
        Ok((page.slice(4 + length..), Some(next).filter(|next| !next.is_empty())))
    }

    /// Whether it still holds a pipeline that left it.
    ///
    /// # Errors
    /// As [`Self::pipelines`].
    pub(crate) async fn still_has(&self, id: PipelineId) -> Result<bool, Error> {
        let still = self.json(&format!("{PEER}/still?pipeline={}", id.0)).await?;
        still.ok_or_else(|| self.unreachable(false))
    }

    /// Whether it is the home of a pipeline, whatever that does.
    ///
    /// # Errors
    /// As [`Self::pipelines`].
    pub(crate) async fn has_pipeline(&self, id: PipelineId) -> Result<bool, Error> {
        let has = self.json(&format!("{PEER}/home?pipeline={}", id.0)).await?;
        has.ok_or_else(|| self.unreachable(false))
    }

    /// Tells it that a pipeline that came to it is its alone.
    ///
    /// # Errors
    /// As [`Self::pipelines`].
    pub(crate) async fn settled(
        &self,
        (tenant, name): (&Name, &Name),
        id: PipelineId,
    ) -> Result<(), Error> {
        let path = format!("{PEER}/tenants/{tenant}/pipelines/{name}/settled?pipeline={}", id.0);
        self.post(&path, Vec::new(), self.silence_time_max).await.map(drop)
    }

    async fn post(&self, path: &str, body: Vec<u8>, time_max: Duration) -> Result<Bytes, Error> {
        let answer = self.request(path, Some(body.into()), (ANSWER_BYTES_MAX, time_max)).await?;
        answer.ok_or_else(|| self.failed("does not know what it is asked", false))
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| {
            tracing::error!(node = %self.name(), path, %error, "a node answers nonsense");
            self.failed("answers nonsense", false)
        })
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        let Some(body) = self.get(path, ANSWER_BYTES_MAX, self.silence_time_max).await? else {
            return Ok(None);
        };
        self.read(path, &body).map(Some)
    }

    async fn get(
        &self,
        path: &str,
        bytes_max: usize,
        time_max: Duration,
    ) -> Result<Option<Bytes>, Error> {
        self.request(path, None, (bytes_max, time_max)).await
    }

    /// Asks on a connection of its own; with a body, that something be done.
    async fn request(
        &self,
        path: &str,
        body: Option<Bytes>,
        (bytes_max, time_max): (usize, Duration),
    ) -> Result<Option<Bytes>, Error> {
        let asked = async {
            let stream = self.connect().await?;
            let mut questions = begin(stream).await.map_err(|_| self.unreachable(false))?;
            ask(&mut questions, (path, body), bytes_max).await.map_err(|error| {
                tracing::warn!(node = %self.name(), path, error, "a node does not answer");
                self.failed("does not answer as it should", false)
            })
        };
        tokio::select! {
            // What has come counts, however late.
            biased;
            answer = tokio::time::timeout(time_max, asked) => {
                answer.unwrap_or_else(|_| Err(self.failed("does not answer in time", false)))
            }
            () = self.lost() => Err(self.unreachable(false)),
        }
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Internal(format!("a question: {error}")))
}
