//! Comparing what the command writes with the files in `tests/golden/cli`.
//!
//! A difference fails; `SLUICEBOX_GOLDEN=write` writes the files anew, to be read before they are
//! committed.

use std::path::PathBuf;

/// Compares text with the golden file of this name.
pub(crate) fn check(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli").join(name);
    if std::env::var_os("SLUICEBOX_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; see tests/support/golden.rs", file.display()));
    assert!(
        text == expected,
        "{} differs from what the command writes now:\n--- expected\n{expected}\n--- found\n{text}",
        file.display()
    );
}
