//! Traces: where they go, as the standard variables of OpenTelemetry say it, and how many a tenant
//! may have, which these do not say.
//!
//! A variable that is set to nothing is not set. Without an endpoint there are no traces, and then
//! no other variable is looked at: they may be meant for other programs. With one, what cannot be
//! done is refused rather than done otherwise.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};

use super::reader::{Origin, Reader};
use super::shape::{Count, Shape};
use super::{HOUR, MILLISECOND};
use crate::traces::Sampler;

section! {
    /// How much of its traffic a tenant may have traced; where traces go is said by `OTEL_…`.
    TracesConfig in "traces" {
        /// Requests, and events with a trace of their own, whose trace is kept, of each tenant each
        /// second, whatever clients ask for.
        sampled_per_second: u32 = Count { default: 20, least: 0, most: 1_000_000 };
        /// Spans of each tenant each second; what is more is left out and counted.
        spans_per_second: u32 = Count { default: 1_000, least: 0, most: 10_000_000 };
    }
}

/// Part of the traces that are kept unless somebody decides: one in a hundred.
const RATIO: f64 = 0.01;

/// Headers of requests to a collector, and attributes of what sends them.
const PAIRS_MAX: usize = 64;

/// Which traces are kept, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// Who takes them; none: the front of a tenant's process does.
    pub collector: Option<CollectorConfig>,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// Spans that wait to be sent.
    pub queue_max: usize,
    /// Spans of one request.
    pub batch_max: usize,
    /// How long a span waits for others to go with.
    pub delay: Duration,
    /// How long a batch is sent again before it is given up.
    pub export_time_max: Duration,
}

/// A collector, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorConfig {
    /// Its own address for traces.
    pub url: Url,
    /// What it wants to be told with each request.
    pub headers: Vec<(String, Secret)>,
    /// File with the certificates of whoever vouches for it, instead of those of the system.
    pub authorities: Option<PathBuf>,
    /// Requests are compressed.
    pub gzip: bool,
    /// Longest time of a request.
    pub time_max: Duration,
    /// What the node says of itself.
    pub resource: Vec<(String, String)>,
}

impl Otlp {
    /// What the process of a tenant is told of it.
    pub(crate) fn to_text(&self) -> String {
        let (parent_based, below) = self.sampler.parts();
        format!("{} {below} {}", u8::from(parent_based), self.queue_max)
    }

    /// The same there: the front takes what is kept. None if there is nothing of it.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let sampler = Sampler::of_parts((next()? != 0, next()?));
        // Fewer would be more messages than the front takes.
        let queue_max = usize::try_from(next()?).ok()?.max(PROCESS_BATCH_MAX);
        Some(Self {
            collector: None,
            sampler,
            queue_max,
            batch_max: PROCESS_BATCH_MAX.min(queue_max),
            delay: PROCESS_DELAY,
            export_time_max: MILLISECOND * 10_000,
        })
    }
}

/// How a process hands spans to its front: in batches that are not many in a second.
const PROCESS_BATCH_MAX: usize = 128;
const PROCESS_DELAY: Duration = Duration::from_millis(500);

/// An address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// It is spoken to by TLS.
    pub https: bool,
    /// As it is looked for, and as its certificate has it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Host, and port if it is said.
    pub authority: String,
    /// From the slash on.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// A text that nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What is wrong with a variable, and what it may be.
type Wrong = (String, String);

/// Variables for traces alone, before those for everything that is sent.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const COMPRESSION: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const CERTIFICATE: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

/// What nobody here can do.
const UNKNOWN: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
];

/// Reads the variables; none if nobody wants traces.
pub(super) fn read(said: &[(String, String)], reader: &mut Reader) -> Option<Otlp> {
    let mut said = Said { said, reader };
    let is_off = said.one("OTEL_SDK_DISABLED").is_some_and(|(_, text)| {
        // Any other word is as good as none, as the standard has it.
        text.eq_ignore_ascii_case("true")
    });
    let is_none = said.one("OTEL_TRACES_EXPORTER").is_some_and(|(_, text)| text == "none");
    let (name, endpoint) = said.first(&ENDPOINT).filter(|_| !is_off && !is_none)?;
    let url = said.check(name, url(endpoint, name == ENDPOINT[1]));
    said.words(&["OTEL_TRACES_EXPORTER"], &[("otlp", ())]);
    said.protocol();
    for name in UNKNOWN {
        if let Some((name, _)) = said.one(name) {
            let what = "certificates of the node for a collector are not known here";
            said.wrong(name, what.to_owned(), "leave it out, or put a proxy between".to_owned());
        }
    }
    let headers = said.read(&HEADERS, headers).unwrap_or_default();
    let queue_max = said.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1..=1 << 20) as usize;
    let batch_max = said.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1..=8192) as usize;
    let delay = said.time(&["OTEL_BSP_SCHEDULE_DELAY"], 5_000);
    let gzip = said.words(&COMPRESSION, &[("none", false), ("gzip", true)]).unwrap_or(false);
    let time_max = said.time(&TIMEOUT, 10_000);
    let authorities = said.first(&CERTIFICATE).map(|(_, text)| PathBuf::from(text));
    let resource = said.resource();
    let with = |url| CollectorConfig { url, headers, authorities, gzip, time_max, resource };
    Some(Otlp {
        sampler: said.sampler(),
        queue_max,
        batch_max: batch_max.min(queue_max),
        delay,
        export_time_max: said.time(&["OTEL_BSP_EXPORT_TIMEOUT"], 30_000),
        collector: Some(with(url?)),
    })
}

/// The variables, and who is told what is wrong with them.
struct Said<'a> {
    said: &'a [(String, String)],
    reader: &'a mut Reader,
}

impl<'a> Said<'a> {
    fn one(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let known = self.said.iter().find(|(known, _)| known == name);
        let (name, text) = known.map(|(name, text)| (name.as_str(), text.trim()))?;
        (!text.is_empty()).then_some((name, text))
    }

    fn first(&self, names: &[&str]) -> Option<(&'a str, &'a str)> {
        names.iter().find_map(|name| self.one(name))
    }

    fn wrong(&mut self, name: &str, message: String, fix: String) {
        self.reader.problem("", Origin::Environment(name.to_owned()), message, fix);
    }

    fn check<T>(&mut self, name: &str, read: Result<T, Wrong>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err((message, fix)) => {
                self.wrong(name, message, fix);
                None
            }
        }
    }

    fn read<T>(&mut self, names: &[&str], read: fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let (name, text) = self.first(names)?;
        self.check(name, read(text))
    }

    /// What one of some words stands for.
    fn words<T: Copy>(&mut self, names: &[&str], words: &[(&str, T)]) -> Option<T> {
        let (name, text) = self.first(names)?;
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if known.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(name, unusable(text), format!("it may be {}", words.join(" or ")));
        }
        known
    }

    fn protocol(&mut self) {
        let Some((name, text)) = self.first(&PROTOCOL) else { return };
        let message = match text {
            "http/protobuf" => return,
            "grpc" => "grpc is not spoken here".to_owned(),
            other => unusable(other),
        };
        let fix = "it may be http/protobuf, which collectors take on port 4318 as a rule";
        self.wrong(name, message, fix.to_owned());
    }

    fn number(&mut self, name: &str, usual: u64, most: std::ops::RangeInclusive<u64>) -> u64 {
        let Some((name, text)) = self.one(name) else { return usual };
        let number = text.parse().ok().filter(|number| most.contains(number));
        if number.is_none() {
            let fix = format!("it must be a whole number from {} to {}", most.start(), most.end());
            self.wrong(name, unusable(text), fix);
        }
        number.unwrap_or(usual)
    }

    /// A time in milliseconds.
    fn time(&mut self, names: &[&'static str], usual: u64) -> Duration {
        let name = self.first(names).map_or(names[0], |(name, _)| name);
        let most = HOUR.as_millis() as u64;
        MILLISECOND * self.number(name, usual, 1..=most) as u32
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        let said = self.read(&["OTEL_RESOURCE_ATTRIBUTES"], pairs).unwrap_or_default();
        let own = self.one("OTEL_SERVICE_NAME").map(|(_, text)| text.to_owned());
        let own = own.map(|name| ("service.name".to_owned(), name));
        let has_own = own.is_some();
        let others = said.into_iter().filter(|(key, _)| !has_own || key != "service.name");
        own.into_iter().chain(others).collect()
    }

    fn sampler(&mut self) -> Sampler {
        let argument = match self.one("OTEL_TRACES_SAMPLER_ARG") {
            None => None,
            Some((name, text)) => {
                let part = text.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
                let fix = "it must be a number from 0 to 1, such as 0.01".to_owned();
                self.check(name, part.ok_or_else(|| (unusable(text), fix)))
            }
        };
        let ratio = Sampler::ratio(argument.unwrap_or(1.0));
        let all = Sampler::ratio(1.0);
        let none = Sampler::ratio(0.0);
        let known = [
            ("parentbased_traceidratio", ratio.of_parent()),
            ("traceidratio", ratio),
            ("parentbased_always_on", all.of_parent()),
            ("always_on", all),
            ("parentbased_always_off", none.of_parent()),
            ("always_off", none),
        ];
        let said = self.words(&["OTEL_TRACES_SAMPLER"], &known);
        said.unwrap_or_else(|| Sampler::ratio(argument.unwrap_or(RATIO)).of_parent())
    }
}

fn unusable(text: &str) -> String {
    format!("{:?} is not allowed", crate::error::shown(text))
}

/// An endpoint; that of everything has the path of traces behind it.
fn url(text: &str, is_base: bool) -> Result<Url, Wrong> {
    let fix = "write http://HOST:PORT or https://HOST:PORT, such as http://127.0.0.1:4318";
    // What may be a password is nobody's to see.
    let is_shown = !text.contains(['@', '?']);
    let seen = if is_shown { format!("{:?}", crate::error::shown(text)) } else { "it".to_owned() };
    let wrong = |why: &str| (format!("{seen}: {why}"), fix.to_owned());
    let uri: Uri = text.parse().map_err(|_| wrong("is no address"))?;
    let https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("is neither http:// nor https://")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("has a name or a password in it, which belongs into a header"));
    }
    let host = host(authority);
    let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
    if host.is_empty() || port == 0 || uri.query().is_some() {
        return Err(wrong("is no address of a collector"));
    }
    let path = match is_base {
        true => format!("{}/v1/traces", uri.path().trim_end_matches('/')),
        false => uri.path().to_owned(),
    };
    Ok(Url { https, host, port, authority: authority.to_string(), path })
}

/// Without the brackets of an address.
fn host(authority: &Authority) -> String {
    authority.host().trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn headers(text: &str) -> Result<Vec<(String, Secret)>, Wrong> {
    let checked = |(at, (name, value)): (usize, (String, String))| {
        let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
        // Neither is anybody's to see: with a wrong sign between them the value is in the name.
        let wrong = || (format!("header {} cannot be sent", at + 1), pairs_look());
        let is_sound = is_name && HeaderValue::from_str(&value).is_ok();
        if is_sound { Ok((name, Secret(value))) } else { Err(wrong()) }
    };
    pairs(text)?.into_iter().enumerate().map(checked).collect()
}

fn pairs_look() -> String {
    "write name=value, with commas between, other characters as %XX".to_owned()
}

/// `name=value,name=value`, what is special in it as `%XX`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let pair = |item: &str| {
        let (name, value) = item.split_once('=')?;
        let (name, value) = (decode(name.trim())?, decode(value.trim())?);
        (!name.is_empty()).then_some((name, value))
    };
    let read: Option<Vec<_>> = items.map(pair).collect();
    let read =
        read.ok_or_else(|| ("this is no list of names and values".to_owned(), pairs_look()))?;
    if read.len() > PAIRS_MAX {
        let message = format!("there are {} of them", read.len());
        return Err((message, format!("at most {PAIRS_MAX} are taken")));
    }
    Ok(read)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Sources};
    use super::*;

    fn load(said: &[(&str, &str)]) -> Result<Option<Otlp>, String> {
        let otel = said.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let sources = Sources { otel: otel.collect(), ..Sources::default() };
        let loaded = Config::load(&sources).map_err(|error| error.to_string())?;
        Ok(loaded.config.otlp)
    }

    const AT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    fn with(more: &[(&str, &str)]) -> Result<Option<Otlp>, String> {
        load(&[&[AT], more].concat())
    }

    fn collector(said: &[(&str, &str)]) -> CollectorConfig {
        load(said).unwrap().unwrap().collector.unwrap()
    }

    #[test]
    fn a_process_is_told_what_it_needs_and_no_address() {
        let secret = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret");
        let otlp = with(&[secret, ("OTEL_BSP_MAX_QUEUE_SIZE", "777")]).unwrap().unwrap();
        let text = otlp.to_text();
        let there = Otlp::of_text(&text).unwrap();
        assert!(!text.contains("s3cret") && there.collector.is_none());
        assert_eq!((there.sampler, there.queue_max), (otlp.sampler, 777));
        assert_eq!((Otlp::of_text(""), Otlp::of_text("1 x 3")), (None, None));
    }

    #[test]
    fn without_an_endpoint_or_when_switched_off_there_are_no_traces() {
        assert_eq!(load(&[]), Ok(None));
        assert_eq!(load(&[("OTEL_TRACES_SAMPLER", "nonsense")]), Ok(None), "nobody asked");
        assert_eq!(load(&[(AT.0, "  ")]), Ok(None));
        assert_eq!(with(&[("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(with(&[("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert!(with(&[("OTEL_SDK_DISABLED", "no")]).unwrap().is_some());
    }

    #[test]
    fn an_endpoint_of_all_gets_the_path_and_one_of_traces_is_taken_as_it_is() {
        let url = |name: &str, text: &str| {
            let url = collector(&[(name, text)]).url;
            (url.to_string(), url.host, url.port, url.https)
        };
        let found = url(AT.0, "http://127.0.0.1:4318/");
        assert_eq!(found.0, "http://127.0.0.1:4318/v1/traces");
        let found = url(AT.0, "https://collector/otlp");
        let host = "collector".to_owned();
        assert_eq!(found, ("https://collector/otlp/v1/traces".to_owned(), host, 443, true));
        let found = url(ENDPOINT[0], "http://[::1]:4/x");
        assert_eq!(found, ("http://[::1]:4/x".to_owned(), "::1".to_owned(), 4, false));
        let both = [(ENDPOINT[0], "http://a:1/t"), AT];
        assert_eq!(collector(&both).url.to_string(), "http://a:1/t");
        for bad in
            ["collector:4318", "ftp://a", "http://", "/v1/traces", "http://u:p@a", "http://a:0"]
        {
            let error = load(&[(AT.0, bad)]).unwrap_err();
            assert!(error.starts_with(AT.0) && error.contains("write http://"), "{error}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_standard_but_for_the_sampler() {
        let otlp = with(&[]).unwrap().unwrap();
        assert_eq!((otlp.queue_max, otlp.batch_max), (2048, 512));
        assert_eq!(collector(&[AT]).time_max, Duration::from_secs(10));
        assert_eq!(otlp.delay, Duration::from_secs(5));
        assert_eq!(otlp.export_time_max, Duration::from_secs(30));
        assert_eq!(otlp.sampler, Sampler::ratio(0.01).of_parent());
        let sampler = |said: &[(&str, &str)]| with(said).unwrap().unwrap().sampler;
        let (name, part) = ("OTEL_TRACES_SAMPLER", ("OTEL_TRACES_SAMPLER_ARG", "0.25"));
        assert_eq!(sampler(&[part]), Sampler::ratio(0.25).of_parent());
        assert_eq!(sampler(&[(name, "traceidratio"), part]), Sampler::ratio(0.25));
        assert_eq!(sampler(&[(name, "traceidratio")]), Sampler::ratio(1.0));
        assert_eq!(sampler(&[(name, "parentbased_always_on")]), Sampler::ratio(1.0).of_parent());
        assert_eq!(sampler(&[(name, "always_off"), part]), Sampler::ratio(0.0));
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_secret_is() {
        let error = with(&[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api key=s3cret"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "k.pem"),
        ]);
        let error = error.unwrap_err();
        assert_eq!(error.lines().count(), 6, "{error}");
        assert!(error.contains("grpc is not spoken") && error.contains("http/protobuf"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
        let otlp = collector(&[AT, ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret, x=a%20b")]);
        assert!(!format!("{otlp:?}").contains("s3cret"));
        let headers: Vec<_> =
            otlp.headers.iter().map(|(name, value)| (name.as_str(), value.text())).collect();
        assert_eq!(headers, [("api-key", "s3cret"), ("x", "a b")]);
        let no_list = with(&[("OTEL_EXPORTER_OTLP_HEADERS", "Bearer s3cret")]).unwrap_err();
        assert!(!no_list.contains("s3cret"), "{no_list}");
    }

    #[test]
    fn the_name_of_the_service_counts_before_the_attribute() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,zone=b%2Cc");
        let resource = collector(&[AT, attributes]).resource;
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(resource, [pair("service.name", "a"), pair("zone", "b,c")]);
        let resource = collector(&[AT, attributes, ("OTEL_SERVICE_NAME", "mine")]).resource;
        assert_eq!(resource, [pair("service.name", "mine"), pair("zone", "b,c")]);
    }
}
