//! Second stage of the word count: how often each word has come so far.
//!
//! The count is kept in the state of the key, which is the word. All events of a call are counted
//! with one call of the host.

use serde::Serialize;
use sluicebox_guest::{Events, Output, StateBatch, stage};

#[derive(Serialize)]
struct Count<'a> {
    word: &'a str,
    count: i64,
}

#[stage]
fn count(events: Events<'_>, out: &mut Output) {
    let mut batch = StateBatch::new();
    for event in events {
        batch.add(&event, "count", 1);
    }
    for (event, reply) in events.into_iter().zip(&batch.run()) {
        match reply.number() {
            Ok(count) => out.json(&event, &Count { word: event.key(), count }),
            Err(refused) => out.fail(&event, refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluicebox_guest::testing::{Harness, Input};

    use super::*;

    #[test]
    fn each_word_has_its_own_count() {
        let mut harness = Harness::new(count);
        let handled = harness.handle(["a", "b", "a"].map(|word| Input::data(word, word)));
        let counts: Vec<Value> = handled.outputs.iter().map(|output| output.json()).collect();
        assert_eq!(
            counts,
            [
                json!({"word": "a", "count": 1}),
                json!({"word": "b", "count": 1}),
                json!({"word": "a", "count": 2}),
            ]
        );
        assert_eq!(harness.counter("a", "count"), Some(2));
    }

    #[test]
    fn a_count_goes_on_in_the_next_call() {
        let mut harness = Harness::new(count);
        harness.send("a", "a");
        assert_eq!(harness.send("a", "a").outputs[0].text(), r#"{"word":"a","count":2}"#);
    }

    #[test]
    fn a_slot_that_is_no_counter_fails_its_own_word_only() {
        let mut harness = Harness::new(count).with_state("a", "count", "what?");
        let handled = harness.handle(["a", "b"].map(|word| Input::data(word, word)));
        assert_eq!(handled.failures.len(), 1);
        assert_eq!(handled.failures[0].event, 0);
        assert_eq!(handled.outputs.len(), 1);
        assert_eq!(handled.outputs[0].key, "b");
    }
}
