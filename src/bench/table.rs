//! Results as text for a terminal.

use super::compare::{Compared, Verdict};
use super::report::{Measured, Report, Row};
use std::fmt::Write;

/// A time in the unit that suits it, in three digits: `1.23 ms`.
fn time(ms: f64) -> String {
    let (value, unit) = match ms {
        v if v < 1e-3 => (v * 1e6, "ns"),
        v if v < 1.0 => (v * 1e3, "us"),
        v if v < 1e3 => (v, "ms"),
        v => (v / 1e3, "s"),
    };
    format!("{} {unit}", digits(value))
}

/// Three digits that say something.
fn digits(v: f64) -> String {
    let places = if v >= 100.0 { 0 } else { usize::from(v < 10.0) + 1 };
    format!("{v:.places$}")
}

/// The rate that a row is read by: GFLOP/s where arithmetic is what it does, GB/s else, runs a second where it has neither.
fn rate(row: &Row) -> String {
    let bytes_only = row.work() == row.bytes;
    match (row.gflops.filter(|_| !bytes_only), row.gb_s, row.median_ms) {
        (Some(g), _, _) => format!("{} GFLOP/s", digits(g)),
        (None, Some(g), _) => format!("{} GB/s", digits(g)),
        (None, None, Some(ms)) if row.name.starts_with("train/") => format!("{} steps/s", digits(1e3 / ms)),
        _ => String::new(),
    }
}

fn notes(row: &Row) -> String {
    let mut notes = Vec::new();
    if row.unstable {
        notes.push("UNSTABLE");
    }
    if row.host_bound() {
        notes.push("the device waits for the host");
    }
    if row.share.is_some_and(|s| s > 1.05) {
        notes.push("in the caches");
    }
    notes.join(", ")
}

/// The devices of a report: one below the other, or, where they ran the same, side by side.
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    let commit = report.commit.as_deref().map(|c| format!(", commit {c}")).unwrap_or_default();
    let _ = writeln!(out, "wgrad {}{commit}, kernels {}\n{}, {}", report.version, report.kernel_hash, report.os, report.cpu);
    for device in &report.devices {
        one(device, &mut out);
    }
    if let [first, _, ..] = &report.devices[..] {
        side_by_side(first, &report.devices, &mut out);
    }
    out
}

fn one(device: &Measured, out: &mut String) {
    let _ = writeln!(out, "\n{}", device.description);
    if device.rows.iter().any(|r| r.name.starts_with("peak/")) {
        let _ = writeln!(out, "peaks of memory over {}; share: of what the measured peaks allow", device.working_set);
    }
    let width = device.rows.iter().map(|r| r.name.len()).max().unwrap_or(0).max(5);
    let _ = writeln!(out, "{:width$}  {:>9}  {:>6}  {:>14}  {:>5}  {:>8}", "probe", "median", "spread", "rate", "share", "launches");
    for row in &device.rows {
        let line = match (&row.failed, row.median_ms) {
            (Some(why), _) => format!("{:width$}  {why}", row.name),
            (None, Some(ms)) => {
                let percent = |v: Option<f64>| v.map(|v| format!("{:.0} %", v * 100.0)).unwrap_or_default();
                let launches = if row.launches >= 1.0 { format!("{:.0}", row.launches) } else { String::new() };
                let (spread, share, notes) = (percent(row.spread), percent(row.share), notes(row));
                format!("{:width$}  {:>9}  {spread:>6}  {:>14}  {share:>5}  {launches:>8}  {notes}", row.name, time(ms), rate(row))
            }
            (None, None) => format!("{:width$}  no number", row.name),
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let clock = |name: &str| device.rows.iter().filter(|r| r.clock == name).count();
    let _ = writeln!(out, "timed by the device's timestamps: {} rows, by a watch: {}", clock("timestamps"), clock("wall"));
}

fn side_by_side(first: &Measured, devices: &[Measured], out: &mut String) {
    let head = |d: &Measured| d.backend.clone().unwrap_or_else(|| d.device.clone());
    let width = first.rows.iter().map(|r| r.name.len()).max().unwrap_or(0).max(5);
    let heads: String = devices.iter().map(|d| format!("  {:>14}", head(d))).collect();
    let _ = writeln!(out, "\n{:width$}{heads}", "probe");
    for row in &first.rows {
        let cell = |d: &Measured| {
            let row = d.rows.iter().find(|r| r.name == row.name);
            let text = row.map(rate).filter(|r| !r.is_empty()).or_else(|| row.and_then(|r| r.median_ms).map(time));
            format!("  {:>14}", text.unwrap_or_else(|| "-".into()))
        };
        let _ = writeln!(out, "{:width$}{}", row.name, devices.iter().map(cell).collect::<String>());
    }
}

/// What changed from one file to another.
pub fn compared(rows: &[Compared], alone: &[String]) -> String {
    let mut out = String::new();
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0).max(5);
    let _ = writeln!(out, "{:width$}  {:>10}  {:>6}  {:>15}", "probe", "device", "time", "99 % interval");
    for row in rows {
        let verdict = match row.verdict {
            Verdict::Faster => "faster",
            Verdict::Slower => "SLOWER",
            Verdict::Same => "no difference",
        };
        let unstable = if row.unstable { " (unstable)" } else { "" };
        let interval = format!("{:.3} to {:.3}", row.low, row.high);
        let _ = writeln!(out, "{:width$}  {:>10}  {:>6.3}  {interval:>15}  {verdict}{unstable}", row.name, row.device, row.ratio);
    }
    let count = |v: Verdict| rows.iter().filter(|r| r.verdict == v).count();
    let (same, faster, slower) = (count(Verdict::Same), count(Verdict::Faster), count(Verdict::Slower));
    let _ = writeln!(out, "{} rows: no difference in {same}, {faster} faster, {slower} slower; time: of the second file over the first", rows.len());
    if !alone.is_empty() {
        let _ = writeln!(out, "without a number on one side: {}", alone.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.5, 12.34, 123.4, 9.99].map(digits), ["0.50", "12.3", "123", "9.99"]);
        assert_eq!([0.0005, 0.05, 5.0, 5000.0].map(time), ["500 ns", "50.0 us", "5.00 ms", "5.00 s"]);
    }

    #[test]
    fn a_failed_row_gives_its_reason_and_no_number() {
        let rows = vec![Row { name: "matmul/64".into(), failed: Some("signal: 6".into()), ..Row::default() }];
        let text = report(&Report { devices: vec![Measured { rows, ..Measured::default() }], ..Report::default() });
        assert!(text.contains("matmul/64  signal: 6\n"), "{text}");
    }
}
