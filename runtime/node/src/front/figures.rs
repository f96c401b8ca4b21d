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

#[derive(Debug, Default)]
struct Family<'a> {
    about: Vec<&'a str>,
    samples: Vec<String>,
}

#[derive(Debug, Default)]
struct Families<'a> {
    order: Vec<Family<'a>>,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Families<'a> {
    /// The family of this name; made by who first speaks of it.
    fn of(&mut self, name: &'a str) -> &mut Family<'a> {
        let at = *self.by_name.entry(name).or_insert_with(|| {
            self.order.push(Family::default());
            self.order.len() - 1
        });
        &mut self.order[at]
    }

    /// Takes a text in, with what each sample is made into.
    fn take(&mut self, text: &'a str, sample: impl Fn(&str) -> Option<String>) {
        let mut family = None;
        let mut is_new = true;
        for line in text.lines().filter(|line| line.len() <= LINE_BYTES_MAX) {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (Some("HELP" | "TYPE" | "UNIT"), Some(name)) = (words.next(), words.next())
                else {
                    continue;
                };
                if !name.starts_with(PREFIX) || !name.bytes().all(is_of_name) {
                    family = None;
                    continue;
                }
                if family != Some(name) {
                    is_new = self.of(name).samples.is_empty();
                    family = Some(name);
                }
                let known = self.of(name);
                if is_new && !known.about.contains(&line) {
                    known.about.push(line);
                }
            } else if let Some(name) = family
                && line.starts_with(name)
                && let Some(made) = sample(line)
            {
                self.of(name).samples.push(made);
            }
        }
    }
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Joins the texts; each is OpenMetrics.
pub(crate) fn join(own: &str, processes: &[(Name, String)]) -> String {
    let mut families = Families::default();
    families.take(own, |line| Some(line.to_owned()));
    for (tenant, text) in processes {
        families.take(text, |line| labelled(line, tenant));
    }
    let mut joined = String::with_capacity(own.len() * (processes.len() + 1));
    for family in families.order {
        let about = family.about.into_iter().map(str::to_owned);
        for line in about.chain(family.samples) {
            joined.push_str(&line);
            joined.push('\n');
        }
    }
    joined.push_str("# EOF\n");
    joined
}

/// The sample with the label of its process; `None` if it is none.
fn labelled(line: &str, tenant: &Name) -> Option<String> {
    let end = line.bytes().position(|byte| !is_of_name(byte))?;
    let (name, rest) = line.split_at(end);
    let is_plain = line.bytes().all(|byte| !byte.is_ascii_control());
    match rest.as_bytes().first().filter(|_| is_plain)? {
        b'{' if rest.starts_with("{}") => {
            Some(format!("{name}{{process=\"{tenant}\"}}{}", &rest[2..]))
        }
        b'{' => Some(format!("{name}{{process=\"{tenant}\",{}", &rest[1..])),
        b' ' => Some(format!("{name}{{process=\"{tenant}\"}}{rest}")),
        _ => None,
    }
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
             sluicebox_a{{process=\"other\"}} 1\nsluicebox_a{long} 1\nsluicebox_b 2\n\
             sluicebox_a\u{1b}[2J 3\n# EOF\nsluicebox_a 4\n"
        );
        let acme = Name::new("acme").unwrap();
        let joined = join(OWN, &[(acme, theirs)]);
        let rest = joined.strip_prefix(OWN.strip_suffix("# EOF\n").unwrap()).unwrap();
        let expected = "# TYPE sluicebox_a gauge\n\
                        sluicebox_a{process=\"acme\",process=\"other\"} 1\n\
                        sluicebox_a{process=\"acme\"} 4\n# EOF\n";
        assert_eq!(rest, expected);
    }
}
