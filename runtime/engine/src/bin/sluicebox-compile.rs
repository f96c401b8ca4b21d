//! The compile process on its own, for this crate's tests; a node starts its own program instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluicebox_engine::compile::compile_main()
}
