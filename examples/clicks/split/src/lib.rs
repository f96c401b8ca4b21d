//! First stage of the clicks: tells what was shown from what was clicked.
//!
//! Events leave by port 0, `shown`, or port 1, `clicked`, as they came, with what a click has in
//! common with what it is about as their key: the user and the ad.

use serde::Deserialize;
use sluicebox_guest::{Json, Output, stage};

/// What comes in; other members are left alone.
#[derive(Deserialize)]
struct Seen {
    kind: Kind,
    user: String,
    ad: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Shown = 0,
    Clicked = 1,
}

#[stage]
fn split(seen: Json<'_, Seen>, out: &mut Output) {
    let key = format!("{} {}", seen.user, seen.ad);
    let port = seen.kind as u16;
    out.draft(&seen).port(port).key(&key).emit(seen.event().payload());
}

#[cfg(test)]
mod tests {
    use sluicebox_guest::testing::Harness;

    use super::*;

    #[test]
    fn what_was_shown_and_what_was_clicked_leave_by_ports_of_their_own() {
        let mut harness = Harness::new(split);
        let shown = r#"{"kind":"shown","user":"u","ad":"a","at":1}"#;
        let sent = harness.send("u", shown).outputs;
        assert_eq!((sent[0].port, sent[0].key.as_str(), sent[0].text()), (0, "u a", shown));
        let sent = harness.send("u", r#"{"kind":"clicked","user":"u","ad":"b"}"#).outputs;
        assert_eq!((sent[0].port, sent[0].key.as_str()), (1, "u b"));
    }

    #[test]
    fn something_else_fails() {
        let mut harness = Harness::new(split);
        let handled = harness.send("u", r#"{"kind":"closed","user":"u","ad":"a"}"#);
        assert_eq!(handled.failures.len(), 1);
    }
}
