//! Content codings: request bodies that came compressed, pages that leave so.
//!
//! - What a body expands to is bounded by the same limit as one that was not compressed, and drawn
//!   from the same budget before it exists: a body that expands without end costs no more than the
//!   limit. A window of zstd is at most what RFC 9659 allows.
//! - Both directions go in steps, and others run in between: also between members or frames, of
//!   which a body may have a million that stand for nothing.
//! - A page is compressed if the client takes gzip and the page is large enough to be worth it.
//!
//! gzip may have several members, zstd several frames; bytes behind them are refused.

use std::io::{self, Read, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::body::no_memory;
use super::text::quality;
use crate::admission::Held;
use crate::error::{Error, shown};

/// Bytes made between two looks at what else the worker has to do.
const STEP_BYTES: usize = 64 * 1024;

/// A page below this is sent as it is.
const PAGE_BYTES_MIN: usize = 1024;

/// Largest window of zstd in HTTP (RFC 9659).
const WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How frames of zstd begin, and how those that say nothing do.
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;

/// What a compressed body is called in messages.
const EXPANDED: &str = "the request body, expanded (http.body-bytes-max),";

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// The coding of a request's body; none if it is as it is.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = codings.next() else { return Ok(None) };
        let text = String::from_utf8_lossy(value.as_bytes());
        let known = match text.trim() {
            name if name.eq_ignore_ascii_case("identity") => Some(None),
            name if is_gzip(name) => Some(Some(Self::Gzip)),
            name if name.eq_ignore_ascii_case("zstd") => Some(Some(Self::Zstd)),
            _ => None,
        };
        let known = known.filter(|_| codings.next().is_none());
        known.ok_or_else(|| Error::Coding { found: shown(&text) })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

fn is_gzip(name: &str) -> bool {
    name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip")
}

/// Expands a body that is there whole. `held` grows by what it takes.
pub(super) async fn expand(
    (body, coding): (Bytes, Option<Coding>),
    limit: usize,
    held: &mut Held,
) -> Result<Bytes, Error> {
    let Some(coding) = coding else { return Ok(body) };
    let mut source = match coding {
        Coding::Gzip => Source::Gzip(Box::new(GzDecoder::new(&body))),
        Coding::Zstd => Source::Zstd(Zstd { at: At::Between(&body, None), window_bytes: 0 }),
    };
    let mut grown = Grown { bytes: Vec::new(), limit, held };
    let mut step = vec![0; STEP_BYTES];
    loop {
        match source.read(&mut step, &mut grown)? {
            Made::Bytes(read) => grown.push(&step[..read])?,
            Made::Nothing => {}
            Made::All => return Ok(Bytes::from(grown.bytes)),
        }
        tokio::task::yield_now().await;
    }
}

/// What was expanded so far; never larger than it may be, its spare room included.
struct Grown<'a> {
    bytes: Vec<u8>,
    limit: usize,
    held: &'a mut Held,
}

impl Grown<'_> {
    fn push(&mut self, more: &[u8]) -> Result<(), Error> {
        let needed = self.bytes.len() + more.len();
        if needed > self.limit {
            return Err(Error::TooLarge { what: EXPANDED, limit: self.limit as u64 });
        }
        if needed > self.bytes.capacity() {
            let wanted = (self.bytes.capacity() * 2).clamp(needed, self.limit);
            self.hold(wanted - self.bytes.capacity())?;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        if self.held.grow(bytes) { Ok(()) } else { Err(no_memory()) }
    }
}

/// Where expanded bytes come from.
enum Source<'a> {
    /// A member.
    Gzip(Box<GzDecoder<&'a [u8]>>),
    Zstd(Zstd<'a>),
}

/// What came of a step.
enum Made {
    Bytes(usize),
    /// A member or frame is over.
    Nothing,
    All,
}

impl Source<'_> {
    fn read(&mut self, step: &mut [u8], grown: &mut Grown<'_>) -> Result<Made, Error> {
        let member = match self {
            Self::Gzip(member) => member,
            Self::Zstd(zstd) => return zstd.read(step, grown),
        };
        let read = member.read(step).map_err(|error| broken(Coding::Gzip, &error))?;
        if read > 0 {
            return Ok(Made::Bytes(read));
        }
        let rest: &[u8] = member.get_ref();
        if rest.is_empty() {
            return Ok(Made::All);
        }
        **member = GzDecoder::new(rest);
        Ok(Made::Nothing)
    }
}

fn broken(coding: Coding, error: &io::Error) -> Error {
    let message = format!("the request body is not whole or not {}: {error}", coding.name());
    Error::request("request.body", message)
}

/// The frames of a body in zstd.
struct Zstd<'a> {
    at: At<'a>,
    /// Of the largest window so far, which is held.
    window_bytes: usize,
}

/// Where in them.
enum At<'a> {
    /// In front of what is left, with what the frame before was read by.
    Between(&'a [u8], Option<Box<FrameDecoder>>),
    In(StreamingDecoder<&'a [u8], Box<FrameDecoder>>),
}

impl Zstd<'_> {
    fn read(&mut self, step: &mut [u8], grown: &mut Grown<'_>) -> Result<Made, Error> {
        let zstd = |what: &str| broken(Coding::Zstd, &io::Error::other(what.to_owned()));
        if let At::In(frame) = &mut self.at {
            let read = frame.read(step).map_err(|error| broken(Coding::Zstd, &error))?;
            if read > 0 {
                return Ok(Made::Bytes(read));
            }
            let said = frame.decoder.get_checksum_from_data();
            if said.is_some() && said != frame.decoder.get_calculated_checksum() {
                return Err(zstd("a checksum differs"));
            }
        }
        let (rest, decoder) = match std::mem::replace(&mut self.at, At::Between(&[], None)) {
            At::Between(rest, decoder) => (rest, decoder),
            At::In(frame) => {
                let (rest, decoder) = frame.into_parts();
                (rest, Some(decoder))
            }
        };
        if rest.is_empty() {
            return Ok(Made::All);
        }
        self.at = match head(rest).ok_or_else(|| zstd("no frame begins here"))? {
            Head::Skip(bytes) => {
                let rest = rest.get(bytes..).ok_or_else(|| zstd("it ends in a frame"))?;
                At::Between(rest, decoder)
            }
            Head::Frame { window } => {
                let window = usize::try_from(window.min(WINDOW_BYTES_MAX + 1)).unwrap_or(0);
                if window as u64 > WINDOW_BYTES_MAX {
                    return Err(zstd("its window is larger than the 8 MiB that HTTP allows"));
                }
                grown.hold(window.saturating_sub(self.window_bytes))?;
                self.window_bytes = self.window_bytes.max(window);
                let decoder = decoder.unwrap_or_else(|| Box::new(FrameDecoder::new()));
                let frame = StreamingDecoder::new_with_decoder(rest, decoder);
                At::In(frame.map_err(|error| zstd(&error.to_string()))?)
            }
        };
        Ok(Made::Nothing)
    }
}

/// What a frame of zstd begins with, as far as it says how much memory it takes.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// So many bytes that mean nothing.
    Skip(usize),
    Frame {
        window: u64,
    },
}

fn head(bytes: &[u8]) -> Option<Head> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let magic = u32::from_le_bytes(*magic);
    if SKIPPABLE.contains(&magic) {
        let length = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        return Some(Head::Skip(8 + length as usize));
    }
    if magic != ZSTD_MAGIC {
        return None;
    }
    let (descriptor, rest) = rest.split_first()?;
    let single = descriptor & 0x20 != 0;
    if !single {
        let (exponent, mantissa) = (rest.first()? >> 3, u64::from(rest.first()? & 7));
        let base = 1_u64 << (10 + exponent);
        return Some(Head::Frame { window: base + base / 8 * mantissa });
    }
    // Its window is its content, whose size stands behind the id of a dictionary.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    let written = rest.get(dictionary..dictionary + size_bytes)?;
    size[..size_bytes].copy_from_slice(written);
    let window = u64::from_le_bytes(size) + if size_bytes == 2 { 256 } else { 0 };
    Some(Head::Frame { window })
}

/// True if a client takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = None;
    for item in values.flat_map(|value| value.split(',')) {
        let (name, quality) = quality(item);
        if is_gzip(name) {
            return quality > 0.0;
        }
        if name == "*" {
            any = Some(quality > 0.0);
        }
    }
    any.unwrap_or(false)
}

/// Pieces of a page in gzip, or none if they are too small for it. Each piece goes as it is taken.
pub(super) async fn gzip(pieces: &mut dyn Iterator<Item = Bytes>, bytes: usize) -> Option<Bytes> {
    if bytes < PAGE_BYTES_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        for part in piece.chunks(STEP_BYTES) {
            // A vector takes whatever is written.
            encoder.write_all(part).ok()?;
            tokio::task::yield_now().await;
        }
    }
    encoder.finish().ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::admission::Budget;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    fn packed(bytes: &[u8], coding: Coding) -> Bytes {
        match coding {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(bytes).expect("a vector");
                encoder.finish().expect("a vector").into()
            }
            Coding::Zstd => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                ruzstd::encoding::compress_to_vec(bytes, level).into()
            }
        }
    }

    /// What comes of a body, and what of the budget was held at most.
    fn expanded(body: &[u8], coding: Coding, limit: usize) -> (Result<Bytes, Error>, usize) {
        let budget = std::sync::Arc::new(Budget::new(64 << 20));
        let mut held = budget.take(0).expect("nothing");
        let body = Bytes::copy_from_slice(body);
        let result = run(expand((body, Some(coding)), limit, &mut held));
        (result, held.bytes())
    }

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

    #[test]
    fn a_body_that_expands_without_end_is_refused_at_the_limit() {
        let limit = 1 << 20;
        for coding in BOTH {
            let bomb = packed(&vec![b'0'; 50 << 20], coding);
            assert!(bomb.len() < 200_000, "{} bytes of {coding:?}", bomb.len());
            let (result, held) = expanded(&bomb, coding, limit);
            let error = result.expect_err("it is larger").to_string();
            assert!(error.contains("http.body-bytes-max") && error.contains("1048576"), "{error}");
            assert!(held <= limit + WINDOW_BYTES_MAX as usize, "{held} bytes of {coding:?}");
            let exact = packed(&vec![b'0'; limit], coding);
            assert_eq!(expanded(&exact, coding, limit).0.expect("it fits").len(), limit);
        }
    }

    #[test]
    fn what_is_cut_short_or_has_more_behind_it_is_refused() {
        let text = "{\"a\":1}\n".repeat(1000);
        for coding in BOTH {
            let body = packed(text.as_bytes(), coding);
            for end in 0..body.len() {
                let (result, _) = expanded(&body[..end], coding, 1 << 20);
                // Nothing at all is no frames of zstd.
                let empty = end == 0 && coding == Coding::Zstd;
                assert_eq!(result.is_ok(), empty, "{end} of {} bytes of {coding:?}", body.len());
            }
            let more = [&body[..], b"more"].concat();
            assert!(expanded(&more, coding, 1 << 20).0.is_err(), "{coding:?}");
            let twice = [&body[..], &body[..]].concat();
            let twice = expanded(&twice, coding, 1 << 20).0.expect("two in one body");
            assert_eq!(twice, text.repeat(2), "{coding:?}");
        }
    }

    /// A frame of zstd with one raw block of one byte.
    fn frame_of_x(descriptor: u8, window: u8, behind: &[u8]) -> Vec<u8> {
        let begin = ZSTD_MAGIC.to_le_bytes();
        [&begin[..], &[descriptor, window, 9, 0, 0, b'x'], behind].concat()
    }

    #[test]
    fn what_it_takes_is_drawn_from_the_budget_of_all() {
        let large = frame_of_x(0, 0b0110_1000, &[]);
        let (found, held) = expanded(&large, Coding::Zstd, 10);
        assert_eq!(found.expect("8 MiB are allowed"), "x");
        assert!(held >= 8 << 20, "{held}");
        let zeros = vec![b'0'; 1 << 20];
        for coding in BOTH {
            let (found, held) = expanded(&packed(&zeros, coding), coding, 2 << 20);
            assert_eq!(found.expect("it fits").len(), 1 << 20);
            assert!(held >= 1 << 20, "{held} of {coding:?}");
        }
        let bodies = BOTH.map(|coding| (coding, packed(&zeros, coding)));
        for (coding, body) in bodies.into_iter().chain([(Coding::Zstd, large.into())]) {
            let budget = std::sync::Arc::new(Budget::new(512 << 10));
            let mut held = budget.take(0).expect("nothing");
            let found = run(expand((body, Some(coding)), 2 << 20, &mut held));
            assert!(matches!(found, Err(Error::Overloaded { .. })), "{found:?} of {coding:?}");
        }
    }

    #[test]
    fn a_checksum_of_zstd_is_looked_at() {
        let wrong = frame_of_x(0x04, 0, &[1, 2, 3, 4]);
        let error = expanded(&wrong, Coding::Zstd, 10).0.expect_err("it differs").to_string();
        assert!(error.contains("a checksum differs"), "{error}");
        assert!(expanded(&frame_of_x(0, 0, &[]), Coding::Zstd, 10).0.is_ok());
    }

    #[test]
    fn others_run_between_members_that_stand_for_nothing() {
        const MEMBERS: usize = 1000;
        let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &[0; 4]].concat();
        let empty = |coding| packed(b"", coding).to_vec();
        for (coding, member) in [
            (Coding::Gzip, empty(Coding::Gzip)),
            (Coding::Zstd, empty(Coding::Zstd)),
            (Coding::Zstd, skipped),
        ] {
            let budget = std::sync::Arc::new(Budget::new(64 << 20));
            let mut held = budget.take(0).expect("nothing");
            let body = Bytes::from(member.repeat(MEMBERS));
            let mut expanding = std::pin::pin!(expand((body, Some(coding)), 10, &mut held));
            let mut polls = 0;
            let counted = std::future::poll_fn(|context| {
                polls += 1;
                expanding.as_mut().poll(context)
            });
            assert_eq!(run(counted).expect("nothing at all").len(), 0);
            assert!(polls >= MEMBERS, "{polls} steps for {coding:?}");
        }
    }

    #[test]
    fn a_window_larger_than_http_allows_is_refused_before_it_is_made() {
        let frame =
            |window: u8| [&ZSTD_MAGIC.to_le_bytes()[..], &[0x00, window], &[0x01; 8]].concat();
        assert_eq!(head(&frame(0b0110_1000)), Some(Head::Frame { window: 8 << 20 }));
        let (result, held) = expanded(&frame(0b0110_1001), Coding::Zstd, 1 << 20);
        assert!(result.expect_err("9 MiB").to_string().contains("8 MiB"));
        assert_eq!(held, 0);
        let single = [&ZSTD_MAGIC.to_le_bytes()[..], &[0xE0], &[0xFF; 8]].concat();
        assert!(expanded(&single, Coding::Zstd, 1 << 20).0.is_err());
        let skipped = [&0x184D_2A53_u32.to_le_bytes()[..], &[2, 0, 0, 0, 9, 9]].concat();
        let behind = [&skipped[..], &packed(b"x", Coding::Zstd)].concat();
        assert_eq!(expanded(&behind, Coding::Zstd, 9).0.expect("one that means nothing"), "x");
    }

    #[test]
    fn a_damaged_byte_never_passes_unnoticed_for_long() {
        let text: String = (0..3000).map(|n| format!("{{\"n\":{}}}\n", n * 7919)).collect();
        let body = packed(text.as_bytes(), Coding::Gzip);
        // The header has bytes that say nothing; behind it the checksum sees all.
        for at in (10..body.len()).step_by(97) {
            let mut bytes = body.to_vec();
            bytes[at] ^= 0x10;
            let found = expanded(&bytes, Coding::Gzip, 1 << 20).0;
            assert!(found.is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_coding_is_named_by_its_header() {
        let of = |values: &[&'static str]| {
            let pair = |value: &&'static str| (CONTENT_ENCODING, HeaderValue::from_static(value));
            Coding::of(&values.iter().map(pair).collect())
        };
        assert_eq!(of(&[]).ok(), Some(None));
        assert_eq!(of(&["identity"]).ok(), Some(None));
        assert_eq!(of(&["GZip"]).ok(), Some(Some(Coding::Gzip)));
        assert_eq!(of(&["zstd"]).ok(), Some(Some(Coding::Zstd)));
        for bad in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["deflate"]] {
            assert!(matches!(of(bad), Err(Error::Coding { .. })), "{bad:?}");
        }
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        let takes = |text: &'static str| {
            takes_gzip(&[(ACCEPT_ENCODING, HeaderValue::from_static(text))].into_iter().collect())
        };
        assert!(takes("gzip") && takes("br, GZIP;q=0.1") && takes("*") && takes("*;q=0,x-gzip"));
        assert!(!takes("gzip;q=0, *") && !takes("br") && !takes("") && !takes("*;q=0"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            for coding in BOTH {
                let (found, held) = expanded(&packed(&bytes, coding), coding, 5000);
                prop_assert_eq!(&found.expect("it fits")[..], &bytes[..]);
                prop_assert!(held <= 5000 + WINDOW_BYTES_MAX as usize);
            }
            let piece = Bytes::from(bytes.clone());
            let mut pieces = [piece.clone(), piece].into_iter();
            let packed = run(gzip(&mut pieces, 2 * bytes.len()));
            prop_assert_eq!(packed.is_some(), 2 * bytes.len() >= PAGE_BYTES_MIN);
            if let Some(packed) = packed {
                let found = expanded(&packed, Coding::Gzip, 10_000).0.expect("whole");
                prop_assert_eq!(&found[..], &bytes.repeat(2)[..]);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_they_may(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            magic: bool,
        ) {
            for (coding, begin) in
                [(Coding::Gzip, &[0x1F, 0x8B, 8, 0][..]), (Coding::Zstd, &ZSTD_MAGIC.to_le_bytes())]
            {
                if magic && bytes.len() >= 4 {
                    bytes[..4].copy_from_slice(begin);
                }
                let (found, held) = expanded(&bytes, coding, 10_000);
                prop_assert!(found.is_err() || found.is_ok_and(|found| found.len() <= 10_000));
                prop_assert!(held <= 10_000 + WINDOW_BYTES_MAX as usize);
            }
        }
    }
}
