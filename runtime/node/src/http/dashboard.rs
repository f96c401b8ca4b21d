//! The dashboard: pages that a browser shows, at `/dashboard/`.
//!
//! - What is served is in the program and the same for everybody, so it takes no token; it holds no
//!   data. All data comes from the interface under `/v1`, by requests of the page with the token
//!   that its user gave it, and with no other right.
//! - The policy that goes with each file lets the page run its own files and talk to its own node,
//!   and nothing else: no text that comes in an answer becomes a script, a style, a request to
//!   somewhere else, or HTML.
//! - A file is named by its content: who has it is told so by 304.
//!
//! What the pages do is in `dashboard/`, in JavaScript as browsers run it; nothing is built.

use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, IF_NONE_MATCH, LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::body::Body;
use super::coding::takes_gzip;

/// Where it is.
const AT: &str = "/dashboard/";

/// What the pages may do. `'none'` comes first: what is not named is not allowed. Text cannot be
/// given to the browser as HTML or as a script, not even by a mistake of ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // A node of another version has other files under the same names.
    (CACHE_CONTROL, "no-cache"),
];

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// One file.
#[derive(Debug)]
struct File {
    /// Behind [`AT`]; nothing for the page itself.
    name: &'static str,
    media: &'static str,
    bytes: &'static [u8],
    made: OnceLock<Made>,
}

/// What is made of a file when it is first asked for.
#[derive(Debug)]
struct Made {
    tag: HeaderValue,
    gzip: Bytes,
}

macro_rules! served {
    ($name:literal, $file:literal, $media:expr) => {
        File {
            name: $name,
            media: $media,
            bytes: include_bytes!(concat!("dashboard/", $file)),
            made: OnceLock::new(),
        }
    };
    ($file:literal, $media:expr) => {
        served!($file, $file, $media)
    };
}

/// Every file there is.
static FILES: [File; 21] = [
    served!("", "index.html", HTML),
    served!("style.css", STYLE),
    served!("icon.svg", IMAGE),
    served!("main.js", SCRIPT),
    served!("dom.js", SCRIPT),
    served!("api.js", SCRIPT),
    served!("keys.js", SCRIPT),
    served!("parts.js", SCRIPT),
    served!("figures.js", SCRIPT),
    served!("readings.js", SCRIPT),
    served!("layout.js", SCRIPT),
    served!("graph.js", SCRIPT),
    served!("spark.js", SCRIPT),
    served!("pipelines.js", SCRIPT),
    served!("detail.js", SCRIPT),
    served!("follow.js", SCRIPT),
    served!("events.js", SCRIPT),
    served!("logs.js", SCRIPT),
    served!("deploy.js", SCRIPT),
    served!("account.js", SCRIPT),
    served!("node.js", SCRIPT),
];

impl File {
    fn made(&self) -> &Made {
        self.made.get_or_init(|| {
            let hash = blake3::hash(self.bytes);
            let tag = format!("W/\"{}\"", &hash.to_hex()[..32]);
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            // A vector takes whatever is written.
            let gzip = std::io::Write::write_all(&mut encoder, self.bytes)
                .and_then(|()| encoder.finish())
                .unwrap_or_default();
            let tag = HeaderValue::try_from(tag).expect("hex digits in quotes are a value");
            Made { tag, gzip: Bytes::from(gzip) }
        })
    }
}

/// What there is at a path.
#[derive(Debug)]
pub(super) enum Found {
    /// A file, by its place in the table.
    File(usize),
    /// The dashboard is elsewhere.
    Elsewhere,
}

impl Found {
    /// What the dashboard has at a path; at the root only for those who want a page.
    pub(super) fn at(path: &str, headers: &HeaderMap) -> Option<Self> {
        match path {
            "/dashboard" => Some(Self::Elsewhere),
            "/" => wants_a_page(headers).then_some(Self::Elsewhere),
            _ => {
                let name = path.strip_prefix(AT)?;
                FILES.iter().position(|file| file.name == name).map(Self::File)
            }
        }
    }

    pub(super) fn response(&self, asked: &HeaderMap) -> Response<Body> {
        match self {
            Self::File(at) => serve(&FILES[*at], asked),
            Self::Elsewhere => {
                let mut response = Response::new(Body::from(Bytes::new()));
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert(LOCATION, HeaderValue::from_static(AT));
                response
            }
        }
    }
}

fn serve(file: &'static File, asked: &HeaderMap) -> Response<Body> {
    let made = file.made();
    let is_known = knows(asked, &made.tag);
    let zips = takes_gzip(asked) && !made.gzip.is_empty() && made.gzip.len() < file.bytes.len();
    let body = match (is_known, zips) {
        (true, _) => Bytes::new(),
        (false, true) => made.gzip.clone(),
        (false, false) => Bytes::from_static(file.bytes),
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.insert(ETAG, made.tag.clone());
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.media));
    if zips {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// True if the client has what is named so.
fn knows(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let values = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut named = values.flat_map(|value| value.split(','));
    // The same in other words is the same: it may have come compressed.
    named.any(|name| name.trim().as_bytes() == tag.as_bytes())
}

/// True for a browser that was pointed here, and not for a program that asks for whatever there is.
fn wants_a_page(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = values.flat_map(|value| value.split(','));
    types.any(|one| one.trim().split(';').next().is_some_and(|name| name == "text/html"))
}

#[cfg(test)]
mod tests;
