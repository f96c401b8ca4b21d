//! The compile process on its own, for the suites that run components without a node.
//!
//! A program of this package, so that it is built together with the tests and never older than the
//! engine they use.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluicebox_engine::compile::compile_main()
}
