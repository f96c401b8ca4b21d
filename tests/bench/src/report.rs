//! What a bench prints: a table of what was found, with its targets.

use std::time::Duration;

/// What a row is held against.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Good if at least this.
    AtLeast(f64),
    /// Good if at most this.
    AtMost(f64),
    /// For information.
    None,
}

/// A table of results. Printed row by row, as they come.
#[derive(Debug)]
pub struct Report {
    missed: usize,
}

impl Report {
    /// Prints the head of a table.
    #[must_use]
    pub fn new(title: &str) -> Self {
        println!("\n{title}");
        let line = ["what", "measured", "target", "ratio", ""];
        println!("{:<58} {:>14} {:>14} {:>7}  {}", line[0], line[1], line[2], line[3], line[4]);
        Self { missed: 0 }
    }

    /// Prints one row. `ratio` is measured by target.
    pub fn row(&mut self, what: &str, measured: f64, unit: &str, target: Target) {
        let shown = format!("{}{unit}", number(measured));
        let (bound, sign, met) = match target {
            Target::AtLeast(bound) => (bound, "≥", measured >= bound),
            Target::AtMost(bound) => (bound, "≤", measured <= bound),
            Target::None => return println!("{what:<58} {shown:>14}"),
        };
        self.missed += usize::from(!met);
        let verdict = if met { "met" } else { "MISSED" };
        let wanted = format!("{sign} {}{unit}", number(bound));
        println!("{what:<58} {shown:>14} {wanted:>14} {:>7.2}  {verdict}", measured / bound);
    }

    /// Prints one row in microseconds.
    pub fn micros(&mut self, what: &str, measured: Duration, target: Option<Duration>) {
        let target = target.map_or(Target::None, |most| Target::AtMost(most.as_secs_f64() * 1e6));
        self.row(what, measured.as_secs_f64() * 1e6, " us", target);
    }

    /// Prints a remark below a row.
    pub fn note(&mut self, text: &str) {
        println!("    {text}");
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.missed > 0 {
            println!("{} of the targets above missed", self.missed);
        }
    }
}

/// Large numbers in groups of three, small ones with enough digits.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{:.0}", value.abs());
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            if value < 0.0 { format!("-{text}") } else { text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_as_many_digits_as_help() {
        assert_eq!(number(0.6), "0.60");
        assert_eq!(number(42.25), "42.2");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-1000.0), "-1,000");
    }
}
