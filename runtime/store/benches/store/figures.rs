//! What the system says of this process, and how figures are printed.

use std::fs;
use std::thread;
use std::time::Duration;

/// Begins a section.
pub(crate) fn section(title: &str) {
    println!("\n{title}");
}

/// One figure.
pub(crate) fn figure(what: &str, value: f64, unit: &str) {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    println!("  {what:<66} {value:>10.digits$} {unit}");
}

/// Nanoseconds this thread has run.
pub(crate) fn thread_nanos() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let first = text.split(' ').next().expect("there is a first number");
    first.parse().expect("it is a number")
}

/// Seconds all threads of this process have run, those that ended included.
pub(crate) fn process_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, rest) = text.rsplit_once(") ").expect("the name stands in parentheses");
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// Bytes this process had written to the disk.
pub(crate) fn written_bytes() -> u64 {
    of_proc("/proc/self/io", "write_bytes: ")
}

/// Bytes of memory this process has.
pub(crate) fn resident_bytes() -> u64 {
    of_proc("/proc/self/status", "VmRSS:") * 1024
}

fn of_proc(file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(file).expect("Linux has it");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("it has the field");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("it is a number")
}

/// Waits until nothing is written any more.
pub(crate) fn settle() {
    let mut last = (written_bytes(), process_seconds());
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = (written_bytes(), process_seconds());
        if now.0 == last.0 && now.1 - last.1 < 0.05 {
            return;
        }
        last = now;
    }
}

/// The value below which `share` of the samples are.
pub(crate) fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len() - 1;
    samples[((last as f64 * share).round() as usize).min(last)]
}
