//! Why something is not done, as it is said to the node.

use sluicebox_core::error::Classify as _;

use crate::host::Refused;
use crate::wire::Refusal;

/// Bytes of a text for people.
const TEXT_BYTES_MAX: usize = 1024;

/// What a host has refused.
#[expect(clippy::needless_pass_by_value, reason = "what is refused is said, and then over")]
pub(super) fn refusal(why: Refused) -> Refusal {
    said(why.code(), why.to_string())
}

/// Too much waits already.
pub(super) fn would_block(text: impl Into<String>) -> Refusal {
    said("gpu.would-block", text.into())
}

fn said(code: &str, mut text: String) -> Refusal {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    Refusal { code: code.to_owned(), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Rejected;

    #[test]
    fn a_text_is_cut_between_characters() {
        let refused = Refused::Kernel(Rejected::Entry("ä".repeat(TEXT_BYTES_MAX)));
        let Refusal { code, text } = refusal(refused);
        assert_eq!(code, "kernel.entry");
        assert!((TEXT_BYTES_MAX - 3..=TEXT_BYTES_MAX).contains(&text.len()), "{}", text.len());
        assert!(text.ends_with('ä'));
    }
}
