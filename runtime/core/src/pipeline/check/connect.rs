//! What sources and sinks have to do with the rest of the pipeline.

use super::super::{Delivery, SourceKind};
use super::{Check, listed};
use crate::manifest::{Problem, member, nearest, show};

impl Check<'_> {
    pub(super) fn connectors(&mut self) {
        let outputs = || self.declaration.outputs.keys().map(String::as_str);
        let mut found = Vec::new();
        for (name, sink) in &self.declaration.sinks {
            let field = member(&member("sinks", name), "from");
            if outputs().any(|output| output == sink.from) || self.problems.touches(&field) {
                continue;
            }
            let message = format!("there is no output {}", show(&sink.from));
            let fix = match nearest(&sink.from, outputs()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("the outputs are {}", listed(outputs())),
            };
            found.push(Problem::new(field, "pipeline.unknown-output", message, fix));
        }
        let forgets = self.declaration.delivery == Delivery::BestEffort;
        for (name, source) in self.declaration.sources.iter().filter(|_| forgets) {
            let needs_none = match &source.kind {
                SourceKind::Cron(_) => true,
                SourceKind::Nats(nats) => nats.stream.is_none(),
                SourceKind::File(_) | SourceKind::Folder(_) => false,
            };
            if needs_none {
                continue;
            }
            let word = source.kind.word();
            let field = member(&member("sources", name), word);
            let message = "needs a log: how far it was read is kept there".to_owned();
            let fix = "write delivery = \"exactly-once\"";
            found.push(Problem::new(field, "pipeline.source-delivery", message, fix));
        }
        found.into_iter().for_each(|problem| self.problems.add(problem));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::json;
    use super::super::super::{Facts, build};

    fn problems(delivery: &str, more: &str) -> Vec<(String, &'static str)> {
        let text = format!(
            r#"{{ "version": 1, "name": "p", "delivery": "{delivery}", "ingest": {{ "to": ["a"] }},
            "stages": {{ "a": {{ "component": "c" }} }},
            "outputs": {{ "out": {{ "from": "a" }} }}, {more} }}"#
        );
        let Err(problems) = build(&json(&text), &Facts::default()) else { return Vec::new() };
        problems.list().iter().map(|problem| (problem.field.clone(), problem.code)).collect()
    }

    #[test]
    fn a_sink_hands_on_an_output_that_is_there() {
        let sink = |from: &str, more: &str| {
            format!(
                r#""sinks": {{ "s": {{ "from": "{from}", "webhook": {{ "url": "http://a/" {more} }}
                }} }}"#
            )
        };
        assert_eq!(problems("best-effort", &sink("out", "")), []);
        let unknown = ("sinks.s.from".to_owned(), "pipeline.unknown-output");
        assert_eq!(problems("exactly-once", &sink("oout", "")), [unknown]);
        let alone = ("sinks.s.webhook.batch-events".to_owned(), "manifest.scope");
        assert_eq!(problems("exactly-once", &sink("out", r#", "batch-events": 5"#)), [alone]);
    }

    #[test]
    fn a_source_is_of_one_kind_and_files_need_a_log() {
        let file = r#""file": { "path": "/a" }"#;
        let cron = r#""cron": { "at": "* * * * *" }"#;
        let source = |kinds: &str| format!(r#""sources": {{ "s": {{ {kinds} }} }}"#);
        assert_eq!(problems("exactly-once", &source(file)), []);
        assert_eq!(problems("best-effort", &source(cron)), []);
        let log = ("sources.s.file".to_owned(), "pipeline.source-delivery");
        assert_eq!(problems("best-effort", &source(file)), [log]);
        let nats = |more: &str| format!(r#""nats": {{ "url": "nats://a", {more} }}"#);
        let subject = source(&nats(r#""subject": "a.>", "queue": "q""#));
        assert_eq!(problems("best-effort", &subject), []);
        let stream = source(&nats(r#""stream": "S", "consumer": "c", "begin": "new""#));
        assert_eq!(problems("exactly-once", &stream), []);
        let log = ("sources.s.nats".to_owned(), "pipeline.source-delivery");
        assert_eq!(problems("best-effort", &stream), [log]);
        let neither = ("sources.s.nats.subject".to_owned(), "manifest.missing");
        assert_eq!(problems("exactly-once", &source(&nats(r#""secret": "s""#))), [neither]);
        for (more, field) in [
            (r#""stream": "S", "queue": "q""#, "queue"),
            (r#""subject": "a", "consumer": "c""#, "consumer"),
            (r#""subject": "a", "begin": "first""#, "begin"),
        ] {
            let alone = (format!("sources.s.nats.{field}"), "manifest.scope");
            assert_eq!(problems("exactly-once", &source(&nats(more))), [alone]);
        }
        let both = format!("{file}, {cron}");
        let many = ("sources.s.cron".to_owned(), "manifest.kind");
        assert_eq!(problems("exactly-once", &source(&both)), [many]);
        let none = ("sources.s".to_owned(), "manifest.kind");
        assert_eq!(problems("exactly-once", &source("")), [none]);
    }
}
