//! Two result files side by side: what became faster or slower, and by how much at least and at most.
//!
//! A row is measured in several processes. They vary more than the samples of one process do, so it is they that say how sure a difference is: the interval of
//! the ratio is Student's, at 99 %, over the logarithms of the processes' times, with the variance of both sides pooled. A process's time is the lower quartile
//! of its samples: what others do to the machine makes samples longer, never shorter. A side that was measured in one process is cut into thirds, which say little
//! of how far another process would be from it.

use super::job::quartile;
use super::report::{Measured, Report, Row};

/// Two processes agree to no more than this, whatever three of them say.
const LEAST_NOISE: f64 = 0.01;
/// The same where a side was measured in one process.
const ALONE: f64 = 0.03;

/// What is said of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The interval is below 1.
    Faster,
    /// The interval is above 1.
    Slower,
    /// The interval holds 1.
    Same,
}

/// A row that both files have.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Of the device.
    pub device: String,
    /// Of the probe.
    pub name: String,
    /// The second file's time over the first one's.
    pub ratio: f64,
    /// Its interval.
    pub low: f64,
    /// Its interval.
    pub high: f64,
    /// What follows.
    pub verdict: Verdict,
    /// Whether one side was not steady.
    pub unstable: bool,
}

/// The devices of both files that are compared, and those that only one of them has. Equal ones come in their order; where each file has one, these two are meant.
pub fn pairs<'r>(a: &'r Report, b: &'r Report) -> (Vec<[&'r Measured; 2]>, Vec<&'r Measured>) {
    if let ([left], [right]) = (&a.devices[..], &b.devices[..]) {
        return (vec![[left, right]], Vec::new());
    }
    let mut right: Vec<&Measured> = b.devices.iter().collect();
    let (mut found, mut alone) = (Vec::new(), Vec::new());
    for left in &a.devices {
        match right.iter().position(|m| m.device == left.device && m.backend == left.backend) {
            Some(n) => found.push([left, right.remove(n)]),
            None => alone.push(left),
        }
    }
    alone.extend(right);
    (found, alone)
}

/// The rows that both files have a number for; and the names that only one of them has one for.
pub fn compare(a: &Report, b: &Report) -> (Vec<Compared>, Vec<String>) {
    let (devices, others) = pairs(a, b);
    let mut rows = Vec::new();
    let mut alone: Vec<String> = others.iter().map(|m| m.description.clone()).collect();
    for [left, right] in devices {
        let number = |m: &Measured, name: &str| m.rows.iter().find(|r| r.name == name && r.median_ms.is_some()).cloned();
        for row in &left.rows {
            match (number(left, &row.name), number(right, &row.name)) {
                (Some(x), Some(y)) => rows.push(compared(&left.device, &x, &y)),
                (None, None) => {}
                _ => alone.push(format!("{} on {}", row.name, left.device)),
            }
        }
        alone.extend(
            right
                .rows
                .iter()
                .filter(|r| r.median_ms.is_some() && !left.rows.iter().any(|l| l.name == r.name))
                .map(|r| format!("{} on {}", r.name, left.device)),
        );
    }
    (rows, alone)
}

fn compared(device: &str, a: &Row, b: &Row) -> Compared {
    let (x, y) = (logs(a), logs(b));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let squares = |v: &[f64]| v.iter().map(|e| (e - mean(v)).powi(2)).sum::<f64>();
    let freedom = (x.len() + y.len()).saturating_sub(2);
    let least = if a.rounds.len().min(b.rounds.len()) > 1 { LEAST_NOISE } else { ALONE };
    let noise = if freedom == 0 { least } else { ((squares(&x) + squares(&y)) / freedom as f64).sqrt().max(least) };
    let error = student(freedom) * noise * (1.0 / x.len() as f64 + 1.0 / y.len() as f64).sqrt();
    let difference = mean(&y) - mean(&x);
    let [ratio, low, high] = [difference, difference - error, difference + error].map(f64::exp);
    let verdict = if low > 1.0 {
        Verdict::Slower
    } else if high < 1.0 {
        Verdict::Faster
    } else {
        Verdict::Same
    };
    Compared { device: device.into(), name: a.name.clone(), ratio, low, high, verdict, unstable: a.unstable || b.unstable }
}

/// The logarithm of the time for a unit of work, by process.
fn logs(row: &Row) -> Vec<f64> {
    let times: Vec<f64> = if row.rounds.len() > 1 {
        row.rounds.iter().map(|r| quartile(r, 1)).collect()
    } else {
        let samples = row.samples();
        samples.chunks(samples.len().div_ceil(3).max(1)).map(|part| quartile(part, 1)).collect()
    };
    times.iter().map(|ms| (ms / row.work()).ln()).collect()
}

/// Student's t for a two-sided 99 %.
fn student(freedom: usize) -> f64 {
    const T: [f64; 10] = [63.66, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169];
    match freedom {
        0 => T[0],
        1..=10 => T[freedom - 1],
        11..=20 => 3.106,
        21..=40 => 2.831,
        _ => 2.704,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three processes whose times vary by a percent, times `factor`.
    fn report(factor: f64) -> Report {
        let rounds = [0.99, 1.0, 1.01].map(|m| vec![m * factor; 5]).to_vec();
        let row = |name: &str, flops: f64| Row { name: name.into(), flops, rounds: rounds.clone(), ..Row::default() };
        let mut device = Measured { device: "cpu".into(), rows: vec![row("matmul/64", 1e6), row("cost/step", 0.0)], ..Measured::default() };
        device.finish();
        Report { devices: vec![device], ..Report::default() }
    }

    #[test]
    fn a_file_is_no_different_from_itself() {
        let (rows, alone) = compare(&report(1.0), &report(1.0));
        assert!(rows.len() == 2 && alone.is_empty());
        assert!(rows.iter().all(|r| r.verdict == Verdict::Same && r.low < 1.0 && r.high > 1.0), "{rows:?}");
    }

    #[test]
    fn ten_percent_are_seen_and_three_are_not() {
        for (factor, verdict) in [(1.1, Verdict::Slower), (1.0 / 1.1, Verdict::Faster), (1.03, Verdict::Same)] {
            let (rows, _) = compare(&report(1.0), &report(factor));
            assert!(rows.iter().all(|r| r.verdict == verdict && (r.ratio - factor).abs() < 1e-9), "{factor}: {rows:?}");
        }
    }

    #[test]
    fn a_single_process_is_no_proof_of_five_percent() {
        let alone = |factor: f64| {
            let mut r = report(factor);
            r.devices[0].rows.iter_mut().for_each(|row| row.rounds.truncate(1));
            r
        };
        let (rows, _) = compare(&alone(1.0), &alone(1.05));
        assert!(rows.iter().all(|r| r.verdict == Verdict::Same), "{rows:?}");
        let (rows, _) = compare(&alone(1.0), &alone(1.3));
        assert!(rows.iter().all(|r| r.verdict == Verdict::Slower), "{rows:?}");
    }

    #[test]
    fn devices_are_compared_with_themselves() {
        let named = |names: &[&str]| {
            let device = |n: &&str| Measured { device: n.to_string(), description: n.to_string(), ..report(1.0).devices.remove(0) };
            Report { devices: names.iter().map(device).collect(), ..Report::default() }
        };
        let names = |a: &[&str], b: &[&str]| -> (usize, Vec<String>) {
            let (rows, alone) = compare(&named(a), &named(b));
            (rows.len(), alone)
        };
        assert_eq!(names(&["cpu", "H100"], &["A100", "cpu"]), (2, vec!["H100".to_string(), "A100".to_string()]));
        assert_eq!(names(&["H100", "H100"], &["H100", "H100"]), (4, vec![]));
        assert_eq!(names(&["H100"], &["A100"]), (2, vec![]));
    }

    #[test]
    fn what_one_side_lacks_is_said() {
        let mut b = report(1.0);
        b.devices[0].rows.remove(1);
        let (rows, alone) = compare(&report(1.0), &b);
        assert_eq!((rows.len(), alone), (1, vec!["cost/step on cpu".to_string()]));
    }
}
