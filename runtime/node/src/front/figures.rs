//! One text of figures out of the node's own and those of tenants' processes.
//!
//! Families are named once, with the samples of all behind them. A sample of a process gets the
//! label `process`, so that it is told from the node's own, whatever the process says. Of a
//! process only what looks like a sample is taken.

use std::collections::HashMap;

use sluicebox_core::ids::Name;

/// Longest line that is taken from a process.
const LINE_BYTES_MAX: usize = 4096;

/// What every name begins with.
const PREFIX: &str = "sluicebox_";

/// What a sample's name may have behind its family's.
const SUFFIXES: [&str; 6] = ["", "_total", "_sum", "_count", "_bucket", "_created"];

#[derive(Debug, Default)]
struct Family<'a> {
    /// Lines about it, one of each sort, all from whoever spoke of it first.
    about: Vec<(&'a str, &'a str)>,
    samples: Vec<String>,
}

#[derive(Debug, Default)]
struct Families<'a> {
    order: Vec<Family<'a>>,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Families<'a> {
    /// The family of this name, and whether it is new.
    fn of(&mut self, name: &'a str) -> (usize, bool) {
        let count = self.order.len();
        let at = *self.by_name.entry(name).or_insert(count);
        if at == count {
            self.order.push(Family::default());
        }
        (at, at == count)
    }

    /// Takes a text in, with what each sample is made into.
    fn take(&mut self, text: &'a str, sample: impl Fn(&str, &str) -> Option<String>) {
        // The family that is spoken of, and whether this text is the first to do so.
        let mut family: Option<(&str, usize, bool)> = None;
        for line in text.lines().filter(|line| line.len() <= LINE_BYTES_MAX) {
            let Some(comment) = line.strip_prefix("# ") else {
                if let Some((name, at, _)) = family
                    && let Some(made) = sample(line, name)
                {
                    self.order[at].samples.push(made);
                }
                continue;
            };
            let mut words = comment.splitn(3, ' ');
            let (Some(sort @ ("HELP" | "TYPE" | "UNIT")), Some(name)) =
                (words.next(), words.next())
            else {
                continue;
            };
            if !name.starts_with(PREFIX) || !name.bytes().all(is_of_name) || !is_plain(line) {
                family = None;
                continue;
            }
            let (at, is_first) = match family {
                Some((known, at, is_first)) if known == name => (at, is_first),
                _ => self.of(name),
            };
            family = Some((name, at, is_first));
            let about = &mut self.order[at].about;
            if is_first && about.iter().all(|(known, _)| *known != sort) {
                about.push((sort, line));
            }
        }
    }
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_plain(line: &str) -> bool {
    line.bytes().all(|byte| !byte.is_ascii_control())
}

/// Joins the texts; each is OpenMetrics.
pub(crate) fn join(own: &str, processes: &[(Name, String)]) -> String {
    let mut families = Families::default();
    families.take(own, |line, _| Some(line.to_owned()));
    for (tenant, text) in processes {
        families.take(text, |line, family| labelled(line, family, tenant));
    }
    let mut joined = String::with_capacity(own.len() * (processes.len() + 1));
    for family in families.order {
        let about = family.about.into_iter().map(|(_, line)| line.to_owned());
        for line in about.chain(family.samples) {
            joined.push_str(&line);
            joined.push('\n');
        }
    }
    joined.push_str("# EOF\n");
    joined
}

/// The sample with the label of its process; `None` if it is none of the family.
fn labelled(line: &str, family: &str, tenant: &Name) -> Option<String> {
    let end = line.bytes().position(|byte| !is_of_name(byte))?;
    let (name, rest) = line.split_at(end);
    let suffix = name.strip_prefix(family)?;
    if !SUFFIXES.contains(&suffix) || !is_plain(line) {
        return None;
    }
    let (labels, value) = match rest.strip_prefix('{') {
        Some(labels) => labels.split_at(end_of_labels(labels)?),
        None => ("", rest),
    };
    let value = value.strip_prefix('}').unwrap_or(value).strip_prefix(' ')?;
    // Nothing behind it: no time and no exemplar.
    value.parse::<f64>().ok()?;
    let separator = if labels.is_empty() { "" } else { "," };
    Some(format!("{name}{{process=\"{tenant}\"{separator}{labels}}} {value}"))
}

/// Where a list of labels ends; `None` if it is none, or has a label `process`.
fn end_of_labels(text: &str) -> Option<usize> {
    let mut at = 0;
    while !text[at..].starts_with('}') {
        let rest = &text[at..];
        let name = rest.bytes().take_while(|byte| is_of_name(*byte)).count();
        let value = rest[name..].strip_prefix("=\"")?;
        if name == 0 || &rest[..name] == "process" {
            return None;
        }
        let mut escaped = false;
        let end = value.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        at += name + 2 + end + 1;
        match text.as_bytes().get(at)? {
            b',' => at += 1,
            b'}' => {}
            _ => return None,
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "# HELP sluicebox_connections Open.\n# TYPE sluicebox_connections gauge\n\
                       sluicebox_connections 3\n# EOF\n";

    #[test]
    fn families_are_named_once_and_samples_say_whose_they_are() {
        let theirs = "# HELP sluicebox_connections Open.\n# TYPE sluicebox_connections gauge\n\
                      sluicebox_connections 1\n# HELP sluicebox_calls Calls.\n\
                      # TYPE sluicebox_calls counter\nsluicebox_calls_total{stage=\"a\"} 7\n# EOF\n";
        let acme = Name::new("acme").unwrap();
        let joined = join(OWN, &[(acme, theirs.to_owned())]);
        let expected = "# HELP sluicebox_connections Open.\n# TYPE sluicebox_connections gauge\n\
                        sluicebox_connections 3\nsluicebox_connections{process=\"acme\"} 1\n\
                        # HELP sluicebox_calls Calls.\n# TYPE sluicebox_calls counter\n\
                        sluicebox_calls_total{process=\"acme\",stage=\"a\"} 7\n# EOF\n";
        assert_eq!(joined, expected);
    }

    #[test]
    fn what_a_process_makes_up_is_left_out_or_bears_its_name() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let theirs = format!(
            "go_threads 7\n# TYPE evil{{ gauge\nevil{{ 1\n# TYPE sluicebox_a gauge\n\
             # TYPE sluicebox_a counter\n# HELP sluicebox_connections Mine.\n\
             sluicebox_connections 9\n# TYPE sluicebox_a gauge\n\
             sluicebox_a{{process=\"other\"}} 1\nsluicebox_a{long} 1\nsluicebox_b 2\n\
             sluicebox_ab 2\nsluicebox_a\u{1b}[2J 3\nsluicebox_a{{b=\"1}} 4\nsluicebox_a 1 2\n\
             sluicebox_a NaNa\nsluicebox_a{{b=\"\\\"}}\",}} 5\n# EOF\nsluicebox_a 4\n"
        );
        let acme = Name::new("acme").unwrap();
        let joined = join(OWN, &[(acme, theirs)]);
        let expected = "# HELP sluicebox_connections Open.\n# TYPE sluicebox_connections gauge\n\
                        sluicebox_connections 3\nsluicebox_connections{process=\"acme\"} 9\n\
                        # TYPE sluicebox_a gauge\n\
                        sluicebox_a{process=\"acme\",b=\"\\\"}\",} 5\n\
                        sluicebox_a{process=\"acme\"} 4\n# EOF\n";
        assert_eq!(joined, expected);
    }

    #[test]
    fn many_lines_about_one_family_are_one() {
        let theirs: String = (0..100_000).map(|n| format!("# HELP sluicebox_x {n}\n")).collect();
        let joined = join(OWN, &[(Name::new("acme").unwrap(), theirs)]);
        assert_eq!(joined.lines().filter(|line| line.contains("sluicebox_x")).count(), 1);
    }
}
