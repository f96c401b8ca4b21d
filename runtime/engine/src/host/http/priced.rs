//! The functions of `wasi:http/types`, each paid for before it is looked at.
//!
//! What a guest hands over may be as long as all that one call of an import may copy, and most of
//! it is thrown away if it is no header, path or method. So its bytes are owed whatever comes of
//! them, and each function has a price besides that covers the largest head it may copy.
//! Paths, methods and hosts are held for as long as their request, and are bounded here.
//!
//! Leaves to others: what the functions do (the engine's crate), and charging what is owed (the
//! way into the host).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::Result;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{
    self, ErrorCode, Fields, FutureIncomingResponse, FutureTrailers, IncomingBody, IncomingRequest,
    IncomingResponse, InputStream, IoError, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, OutputStream, Pollable, RequestOptions, ResponseOutparam, Scheme,
};
use wasmtime_wasi_http::p2::{HeaderError, HeaderResult, HttpError, HttpResult};
use wasmtime_wasi_http::{Error, WasiHttpCtxView};

use super::super::BYTES_PER_FUEL;

/// What each function costs, in fuel: the largest head copied once.
const CALL_FUEL: u64 = 64 * 1024 / BYTES_PER_FUEL;

/// What an entry of a list takes besides its bytes.
const ENTRY_BYTES: usize = 64;

/// Longest path with its query.
const PATH_BYTES_MAX: usize = 16 * 1024;

/// Longest host with its port; a name has 253 bytes.
const AUTHORITY_BYTES_MAX: usize = 300;

/// Longest word that is no known method, or scheme.
const WORD_BYTES_MAX: usize = 64;

/// The crate's view, and what is owed for it.
pub(super) struct Priced<'a> {
    view: WasiHttpCtxView<'a>,
    owed: Arc<AtomicU64>,
}

impl<'a> Priced<'a> {
    pub(super) fn new(view: WasiHttpCtxView<'a>, owed: Arc<AtomicU64>) -> Self {
        Self { view, owed }
    }

    fn owe(&self, bytes: usize) {
        let fuel = CALL_FUEL + bytes as u64 / BYTES_PER_FUEL;
        self.owed.fetch_add(fuel, Ordering::Relaxed);
    }
}

/// Names [`Priced`] to the linker.
pub(super) struct Paid;

impl HasData for Paid {
    type Data<'a> = Priced<'a>;
}

/// Bytes that were copied out of the guest.
trait Handed {
    fn bytes(&self) -> usize;
}

impl Handed for String {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Handed for Vec<u8> {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Handed for Vec<Vec<u8>> {
    fn bytes(&self) -> usize {
        self.iter().map(|value| value.len() + ENTRY_BYTES).sum()
    }
}

impl Handed for Vec<(String, Vec<u8>)> {
    fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum()
    }
}

impl Handed for Method {
    fn bytes(&self) -> usize {
        if let Self::Other(word) = self { word.len() } else { 0 }
    }
}

impl Handed for Scheme {
    fn bytes(&self) -> usize {
        if let Self::Other(word) = self { word.len() } else { 0 }
    }
}

impl<T: Handed> Handed for Option<T> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, Handed::bytes)
    }
}

impl<T: 'static> Handed for Resource<T> {
    fn bytes(&self) -> usize {
        0
    }
}

impl Handed for u16 {
    fn bytes(&self) -> usize {
        0
    }
}

impl Handed for u64 {
    fn bytes(&self) -> usize {
        0
    }
}

/// The functions of a resource: each is owed for, refused if it hands over more than the bytes
/// behind `=>`, and passed on to the crate.
macro_rules! paid {
    ($resource:ident {
        $(fn $name:ident($($given:ident: $type:ty),*) -> $answer:ty $(=> $most:expr)?;)+
    }) => {
        impl types::$resource for Priced<'_> {
            $(fn $name(&mut self, $($given: $type),*) -> $answer {
                let bytes = 0 $(+ Handed::bytes(&$given))*;
                self.owe(bytes);
                $(if bytes > $most {
                    return Ok(Err(()));
                })?
                types::$resource::$name(&mut self.view, $($given),*)
            })+
        }
    };
}

paid!(HostFields {
    fn new() -> Result<Resource<Fields>>;
    fn from_list(entries: Vec<(String, Vec<u8>)>) -> HeaderResult<Resource<Fields>>;
    fn get(fields: Resource<Fields>, name: String) -> Result<Vec<Vec<u8>>>;
    fn has(fields: Resource<Fields>, name: String) -> Result<bool>;
    fn set(fields: Resource<Fields>, name: String, values: Vec<Vec<u8>>) -> HeaderResult<()>;
    fn delete(fields: Resource<Fields>, name: String) -> HeaderResult<()>;
    fn append(fields: Resource<Fields>, name: String, value: Vec<u8>) -> HeaderResult<()>;
    fn entries(fields: Resource<Fields>) -> Result<Vec<(String, Vec<u8>)>>;
    fn clone(fields: Resource<Fields>) -> Result<Resource<Fields>>;
    fn drop(fields: Resource<Fields>) -> Result<()>;
});

paid!(HostOutgoingRequest {
    fn new(headers: Resource<Fields>) -> Result<Resource<OutgoingRequest>>;
    fn body(request: Resource<OutgoingRequest>) -> Result<Result<Resource<OutgoingBody>, ()>>;
    fn method(request: Resource<OutgoingRequest>) -> Result<Method>;
    fn set_method(
        request: Resource<OutgoingRequest>,
        method: Method
    ) -> Result<Result<(), ()>> => WORD_BYTES_MAX;
    fn path_with_query(request: Resource<OutgoingRequest>) -> Result<Option<String>>;
    fn set_path_with_query(
        request: Resource<OutgoingRequest>,
        path: Option<String>
    ) -> Result<Result<(), ()>> => PATH_BYTES_MAX;
    fn scheme(request: Resource<OutgoingRequest>) -> Result<Option<Scheme>>;
    fn set_scheme(
        request: Resource<OutgoingRequest>,
        scheme: Option<Scheme>
    ) -> Result<Result<(), ()>> => WORD_BYTES_MAX;
    fn authority(request: Resource<OutgoingRequest>) -> Result<Option<String>>;
    fn set_authority(
        request: Resource<OutgoingRequest>,
        authority: Option<String>
    ) -> Result<Result<(), ()>> => AUTHORITY_BYTES_MAX;
    fn headers(request: Resource<OutgoingRequest>) -> Result<Resource<Fields>>;
    fn drop(request: Resource<OutgoingRequest>) -> Result<()>;
});

paid!(HostRequestOptions {
    fn new() -> Result<Resource<RequestOptions>>;
    fn connect_timeout(options: Resource<RequestOptions>) -> Result<Option<u64>>;
    fn set_connect_timeout(
        options: Resource<RequestOptions>,
        time: Option<u64>
    ) -> Result<Result<(), ()>>;
    fn first_byte_timeout(options: Resource<RequestOptions>) -> Result<Option<u64>>;
    fn set_first_byte_timeout(
        options: Resource<RequestOptions>,
        time: Option<u64>
    ) -> Result<Result<(), ()>>;
    fn between_bytes_timeout(options: Resource<RequestOptions>) -> Result<Option<u64>>;
    fn set_between_bytes_timeout(
        options: Resource<RequestOptions>,
        time: Option<u64>
    ) -> Result<Result<(), ()>>;
    fn drop(options: Resource<RequestOptions>) -> Result<()>;
});

paid!(HostFutureIncomingResponse {
    fn subscribe(future: Resource<FutureIncomingResponse>) -> Result<Resource<Pollable>>;
    fn get(
        future: Resource<FutureIncomingResponse>
    ) -> Result<Option<Result<Result<Resource<IncomingResponse>, ErrorCode>, ()>>>;
    fn drop(future: Resource<FutureIncomingResponse>) -> Result<()>;
});

paid!(HostIncomingResponse {
    fn status(response: Resource<IncomingResponse>) -> Result<u16>;
    fn headers(response: Resource<IncomingResponse>) -> Result<Resource<Fields>>;
    fn consume(
        response: Resource<IncomingResponse>
    ) -> Result<Result<Resource<IncomingBody>, ()>>;
    fn drop(response: Resource<IncomingResponse>) -> Result<()>;
});

paid!(HostIncomingBody {
    fn stream(body: Resource<IncomingBody>) -> Result<Result<Resource<InputStream>, ()>>;
    fn finish(body: Resource<IncomingBody>) -> Result<Resource<FutureTrailers>>;
    fn drop(body: Resource<IncomingBody>) -> Result<()>;
});

paid!(HostFutureTrailers {
    fn subscribe(trailers: Resource<FutureTrailers>) -> Result<Resource<Pollable>>;
    fn get(
        trailers: Resource<FutureTrailers>
    ) -> Result<Option<Result<Result<Option<Resource<Fields>>, ErrorCode>, ()>>>;
    fn drop(trailers: Resource<FutureTrailers>) -> Result<()>;
});

paid!(HostOutgoingBody {
    fn write(body: Resource<OutgoingBody>) -> Result<Result<Resource<OutputStream>, ()>>;
    fn finish(body: Resource<OutgoingBody>, trailers: Option<Resource<Fields>>) -> HttpResult<()>;
    fn drop(body: Resource<OutgoingBody>) -> Result<()>;
});

// Behind these no guest has anything: nobody calls a stage by HTTP.

paid!(HostIncomingRequest {
    fn method(request: Resource<IncomingRequest>) -> Result<Method>;
    fn path_with_query(request: Resource<IncomingRequest>) -> Result<Option<String>>;
    fn scheme(request: Resource<IncomingRequest>) -> Result<Option<Scheme>>;
    fn authority(request: Resource<IncomingRequest>) -> Result<Option<String>>;
    fn headers(request: Resource<IncomingRequest>) -> Result<Resource<Fields>>;
    fn consume(request: Resource<IncomingRequest>) -> Result<Result<Resource<IncomingBody>, ()>>;
    fn drop(request: Resource<IncomingRequest>) -> Result<()>;
});

paid!(HostOutgoingResponse {
    fn new(headers: Resource<Fields>) -> Result<Resource<OutgoingResponse>>;
    fn status_code(response: Resource<OutgoingResponse>) -> Result<u16>;
    fn set_status_code(
        response: Resource<OutgoingResponse>,
        status: u16
    ) -> Result<Result<(), ()>>;
    fn headers(response: Resource<OutgoingResponse>) -> Result<Resource<Fields>>;
    fn body(response: Resource<OutgoingResponse>) -> Result<Result<Resource<OutgoingBody>, ()>>;
    fn drop(response: Resource<OutgoingResponse>) -> Result<()>;
});

impl types::HostResponseOutparam for Priced<'_> {
    fn send_informational(
        &mut self,
        parameter: Resource<ResponseOutparam>,
        status: u16,
        headers: Resource<Fields>,
    ) -> HttpResult<()> {
        self.owe(0);
        types::HostResponseOutparam::send_informational(&mut self.view, parameter, status, headers)
    }

    fn set(
        &mut self,
        parameter: Resource<ResponseOutparam>,
        response: Result<Resource<OutgoingResponse>, ErrorCode>,
    ) -> Result<()> {
        self.owe(0);
        types::HostResponseOutparam::set(&mut self.view, parameter, response)
    }

    fn drop(&mut self, parameter: Resource<ResponseOutparam>) -> Result<()> {
        self.owe(0);
        types::HostResponseOutparam::drop(&mut self.view, parameter)
    }
}

impl types::Host for Priced<'_> {
    fn http_error_code(&mut self, error: Resource<IoError>) -> Result<Option<ErrorCode>> {
        self.owe(0);
        // A body that breaks off has the error as the port gave it.
        if let Some(error) = self.view.table.get(&error)?.downcast_ref::<Error>() {
            return Ok(Some(of_body(error)));
        }
        types::Host::http_error_code(&mut self.view, error)
    }

    fn convert_error_code(&mut self, error: HttpError) -> Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.view, error)
    }

    fn convert_header_error(&mut self, error: HeaderError) -> Result<types::HeaderError> {
        types::Host::convert_header_error(&mut self.view, error)
    }
}

/// Why the body of an answer came to no end.
fn of_body(error: &Error) -> ErrorCode {
    match error {
        Error::HttpResponseBodySize(size) => ErrorCode::HttpResponseBodySize(*size),
        Error::HttpResponseHeaderSectionSize(size) => {
            ErrorCode::HttpResponseTrailerSectionSize(*size)
        }
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        _ => ErrorCode::InternalError(None),
    }
}
