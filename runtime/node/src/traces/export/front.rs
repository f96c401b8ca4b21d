//! From the process of a tenant, which has no network, to its front.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use prost::Message as _;

use super::super::otlp::{ScopeSpans, Span};
use crate::front::{SPANS_BYTES_MAX, say_spans};

/// How often it is tried while the front does not listen, and how long between.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Hands spans on; gives how many got lost.
pub(super) async fn hand_on(control: Option<&OwnedFd>, spans: Vec<Span>) -> u64 {
    let Some(control) = control else { return spans.len() as u64 };
    let (mut lost, mut parts) = (0, vec![spans]);
    while let Some(mut spans) = parts.pop() {
        let body = ScopeSpans { scope: None, spans: spans.clone() }.encode_to_vec();
        if body.len() > SPANS_BYTES_MAX && spans.len() > 1 {
            let others = spans.split_off(spans.len() / 2);
            parts.extend([others, spans]);
        } else if body.len() > SPANS_BYTES_MAX || !is_said(control, &body).await {
            lost += spans.len() as u64;
        }
    }
    lost
}

async fn is_said(control: &OwnedFd, body: &[u8]) -> bool {
    for _ in 0..TRIES {
        match say_spans(control, body) {
            Ok(()) => return true,
            // It has much to do, or is about to end.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => return false,
        }
    }
    false
}
