//! `plan`: why partitions are where they are, which moves would spare traffic, and to carry them
//! out.

use hyper::Method;
use serde_json::Value;

use crate::args::PlanArgs;
use crate::client::{COMPILE_TIME_MAX, Call, Client};
use crate::deploy::{moved_text, ranges};
use crate::failure::{Cause, Failure};
use crate::render::{self, grouped};
use crate::screen::Screen;

const NODE_COLUMNS: [&str; 8] = [
    "name",
    "host",
    "cpu-milli",
    "cpu-milli-most",
    "memory-bytes",
    "memory-bytes-most",
    "partitions",
    "state",
];
const PARTITION_COLUMNS: [&str; 6] =
    ["pipeline", "partition", "node", "cpu-milli", "memory-bytes", "why"];
const MOVE_COLUMNS: [&str; 6] = ["step", "pipeline", "partition", "from", "to", "state-bytes"];

/// Partitions of a pipeline that go to a node together.
#[derive(Debug, PartialEq, Eq)]
struct Together {
    pipeline: String,
    to: String,
    partitions: Vec<u64>,
}

/// `plan`
pub(crate) async fn plan(screen: Screen, args: PlanArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let mut call = Call::new(Method::GET, client.path("plan"));
    if let Some(pipeline) = &args.pipeline {
        call = call.query("pipeline", pipeline.to_string());
    }
    let plan = client.send(call).await?.json()?;
    if args.apply {
        return carry_out(screen, &client, &plan).await;
    }
    screen.result(&plan, &plan_text(screen, &plan))?;
    if !rows(&plan, "moves").is_empty() {
        screen.hint("next: `sluicebox plan --apply` carries these moves out, one after the other");
    }
    Ok(())
}

/// Has partitions move as planned, until one move fails.
async fn carry_out(screen: Screen, client: &Client, plan: &Value) -> Result<(), Failure> {
    let (mut done, mut lines) = (Vec::new(), Vec::new());
    for Together { pipeline, to, partitions } in together(rows(plan, "moves")) {
        let wrong = |why: String| Failure::new(Cause::Internal, why);
        let name = crate::args::name(&pipeline).map_err(wrong)?;
        screen.hint(&format!("moving {} of {pipeline} to {to}", ranges(&partitions)));
        let path = client.pipeline(&name, "/move");
        let call = Call::new(Method::POST, path).query("to", to).within(COMPILE_TIME_MAX);
        let call = call.query("partitions", ranges(&partitions));
        let moved = client.send(call).await?.json()?;
        lines.push(moved_text(&name, &moved));
        done.push(moved);
    }
    if lines.is_empty() {
        lines.push("nothing is to be moved".to_owned());
    }
    screen.result(&Value::Array(done), &lines.join("\n"))
}

/// Moves that follow each other and go the same way, as one.
fn together(moves: &[Value]) -> Vec<Together> {
    let text = |one: &Value, name: &str| {
        one.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut all: Vec<Together> = Vec::new();
    for one in moves {
        let (pipeline, to) = (text(one, "pipeline"), text(one, "to"));
        let partition = one.get("partition").and_then(Value::as_u64).unwrap_or_default();
        match all.last_mut() {
            Some(last) if (&last.pipeline, &last.to) == (&pipeline, &to) => {
                last.partitions.push(partition);
                last.partitions.sort_unstable();
            }
            _ => all.push(Together { pipeline, to, partitions: vec![partition] }),
        }
    }
    all
}

fn rows<'a>(plan: &'a Value, name: &str) -> &'a [Value] {
    plan.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn plan_text(screen: Screen, plan: &Value) -> String {
    let mut text = String::new();
    let tables: [(&str, &[&str], &str); 3] = [
        ("nodes", &NODE_COLUMNS, "none"),
        ("partitions", &PARTITION_COLUMNS, "there are none that could be elsewhere"),
        ("moves", &MOVE_COLUMNS, "nothing is to be moved"),
    ];
    for (name, columns, none) in tables {
        let rows = rows(plan, name);
        text.push_str(&format!("{}\n", screen.strong(name)));
        match rows.is_empty() {
            true => text.push_str(&format!("{none}\n")),
            false => text.push_str(&render::table(rows, columns)),
        }
        text.push('\n');
    }
    let traffic = |when: &str| {
        let bytes = |way: &str| {
            let bytes = plan.get(when).and_then(|traffic| traffic.get(way));
            grouped(bytes.and_then(Value::as_u64).unwrap_or_default())
        };
        format!(
            "{} over the network, {} between nodes of a machine, {} within nodes",
            bytes("network"),
            bytes("in-host"),
            bytes("in-node")
        )
    };
    text.push_str(&format!("bytes/s now: {}", traffic("before")));
    if !rows(plan, "moves").is_empty() {
        text.push_str(&format!("\nbehind the moves: {}", traffic("after")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn moves_that_go_the_same_way_are_one() {
        let one = |pipeline: &str, partition: u64, to: &str| json!({ "pipeline": pipeline, "partition": partition, "to": to });
        let moves = [one("w", 3, "b"), one("w", 1, "b"), one("w", 2, "c"), one("v", 2, "c")];
        let found = together(&moves);
        let expected = [("w", "b", vec![1, 3]), ("w", "c", vec![2]), ("v", "c", vec![2])];
        assert_eq!(
            found,
            expected.map(|(pipeline, to, partitions)| Together {
                pipeline: pipeline.to_owned(),
                to: to.to_owned(),
                partitions
            })
        );
    }
}
