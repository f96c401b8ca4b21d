//! What checkpoints cost: `cargo bench -p sluicebox-store --bench store [-- SECTION...]`.
//!
//! Sections: `dirty`, `checkpoint`, `large`, `reads`, `beside`, `reopen`; all without an argument.
//!
//! - Keys are those of state: 13 bytes of user key and a slot of 5, 39 bytes in all; values have
//!   100 bytes that cannot be packed.
//! - Processor time is of the thread that works, or of the process where the tree's own thread
//!   counts. Bytes written are what the system says the process had written to the disk.
//! - Files are made where temporary files go (`TMPDIR`).

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod beside;
mod checkpoint;
mod dirty;
mod figures;
mod load;
mod reads;
mod reopen;

/// As the program itself has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECTIONS: [(&str, fn()); 6] = [
    ("dirty", dirty::run),
    ("checkpoint", checkpoint::run),
    ("large", checkpoint::large),
    ("reads", reads::run),
    ("beside", beside::run),
    ("reopen", reopen::run),
];

#[expect(clippy::disallowed_methods, reason = "a wrong argument ends the program")]
fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let [mode, folder] = &wanted[..]
        && mode == reopen::CHILD
    {
        return reopen::child(folder.as_ref());
    }
    let unknown = wanted.iter().find(|name| SECTIONS.iter().all(|(known, _)| known != *name));
    if let Some(name) = unknown {
        let known = SECTIONS.map(|(name, _)| name).join(", ");
        println!("there is no section `{name}`; there are {known}");
        std::process::exit(2);
    }
    let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    SECTIONS.iter().filter(|(name, _)| asked(name)).for_each(|(_, run)| run());
}
