//! First stage of the word count: cuts lines of text into words.
//!
//! A word is a run of letters and digits, emitted in lower case. Its key is the word itself, so the
//! edge behind this stage, with `key = "emitted"`, brings equal words together.

use sluicebox_guest::{Events, Failure, Output, stage};

/// A key has at most 512 bytes, and so has a word.
const WORD_BYTES_MAX: usize = 512;

#[stage]
fn split(events: Events<'_>, out: &mut Output) {
    // One buffer for the words of all lines.
    let mut word = String::new();
    for event in events {
        let line = match event.text() {
            Ok(line) => line,
            Err(failure) => {
                out.fail(&event, failure);
                continue;
            }
        };
        for found in line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            lower_case(found, &mut word);
            if word.len() > WORD_BYTES_MAX {
                out.fail(&event, Failure::reject("a word is longer than 512 bytes"));
                break;
            }
            out.draft(&event).key(&word).emit(&word);
        }
    }
}

/// Writes `word` in lower case over `lower`.
fn lower_case(word: &str, lower: &mut String) {
    lower.clear();
    if word.is_ascii() {
        lower.push_str(word);
        lower.make_ascii_lowercase();
    } else {
        lower.extend(word.chars().flat_map(char::to_lowercase));
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_guest::testing::Harness;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        let handled = Harness::new(split).send("", line);
        assert_eq!(handled.failures, []);
        handled.outputs.iter().map(|output| output.text().to_owned()).collect()
    }

    #[test]
    fn a_line_becomes_its_words_in_lower_case() {
        assert_eq!(words("The quick, THE 2nd!"), ["the", "quick", "the", "2nd"]);
    }

    #[test]
    fn letters_beyond_ascii_are_letters() {
        assert_eq!(words("Äpfel und Öl"), ["äpfel", "und", "öl"]);
    }

    #[test]
    fn a_line_without_words_emits_nothing() {
        assert_eq!(words(" -- ... "), [""; 0]);
        assert_eq!(words(""), [""; 0]);
    }

    #[test]
    fn the_key_is_the_word() {
        let handled = Harness::new(split).send("line", "Word");
        assert_eq!(handled.outputs[0].key, "word");
        assert_eq!(handled.outputs[0].text(), "word");
    }

    #[test]
    fn what_is_not_text_is_refused_and_the_next_line_is_not() {
        let mut harness = Harness::new(split);
        let handled = harness.send("", [0xFF, b'a']);
        assert_eq!(handled.outputs, []);
        assert_eq!(handled.failures.len(), 1);
        assert_eq!(harness.send("", "a").outputs.len(), 1);
    }

    #[test]
    fn a_word_too_long_for_a_key_is_refused() {
        let handled = Harness::new(split).send("", format!("a {}", "b".repeat(513)));
        assert_eq!(handled.outputs, []);
        assert_eq!(handled.failures[0].failure.message(), "a word is longer than 512 bytes");
        assert_eq!(words(&"b".repeat(512)), ["b".repeat(512)]);
    }
}
