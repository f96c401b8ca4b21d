//! `gpu`: the node's GPU, the tenant's share of it, and what its stages have used.

use hyper::Method;
use serde_json::Value;

use crate::args::GpuArgs;
use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::render::{self, grouped};
use crate::screen::Screen;

const STAGE_COLUMNS: [&str; 10] = [
    "pipeline",
    "stage",
    "weight",
    "device-micros",
    "copy-micros",
    "chunks",
    "up-bytes",
    "down-bytes",
    "held-bytes",
    "queued",
];

/// `gpu`
pub(crate) async fn gpu(screen: Screen, args: GpuArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let gpu = client.send(Call::new(Method::GET, client.path("gpu"))).await?.json()?;
    screen.result(&gpu, &gpu_text(screen, &gpu))
}

fn gpu_text(screen: Screen, gpu: &Value) -> String {
    let word = |of: &Value, name: &str| {
        of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number = |of: &str, name: &str| {
        let of = gpu.get(of).and_then(|of| of.get(name));
        of.and_then(Value::as_u64).unwrap_or_default()
    };
    let mut lines = vec![format!("{} {}", screen.strong("state "), word(gpu, "state"))];
    if let Some(why) = gpu.get("why").and_then(Value::as_str) {
        lines.push(format!("        {why}"));
    }
    if let Some(device) = gpu.get("device") {
        lines.push(format!(
            "{} {}, {}, {} bytes, {}",
            screen.strong("device"),
            word(device, "name"),
            word(device, "kind"),
            grouped(number("device", "memory-bytes")),
            word(device, "driver")
        ));
    }
    let absent = gpu.get("process").and_then(|process| process.get("not-held-in-by"));
    for (measure, why) in absent.and_then(Value::as_object).into_iter().flatten() {
        let why = why.as_str().unwrap_or_default();
        lines.push(format!("        its process is NOT held in by {measure}: {why}"));
    }
    lines.push(format!(
        "{} {}/1000 of its time, at most {}/1000; {} bytes, and {} that are lent",
        screen.strong("share "),
        number("share", "share"),
        number("share", "share-max"),
        grouped(number("share", "memory-bytes")),
        grouped(number("share", "memory-bytes-lent"))
    ));
    lines.push(format!(
        "{} {} µs in {} pieces and {} µs of copies; holds {} bytes and {} handles; {} bytes up, {} \
         down; {} queued",
        screen.strong("used  "),
        grouped(number("used", "device-micros")),
        grouped(number("used", "chunks")),
        grouped(number("used", "copy-micros")),
        grouped(number("used", "held-bytes")),
        grouped(number("used", "handles")),
        grouped(number("used", "up-bytes")),
        grouped(number("used", "down-bytes")),
        number("used", "queued")
    ));
    let stages = gpu.get("stages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut text = lines.join("\n");
    if !stages.is_empty() {
        text.push_str("\n\n");
        text.push_str(&render::table(stages, &STAGE_COLUMNS));
    }
    text
}
