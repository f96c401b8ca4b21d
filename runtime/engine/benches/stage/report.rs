//! Tables of figures, each with its target beside it.

/// Begins a section.
pub(crate) fn section(title: &str) {
    println!("\n{title}");
}

/// One figure without a target.
pub(crate) fn figure(what: &str, value: f64, unit: &str) {
    println!("  {what:<66} {value:>10} {unit}", value = digits(value));
}

/// One figure that should be at most `target`.
pub(crate) fn at_most(what: &str, value: f64, unit: &str, target: f64) {
    line(what, value, unit, (target, "<=", value <= target));
}

/// One figure that should be at least `target`.
pub(crate) fn at_least(what: &str, value: f64, unit: &str, target: f64) {
    line(what, value, unit, (target, ">=", value >= target));
}

fn line(what: &str, value: f64, unit: &str, (target, sign, holds): (f64, &str, bool)) {
    let verdict = if holds { "ok" } else { "MISSED" };
    let (value, target) = (digits(value), digits(target));
    println!("  {what:<66} {value:>10} {unit}  (target {sign} {target}: {verdict})");
}

/// Three significant digits, as far as a table needs them.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
