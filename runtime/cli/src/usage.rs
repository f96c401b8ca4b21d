//! `usage`: what a tenant has used, and what it costs.

use hyper::Method;
use serde_json::{Map, Value};

use crate::args::usage::UsageArgs;
use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::render::{align, grouped};
use crate::screen::Screen;

/// `usage`
pub(crate) async fn usage(screen: Screen, args: UsageArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let mut call = Call::new(Method::GET, client.path("bill"));
    let by = (!args.by.is_empty()).then(|| args.by.join(","));
    for (name, value) in [("from", args.from), ("to", args.to), ("by", by)] {
        if let Some(value) = value {
            call = call.query(name, value);
        }
    }
    if args.csv {
        let reply = client.send(call.query("format", "csv")).await?;
        return screen.bytes(&reply.body);
    }
    let bill = client.send(call).await?.json()?;
    for node in list(&bill, "unreachable") {
        let node = node.as_str().unwrap_or_default();
        screen.warn(&format!("the node {node} did not answer: what it ran is not in this bill"));
    }
    screen.result(&bill, &text(screen, &bill))
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn word<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A table of what is not nothing, the sum below it.
fn text(screen: Screen, bill: &Value) -> String {
    let rows = list(bill, "rows");
    if rows.is_empty() {
        return "nothing was used".to_owned();
    }
    let nothing = (Value::Null, Map::new());
    let total = bill.get("total").unwrap_or(&nothing.0);
    let used = |row: &Value, item: &str| {
        row.get("used").and_then(|used| used.get(item)).and_then(Value::as_u64).unwrap_or(0)
    };
    let items = total.get("used").and_then(Value::as_object).unwrap_or(&nothing.1);
    let items: Vec<&String> = items.keys().collect();
    let has = |name: &str| rows.iter().any(|row| row.get(name).is_some());
    let names = ["pipeline", "stage", "from"];
    let names: Vec<&str> = names.into_iter().filter(|name| has(name)).collect();
    let is_priced = bill.get("prices").and_then(Value::as_object).is_some_and(|p| !p.is_empty());
    let line = |row: &Value| {
        let mut cells: Vec<String> = names.iter().map(|name| word(row, name).to_owned()).collect();
        cells.extend(items.iter().map(|item| grouped(used(row, item))));
        if is_priced {
            cells.push(word(row, "cost").to_owned());
        }
        cells
    };
    let cost = format!("cost {}", word(bill, "currency"));
    let mut head: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    head.extend(items.iter().map(|item| (*item).clone()));
    head.extend(is_priced.then_some(cost));
    let mut last = line(total);
    if let Some(first) = last.first_mut().filter(|_| !names.is_empty()) {
        "all".clone_into(first);
    }
    let mut all = vec![head];
    all.extend(rows.iter().map(line));
    if !names.is_empty() {
        all.push(last);
    }
    let table = align(all);
    let (head, rest) = table.split_once('\n').unwrap_or((&table, ""));
    format!("{}\n{rest}", screen.strong(head))
}
