//! Greets each key, and says how often it has come.

use serde_json::json;
use sluicebox_guest::{Event, Output, Result, stage};

#[stage]
fn greet(event: Event<'_>, out: &mut Output) -> Result {
    let count = event.state().add("count", 1)?;
    out.json(&event, &json!({ "greeting": "hello", "count": count }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluicebox_guest::testing::Harness;

    use super::*;

    #[test]
    fn each_key_has_a_count_of_its_own() {
        let mut harness = Harness::new(greet);
        harness.send("ada", "first");
        let handled = harness.send("ada", "second");
        assert_eq!(handled.outputs[0].text(), r#"{"count":2,"greeting":"hello"}"#);
    }
}
