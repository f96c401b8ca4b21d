//! Making a component's memory reachable: what is done to an upload between inspection and the
//! compiler.
//!
//! The memories and globals of a component's core modules are nobody's but theirs; no engine gives
//! them out. So each module is made to export its own, and one small module is appended, the
//! accessor, that imports them and reads and writes on behalf of the host.
//!
//! - Code and data of the component are copied byte for byte; only export sections grow.
//! - A component that has more to it than memories and globals gets no accessor but a mark that
//!   says why, and compiles as it is.
//! - What the accessor and the mark are called nobody else may use: `component` refuses it.
//! - The same bytes give the same bytes. Another way to do it has another [`VERSION`], which is
//!   part of the fingerprint artefacts are found by.
//!
//! Runs in the compile process: what it reads is foreign, what it takes is bounded by the upload.
//! Leaves to others: checking the result (`component`), using the accessor (`access`).

mod append;
mod module;
mod survey;

use sha2::{Digest as _, Sha256};

use crate::error::shown;
use survey::Stop;

/// Changes when what is done here changes.
pub(crate) const VERSION: u32 = 1;

/// How every name begins that only the engine may give.
pub(crate) const RESERVED: &str = "sluicebox:image/";

/// How the accessor's name goes on: with the digest of the upload.
const ACCESSOR: &str = "x";

/// How the mark's name goes on: with the reason.
const MARK: &str = "no-";

/// The version behind both names; there is only one.
const SUFFIX: &str = "@0.1.0";

/// Why a component can have no images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Code changes a table.
    Tables,
    /// Code drops a segment, so that a fresh instance could do what it no longer can.
    Segments,
    /// It makes resources of its own; their handles are with the engine.
    Resources,
    /// Components in it have code of their own, or it uses parts that do not come as bytes.
    Nested,
    /// No memory, too many, or shared or 64-bit ones.
    Memories,
    /// Too many mutable globals, or ones that hold references.
    Globals,
    /// With an accessor it would be larger than what is accepted.
    Size,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Tables,
        Self::Segments,
        Self::Resources,
        Self::Nested,
        Self::Memories,
        Self::Globals,
        Self::Size,
    ];

    const fn code(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Segments => "segments",
            Self::Resources => "resources",
            Self::Nested => "nested",
            Self::Memories => "memories",
            Self::Globals => "globals",
            Self::Size => "size",
        }
    }

    /// For whoever wrote the component.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Tables => {
                "the component changes a table of functions or references while it runs"
            }
            Self::Segments => "the component drops a data or element segment while it runs",
            Self::Resources => "the component makes resources of its own",
            Self::Nested => "the component contains components with code of their own",
            Self::Memories => "the component has no linear memory, or more than 16",
            Self::Globals => "the component has mutable globals of references, or more than 4096",
            Self::Size => "the component is too large to be made ready for images",
        }
    }
}

/// What the name of an export says about images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is the accessor of the component with this digest.
    Accessor([u8; 32]),
    /// There is none.
    No(Reason),
}

/// Reads the name of an export that begins with [`RESERVED`].
pub(crate) fn read_name(name: &str) -> Option<Said> {
    let name = name.strip_prefix(RESERVED)?.strip_suffix(SUFFIX)?;
    if let Some(code) = name.strip_prefix(MARK) {
        let reason = Reason::ALL.into_iter().find(|reason| reason.code() == code)?;
        return Some(Said::No(reason));
    }
    let (digits, []) = name.strip_prefix(ACCESSOR)?.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digits: &[[u8; 2]; 32] = digits.try_into().ok()?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Said::Accessor(digest))
}

/// Gives a component that passed inspection its accessor, or the mark that says why it has none.
///
/// # Errors
/// The bytes are no valid component, with the parser's complaint.
pub fn instrument(wasm: &[u8]) -> Result<Vec<u8>, String> {
    let reason = match survey::survey(wasm) {
        Ok(found) => {
            let code: [u8; 32] = Sha256::digest(wasm).into();
            let out = append::accessor(wasm, &found, &code).ok();
            match out.filter(|out| crate::component::check_instrumented(out).is_ok()) {
                Some(out) => return Ok(out),
                None => Reason::Size,
            }
        }
        Err(Stop::Reason(reason)) => reason,
        Err(Stop::Invalid(text)) => return Err(shown(&text, 512)),
    };
    let out = append::mark(wasm, reason)?;
    crate::component::check_instrumented(&out).map_err(|error| error.to_string())?;
    Ok(out)
}

fn accessor_name(code: &[u8; 32]) -> String {
    let digest = sluicebox_core::ids::Digest(*code);
    format!("{RESERVED}{ACCESSOR}{}{SUFFIX}", digest.hex())
}

fn mark_name(reason: Reason) -> String {
    format!("{RESERVED}{MARK}{}{SUFFIX}", reason.code())
}

/// What a core module's own memory is exported as.
fn memory_name(memory: u32) -> String {
    format!("{RESERVED}m{memory}")
}

/// What a core module's own global is exported as.
fn global_name(global: u32) -> String {
    format!("{RESERVED}g{global}")
}

/// What the accessor's functions are called.
pub(crate) mod name {
    pub(crate) use super::append::{DROP_IN, DROP_OUT, OPEN_IN, OPEN_OUT};
    pub(crate) use super::module::{COUNT, GET, GROW, READ, SEEK, SET, SIZE, WRITE, of_memory};
}

#[cfg(test)]
mod tests;
