//! Imports of `wasi:http`: requests that a stage makes, as the port `crate::http` takes them.
//!
//! - A stage without the grant has the functions and no way out: each request is denied.
//! - All requests of a call together may take as long as one may, for each of its events.
//! - Memory for what is on its way is the tenant's, and bytes are charged as host work: by whoever
//!   moves them, at the next way into the host or at the end of the call.
//!
//! What the functions take and give besides requests is in `priced`.

mod priced;

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings::LinkOptions;
use wasmtime_wasi_http::p2::bindings::http::{outgoing_handler, types};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};

use self::priced::{Paid, Priced};
use super::{BYTES_PER_FUEL, Host};
use crate::http::Refused;
use crate::stage::{Charge, StageSettings};

/// Names and values of headers of one message, with what they take in memory.
const FIELDS_BYTES_MAX: usize = 32 * 1024;

/// Bytes a guest may write to a body at once. Two such pieces wait in the host before a request is
/// made, for each body the guest has a handle of.
const WRITE_BYTES: usize = 16 * 1024;

/// What a request has in memory of the node: a chunk each way, with headers and buffers.
const REQUEST_BYTES: u64 = 256 * 1024;

/// What a request costs besides its bytes, in fuel.
const REQUEST_FUEL: u64 = 50_000;

type Sending = Box<dyn Future<Output = Result<(Response<WasiBody>, Ending), Error>> + Send>;
type Ending = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// What an instance has of HTTP.
#[derive(Debug)]
pub(super) struct Outgoing {
    settings: Arc<StageSettings>,
    /// Host work that is not charged yet, in fuel. Bodies on their way add to it too.
    owed: Arc<AtomicU64>,
    /// How long the requests of the call may take, and since when they do.
    allowance: Duration,
    since: Option<Instant>,
}

impl Outgoing {
    pub(super) fn new(settings: Arc<StageSettings>) -> Self {
        let (owed, allowance) = Default::default();
        Self { settings, owed, allowance, since: None }
    }

    /// A call of so many events begins.
    pub(super) fn begin(&mut self, events: usize) {
        let Some(http) = &self.settings.http else { return };
        let events = u32::try_from(events).unwrap_or(u32::MAX).max(1);
        self.allowance = http.deadline().saturating_mul(events);
        self.since = None;
    }

    /// What is to be charged since this was last asked.
    pub(super) fn owed(&self) -> u64 {
        // Most stages never owe anything, and are asked at each way into the host.
        match self.owed.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.owed.swap(0, Ordering::Relaxed),
        }
    }

    /// Makes a request.
    fn begin_request(&mut self, request: Request<WasiBody>, options: RequestOptions) -> Sending {
        self.owed.fetch_add(REQUEST_FUEL, Ordering::Relaxed);
        let refuse = |refused| -> Sending { Box::new(ready(Err(error(refused)))) };
        let Some(http) = &self.settings.http else { return refuse(Refused::Denied) };
        let Some(held) = Charge::take(&self.settings, REQUEST_BYTES) else {
            return refuse(Refused::NoRoom);
        };
        let now = Instant::now();
        let end_of_all = *self.since.get_or_insert(now) + self.allowance;
        let until = (now + http.deadline()).min(end_of_all);
        // The guest's own patience with the head of the answer, if it has less.
        let patience = [options.connect_timeout, options.first_byte_timeout];
        let patience = patience.into_iter().flatten().reduce(Duration::saturating_add);
        let owed = self.owed.clone();
        let request = request.map(|body| {
            let counted = body.map_frame(move |frame| {
                owe(&owed, frame.data_ref().map_or(0, bytes::Bytes::len));
                frame
            });
            counted.map_err(|_| Refused::GivenUp).boxed_unsync()
        });
        let (answering, owed) = (http.send(request, until), self.owed.clone());
        Box::new(async move {
            let answered = match patience {
                Some(patience) => tokio::time::timeout(patience, answering)
                    .await
                    .map_err(|_| Error::ConnectionReadTimeout)?,
                None => answering.await,
            };
            let response = answered.map_err(error)?.map(|body| {
                let counted = body.map_frame(move |frame| {
                    // Until the body has gone.
                    let _held = &held;
                    owe(&owed, frame.data_ref().map_or(0, bytes::Bytes::len));
                    frame
                });
                counted.map_err(error).boxed_unsync()
            });
            let ended: Ending = Box::new(ready(Ok(())));
            Ok((response, ended))
        })
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _told: Ending,
    ) -> Sending {
        self.begin_request(request, options.unwrap_or_default())
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE_BYTES
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: &mut self.table,
            ctx: &mut self.http_context,
        }
    }
}

/// The same, where what is handed over is paid for.
fn priced(host: &mut Host) -> Priced<'_> {
    let owed = host.outgoing.owed.clone();
    Priced::new(host.http(), owed)
}

/// Bounds on what guests make.
pub(super) fn context() -> WasiHttpCtx {
    let mut context = WasiHttpCtx::new();
    context.set_field_size_limit(FIELDS_BYTES_MAX);
    context
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    outgoing_handler::add_to_linker::<_, WasiHttp>(linker, Host::http)?;
    types::add_to_linker::<_, Paid>(linker, &LinkOptions::default().into(), priced)
}

fn owe(owed: &AtomicU64, bytes: usize) {
    owed.fetch_add(bytes as u64 / BYTES_PER_FUEL, Ordering::Relaxed);
}

/// A refusal in the words of the interface.
fn error(refused: Refused) -> Error {
    match refused {
        Refused::Denied => Error::HttpRequestDenied,
        Refused::Invalid(_) => Error::HttpRequestUriInvalid,
        Refused::NotFound => Error::DnsError { rcode: None, info_code: None },
        Refused::Prohibited => Error::DestinationIpProhibited,
        Refused::Unreachable => Error::ConnectionRefused,
        Refused::Certificate => Error::TlsCertificateError,
        Refused::Tls => Error::TlsProtocolError,
        Refused::TooMany => Error::ConnectionLimitReached,
        Refused::Late => Error::HttpResponseTimeout,
        Refused::RequestTooLarge => Error::HttpRequestBodySize(None),
        Refused::HeadTooLarge => Error::HttpResponseHeaderSectionSize(None),
        Refused::ResponseTooLarge => Error::HttpResponseBodySize(None),
        Refused::Ended => Error::ConnectionTerminated,
        Refused::Protocol => Error::HttpProtocolError,
        Refused::GivenUp | Refused::NoRoom => Error::InternalError(Some(refused.to_string())),
    }
}
