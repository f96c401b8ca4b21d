//! Manifests of the pipelines that benches run.

use std::fmt::Write as _;

/// The guest that copies the payload of each event.
pub const COPY: &str = "bench-map";
/// The guest that emits each event again as it is, key included; its file is `hostile/echo`.
pub const ECHO: &str = "echo";
/// The guest that counts the events of each key in its state and emits the count as 8 bytes.
pub const COUNT: &str = "bench-count";

/// Stages one after another in one segment, and one output behind the last.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    /// Name of the pipeline.
    pub name: &'a str,
    /// With the log; else best-effort.
    pub exactly_once: bool,
    /// Name of the component of each stage.
    pub stages: &'a [&'a str],
    /// Name of the output.
    pub output: &'a str,
    /// JSON pointer to the key of an event.
    pub key: Option<&'a str>,
    /// Each edge takes the key the stage wrote, so that each stage is a segment of its own.
    pub rekey: bool,
    /// What the output keeps for readers.
    pub retain: &'a str,
}

impl Default for Chain<'_> {
    fn default() -> Self {
        Self {
            name: "chain",
            exactly_once: false,
            stages: &[COPY, COPY],
            output: "copies",
            key: None,
            rekey: false,
            retain: "16MiB",
        }
    }
}

impl Chain<'_> {
    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> String {
        let delivery = if self.exactly_once { "exactly-once" } else { "best-effort" };
        let mut text = format!(
            "version = 1\nname = \"{}\"\ndelivery = \"{delivery}\"\n\n[ingest]\nto = [\"s0\"]\n",
            self.name
        );
        let mut add = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("text can always be appended to");
        };
        if let Some(pointer) = self.key {
            add(format_args!("key = \"{pointer}\"\n"));
        }
        for (at, component) in self.stages.iter().enumerate() {
            add(format_args!("\n[stages.s{at}]\ncomponent = \"{component}\"\n"));
        }
        let last = self.stages.len().saturating_sub(1);
        for at in 0..last {
            add(format_args!("\n[[edges]]\nfrom = \"s{at}\"\nto = \"s{}\"\n", at + 1));
            if self.rekey {
                add(format_args!("key = \"emitted\"\n"));
            }
        }
        let (output, retain) = (self.output, self.retain);
        add(format_args!(
            "\n[outputs.{output}]\nfrom = \"s{last}\"\nretain-bytes = \"{retain}\"\n"
        ));
        text
    }
}
