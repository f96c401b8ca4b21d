//! How a node learns of the others: it asks each, again and again, how it is and what it has.
//!
//! One connection to each node is kept for this alone. A node is up when it has answered, and is
//! not any more when it refuses a connection, or has been silent for too long; so a node that was
//! stopped or cut off is found as well as one that is gone. Two nodes may see each other
//! differently: that each asks for itself is what it acts on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_core::ids::Name;

use super::ask::{self, ANSWER_BYTES_MAX, PEER, Questions};
use super::held::State;
use super::peer::{Peer, Unreached};

/// How often a node is asked, of the time after which it counts as unreachable.
const QUESTIONS: u32 = 4;

/// Pauses before one that cannot be reached is tried again, growing.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Bytes of a tag at most.
const TAG_BYTES_MAX: usize = 64;

/// Watches a node for as long as this one runs.
pub(crate) async fn watch(peer: Arc<Peer>, list: String) {
    let interval = peer.silence_time_max / QUESTIONS;
    let mut pause = PAUSE_MIN;
    let mut seen = String::new();
    loop {
        match begin(&peer).await {
            Ok(mut questions) => {
                let why = follow(&peer, &mut questions, (&list, interval), &mut seen).await;
                tracing::debug!(node = %peer.name(), why, "the connection to a node ended");
            }
            Err(Unreached { why, is_silent }) => peer.went(why, is_silent),
        }
        // One that is up still may take the next connection: then it was never away.
        pause = if peer.is_up() { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

async fn begin(peer: &Peer) -> Result<Questions, Unreached> {
    let stream = peer.try_connect().await?;
    ask::begin(stream)
        .await
        .map_err(|error| Unreached { why: format!("cannot be asked: {error}"), is_silent: false })
}

/// Asks until there is no answer; gives why.
async fn follow(
    peer: &Peer,
    questions: &mut Questions,
    (list, interval): (&str, Duration),
    seen: &mut String,
) -> String {
    let mut has_answered = false;
    loop {
        let began = Instant::now();
        let path = format!("{PEER}/state?seen={seen}");
        let asked = ask::ask(questions, (&path, None), ANSWER_BYTES_MAX);
        let Ok(answer) = tokio::time::timeout(peer.silence_time_max, asked).await else {
            let why = "is silent".to_owned();
            peer.went(why.clone(), true);
            return why;
        };
        let state = match answer.map(|answer| answer.as_deref().map(serde_json::from_slice)) {
            Ok(Some(Ok(state))) => state,
            Ok(Some(Err(error))) => return wrong(peer, format!("answers nonsense: {error}")),
            Ok(None) => return wrong(peer, "does not know this question".to_owned()),
            // A connection that ended may be made anew; one that never served has a reason.
            Err(why) if has_answered => return why,
            Err(why) => return wrong(peer, format!("cannot be asked: {why}")),
        };
        let State { nodes, ready, host, tag, held } = state;
        if tag.len() > TAG_BYTES_MAX || !tag.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return wrong(peer, "answers nonsense: its tag".to_owned());
        }
        if ready {
            peer.metrics.round_trip_micros.set(began.elapsed().as_micros() as i64);
            if held.is_some() {
                *seen = tag;
            }
            let host = host.and_then(|host| Name::new(&host).ok());
            peer.came((nodes == list, host), held);
        } else {
            peer.went("is starting".to_owned(), false);
        }
        has_answered = true;
        tokio::time::sleep(interval).await;
    }
}

fn wrong(peer: &Peer, why: String) -> String {
    peer.went(why.clone(), false);
    why
}
