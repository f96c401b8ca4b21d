//! What can go wrong between an upload and a loaded component, and which kind each failure is.
//!
//! Keeps true: every variant has one stable dotted code and one kind; messages name what was found
//! and what to do; text that came from a component or from the compiler is cut and escaped.
//!
//! Leaves to others: HTTP status (`node`), log level and retry (they follow from the kind).

use std::fmt;

use sluicebox_core::error::{Classify, Kind};

/// A failure on the way from uploaded bytes to a component that is ready to run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the engine is out of its range.
    #[error("engine setting `{field}`: {message}")]
    Config {
        /// The field of [`EngineConfig`](crate::tuning::EngineConfig) or of another configuration.
        field: &'static str,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// The engine could not be built on this machine.
    #[error("the engine cannot start: {0}")]
    Start(String),

    /// The upload is larger than the node accepts.
    #[error("the component has {bytes} bytes; at most {max} are accepted")]
    TooLarge {
        /// Size of the upload.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The upload is no WebAssembly at all.
    #[error("this is not a WebAssembly component: {0}")]
    NotWasm(String),
    /// The upload is a core module.
    #[error(
        "this is a core module, not a component. Build for a target that makes components \
         (Rust: `--target wasm32-wasip2`), or wrap the module: `wasm-tools component new \
         module.wasm --adapt wasi_snapshot_preview1=<adapter>.wasm -o component.wasm`"
    )]
    CoreModule,
    /// The upload breaks the rules of the format, or uses a proposal that is switched off.
    #[error("the component is not valid: {0}")]
    Malformed(String),
    /// The component imports what no stage is given.
    #[error("the component imports what stages are not given: {}", Lines(.0))]
    Import(Vec<String>),
    /// The component exports no `handle`, or one of another type.
    #[error("{0}")]
    Export(String),
    /// The component asks for more than any instance may have.
    #[error("the component could never be started here: {}", Lines(.0))]
    Demand(Vec<String>),

    /// The component passed inspection and yet cannot be linked.
    #[error("the component cannot be linked: {0}")]
    Link(String),

    /// Too many uploads are waiting for the compiler.
    #[error("{waiting} uploads are being compiled or wait for it already; try again shortly")]
    CompileBusy {
        /// How many compilations are admitted.
        waiting: usize,
    },
    /// The compile process could not be started, fed or read.
    #[error("the compile process cannot be run: {0}")]
    CompileStart(String),
    /// The compiler used up its processor time.
    #[error(
        "compiling took more than {seconds} s of processor time; split the component's largest \
         functions or make it smaller"
    )]
    CompileCpu {
        /// The limit.
        seconds: u64,
    },
    /// The compiler took too long by the clock.
    #[error("compiling was not done after {seconds} s; the machine may be busy, try again")]
    CompileTimeout {
        /// The limit.
        seconds: u64,
    },
    /// The compiler needed more memory than it may have.
    #[error(
        "compiling needs more than {max} bytes of memory; split the component's largest functions \
         or make it smaller"
    )]
    CompileMemory {
        /// The limit.
        max: u64,
    },
    /// The compiled code is too large.
    #[error("the compiled component has more than {max} bytes")]
    CompileOutput {
        /// The limit.
        max: u64,
    },
    /// The compiler refused the component.
    #[error("the component does not compile: {0}")]
    CompileRefused(String),
    /// The compiler itself failed.
    #[error("the compiler failed on this component ({cause}): {stderr}")]
    CompileCrash {
        /// Signal or exit status.
        cause: String,
        /// What it said, cut and escaped.
        stderr: String,
    },
    /// Somebody else ended the compiler.
    #[error("the compile process was killed from outside, perhaps because memory is short")]
    CompileKilled,
    /// The compiler belongs to another build of the program.
    #[error(
        "the compile process belongs to another version of the program than this node; restart \
         the node to finish the upgrade"
    )]
    CompileMismatch,

    /// The directory of artefacts cannot be read or written.
    #[error("the artefact directory: {0}")]
    ArtefactIo(String),
    /// The node's artefact secret cannot be used.
    #[error("the artefact secret `{file}`: {message}")]
    ArtefactSecret {
        /// Name of the file in the artefact directory.
        file: &'static str,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// A compiled component does not load although its seal is right.
    #[error("a compiled component cannot be loaded: {0}")]
    ArtefactCorrupt(String),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Config { .. }
            | Self::TooLarge { .. }
            | Self::NotWasm(_)
            | Self::CoreModule
            | Self::Malformed(_)
            | Self::Export(_)
            | Self::Link(_)
            | Self::Demand(_)
            | Self::CompileCpu { .. }
            | Self::CompileMemory { .. }
            | Self::CompileOutput { .. }
            | Self::CompileRefused(_) => Kind::Invalid,
            Self::Import(_) => Kind::Denied,
            Self::CompileBusy { .. } => Kind::Exhausted,
            Self::Start(_)
            | Self::CompileStart(_)
            | Self::CompileTimeout { .. }
            | Self::CompileKilled
            | Self::CompileMismatch
            | Self::ArtefactIo(_)
            | Self::ArtefactSecret { .. } => Kind::Unavailable,
            Self::CompileCrash { .. } | Self::ArtefactCorrupt(_) => Kind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "engine.config",
            Self::Start(_) => "engine.start",
            Self::TooLarge { .. } => "component.too-large",
            Self::NotWasm(_) => "component.not-wasm",
            Self::CoreModule => "component.core-module",
            Self::Malformed(_) => "component.malformed",
            Self::Import(_) => "component.import",
            Self::Export(_) => "component.export",
            Self::Link(_) => "component.link",
            Self::Demand(_) => "component.demand",
            Self::CompileBusy { .. } => "compile.busy",
            Self::CompileStart(_) => "compile.start",
            Self::CompileCpu { .. } => "compile.cpu",
            Self::CompileTimeout { .. } => "compile.timeout",
            Self::CompileMemory { .. } => "compile.memory",
            Self::CompileOutput { .. } => "compile.output",
            Self::CompileRefused(_) => "compile.refused",
            Self::CompileCrash { .. } => "compile.crash",
            Self::CompileKilled => "compile.killed",
            Self::CompileMismatch => "compile.mismatch",
            Self::ArtefactIo(_) => "artefact.io",
            Self::ArtefactSecret { .. } => "artefact.secret",
            Self::ArtefactCorrupt(_) => "artefact.corrupt",
        }
    }
}

/// Several complaints in one message.
struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}

/// Foreign text made fit for one of our messages: control characters escaped, cut at `max` bytes.
pub(crate) fn shown(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.trim().chars() {
        if out.len() >= max {
            out.push('…');
            break;
        }
        if c == '\n' || c == '\t' {
            out.push(' ');
        } else if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Cause and context of an engine error in one line, cut.
pub(crate) fn engine_text(error: &wasmtime::Error) -> String {
    shown(&format!("{error:#}"), 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_escaped() {
        assert_eq!(shown("a\u{1b}[31mb\nc", 64), "a\\u{1b}[31mb c");
        assert_eq!(shown("abcdef", 3), "abc…");
    }

    #[test]
    fn several_complaints_share_one_message() {
        let error = Error::Import(vec!["one".to_owned(), "two".to_owned()]);
        assert_eq!(error.to_string(), "the component imports what stages are not given: one; two");
        assert_eq!((error.kind(), error.code()), (Kind::Denied, "component.import"));
    }
}
