//! What a pipeline takes in and hands out by itself, as its author declared it.
//!
//! Whether a path, a host or a schedule is any good is for the node to say, which knows what the
//! operator allows.

/// Something the node takes events in from by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, unique within the pipeline.
    pub name: String,
    /// The key of its events, if they have none in their payload.
    pub key: Option<String>,
    /// What it is.
    pub kind: SourceKind,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceKind {
    /// The lines of a file, as they come.
    File(Lines),
    /// The files that come into a folder.
    Folder(Lines),
    /// A schedule.
    Cron(Cron),
    /// Messages of NATS.
    Nats(NatsSource),
}

impl SourceKind {
    /// The word in a manifest.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Folder(_) => "folder",
            Self::Cron(_) => "cron",
            Self::Nats(_) => "nats",
        }
    }
}

/// What is read of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// The file or folder.
    pub path: String,
    /// What becomes an event.
    pub form: LineForm,
    /// Bytes of the longest line.
    pub line_bytes: u64,
    /// Of a folder: files that were read are deleted, rather than moved.
    pub deletes: bool,
}

/// What becomes an event of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LineForm {
    /// A line, which is JSON.
    #[default]
    Json,
    /// A line.
    Text,
    /// The file; only in a folder.
    Whole,
}

impl LineForm {
    /// The word in a manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Whole => "whole",
        }
    }
}

/// A schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cron {
    /// Five or six fields.
    pub at: String,
    /// Name of the time zone.
    pub zone: String,
    /// What becomes of times at which the pipeline did not run.
    pub missed: Missed,
}

/// What becomes of times at which the pipeline did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    Skip,
    /// The last comes.
    #[default]
    Once,
    /// All come, up to a bound.
    All,
}

impl Missed {
    /// The word in a manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

/// Messages of NATS: of a stream, or as they are published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatsSource {
    /// The server.
    pub url: String,
    /// Which messages; of a stream all, unless it says less.
    pub subject: Option<String>,
    /// The stream they are kept in; without one each comes at most once.
    pub stream: Option<String>,
    /// Name of the durable consumer of the stream.
    pub consumer: Option<String>,
    /// Without a stream: the group that shares the messages.
    pub queue: Option<String>,
    /// A consumer that is made anew begins with what comes next, rather than with what is there.
    pub begins_new: bool,
    /// Bytes of the largest message.
    pub message_bytes: u64,
    /// Name of the secret that says who this is.
    pub secret: Option<String>,
}

/// Where the node hands results on to by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Its name, unique within the pipeline.
    pub name: String,
    /// The output.
    pub from: String,
    /// What is never taken is left out; else the sink stops there.
    pub drops: bool,
    /// What it is.
    pub kind: SinkKind,
}

/// What a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkKind {
    /// A URL that results are posted to.
    Webhook(Webhook),
    /// A subject of NATS.
    Nats(NatsSink),
}

impl SinkKind {
    /// The word in a manifest.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Nats(_) => "nats",
        }
    }
}

/// A URL that results are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// What a request holds.
    pub form: WebhookForm,
    /// Most events of one.
    pub batch_events: u64,
    /// Name of the secret it is signed with.
    pub secret: Option<String>,
    /// Milliseconds it may take.
    pub timeout_ms: u64,
    /// Milliseconds of the longest pause between two attempts.
    pub pause_max_ms: u64,
}

/// A subject of NATS that results are published to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatsSink {
    /// The server.
    pub url: String,
    /// The subject.
    pub subject: String,
    /// What a message holds; there is no form of lines.
    pub form: WebhookForm,
    /// A stream has to confirm each, rather than the server alone.
    pub by_stream: bool,
    /// Most messages that are under way.
    pub batch_events: u64,
    /// Name of the secret that says who this is.
    pub secret: Option<String>,
    /// Milliseconds the confirmation may take.
    pub timeout_ms: u64,
    /// Milliseconds of the longest pause between two attempts.
    pub pause_max_ms: u64,
}

/// What a request to a webhook, or a message, holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WebhookForm {
    /// The payload, with attributes as headers.
    #[default]
    Payload,
    /// One event as JSON.
    Event,
    /// Events as lines.
    Lines,
}

impl WebhookForm {
    /// The word in a manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Event => "event",
            Self::Lines => "lines",
        }
    }
}
