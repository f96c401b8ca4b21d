//! What a stage costs, in process: `cargo bench -p sluicebox-engine --bench stage [-- SECTION...]`.
//!
//! Sections: `streams`, `native`, `framed`, `typed`, `map`, `words`, `cold`, `slice`, `images`,
//! `languages`; all of them without an argument. Guests come from `target/guests` (`cargo xtask
//! guests rust`, for the last all).
//!
//! - Times are processor time of the measuring thread, which does all the work: other load on the
//!   machine disturbs caches and little else. What is a latency to somebody is given by the clock
//!   on the wall too.
//! - Cases that are compared take turns, round by round, and medians are printed.
//! - Every result is checked: a bench that loses or changes an event fails.
//!
//! Nothing here goes through HTTP, mailboxes or the scheduler of a node; that is measured with the
//! real binary.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod bed;
mod chain;
mod clock;
mod cold;
mod events;
mod images;
mod languages;
mod map;
mod native;
mod report;
mod slice;
mod streams;
mod words;

/// As the program itself has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// For a profiler; run only when asked for.
const PROFILES: [(&str, fn()); 3] = [
    ("profile", chain::profile),
    ("profile-typed", chain::profile_typed),
    ("profile-one", chain::profile_one),
];

const SECTIONS: [(&str, fn()); 10] = [
    // First, while the heap holds nothing that others left free.
    ("streams", streams::run),
    ("native", native::run),
    ("framed", chain::framed),
    ("typed", chain::typed),
    ("map", map::run),
    ("words", words::run),
    ("cold", cold::run),
    ("slice", slice::run),
    ("images", images::run),
    ("languages", languages::run),
];

#[expect(clippy::disallowed_methods, reason = "a wrong argument ends the program")]
fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let all = SECTIONS.iter().chain(&PROFILES);
    let unknown = wanted.iter().find(|name| all.clone().all(|(known, _)| known != *name));
    if let Some(name) = unknown {
        let known = SECTIONS.map(|(name, _)| name).join(", ");
        println!("there is no section `{name}`; there are {known}");
        std::process::exit(2);
    }
    if wanted.is_empty() {
        SECTIONS.iter().for_each(|(_, run)| run());
    }
    for (_, run) in all.filter(|(name, _)| wanted.iter().any(|wanted| wanted == name)) {
        run();
    }
}
