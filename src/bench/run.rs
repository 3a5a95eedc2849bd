//! A run over many probes: what is measured when, within which time, and what is left out.

use super::child::{Host, NO_ANSWER};
use super::clock::median;
use super::probe::{Probe, family, probes as all_probes};
use super::report::{Measured, Report, Row, SCHEMA};
use super::system;
use crate::error::Result;
use std::time::Instant;

/// A dispatch that would take longer is not tried: a desktop would stand still.
const LONGEST_MS: f64 = 50.0;

/// In fewer seconds nothing is begun.
const SHORTEST: f64 = 1.0;

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often each probe is measured, each time in a process of its own; all of them once, then all of them again. Those whose processes do not agree are
    /// measured up to twice as often.
    pub rounds: usize,
    /// Seconds for one device, where there is a limit.
    pub budget: Option<f64>,
}

/// What a run tells and asks while it goes on.
pub struct Watch<'a> {
    /// Hears of each probe as it begins: the round, its number, how many there are, and its name.
    pub told: &'a mut dyn FnMut(usize, usize, usize, &str),
    /// Whether to end: what was measured so far is the result.
    pub stop: &'a dyn Fn() -> bool,
}

/// Measure the probes on each host.
///
/// # Errors
/// Where the only device cannot be opened. What goes wrong with one of several stands in its rows, and what goes wrong in a probe in its row.
pub fn run(hosts: &[Host], probes: &[Probe], plan: &Plan, watch: &mut Watch<'_>) -> Result<Report> {
    let began = Instant::now();
    let mut devices = Vec::with_capacity(hosts.len());
    let mut closed = vec![None; hosts.len()];
    for (host, closed) in hosts.iter().zip(&mut closed) {
        devices.push(match host.info() {
            Err(e) if hosts.len() > 1 => {
                *closed = Some(format!("not opened: {e}"));
                let device = host.device().to_string();
                Measured { description: device.clone(), device, ..Measured::default() }
            }
            info => info?,
        });
    }
    for ((host, device), closed) in hosts.iter().zip(&mut devices).zip(closed) {
        let began = Instant::now();
        let empty = |p: &Probe| {
            let (flops, bytes) = p.size.unwrap_or_default();
            Row { name: p.name.clone(), about: p.about.clone(), flops, bytes, failed: closed.clone(), ..Row::default() }
        };
        device.rows = probes.iter().map(empty).collect();
        let mut scouts = Vec::new();
        let order = order(probes, plan.budget.is_some());
        let more = if plan.rounds > 1 { plan.rounds } else { 0 };
        for round in 0..plan.rounds + more {
            for (done, &n) in order.iter().enumerate() {
                let probe = &probes[n];
                if device.rows[n].failed.is_some() || round >= plan.rounds && agree(&device.rows[n]) {
                    continue;
                }
                let left = || plan.budget.map_or(f64::INFINITY, |b| b - began.elapsed().as_secs_f64());
                if (watch.stop)() {
                    leave_out(&mut device.rows[n], INTERRUPTED.into());
                    continue;
                }
                if left() < SHORTEST {
                    leave_out(&mut device.rows[n], format!("not run: the {:.0} s that were given are over", plan.budget.unwrap_or_default()));
                    continue;
                }
                let mut tell = |name: &str| (watch.told)(round + 1, done + 1, probes.len(), name);
                if round == 0 {
                    scout(probe, &device.rows, &mut scouts, &mut |smaller| {
                        tell(&smaller.name);
                        host.measure(smaller, "", left().max(SHORTEST), watch.stop)
                    });
                }
                if let Some(why) = too_long(probe, &device.rows, &scouts) {
                    device.rows[n].failed = Some(why);
                    continue;
                }
                tell(&probe.name);
                let known = device.rows[n].bits.clone();
                let given = left().max(SHORTEST);
                let row = host.measure(probe, &known, given, watch.stop);
                let in_vain = row.failed.as_ref().is_some_and(|why| why.starts_with(NO_ANSWER)) && given < host.limit;
                match row {
                    // Ctrl-C reaches a probe's process, too.
                    row if row.failed.is_some() && (watch.stop)() => leave_out(&mut device.rows[n], INTERRUPTED.into()),
                    _ if in_vain => leave_out(&mut device.rows[n], format!("not run: the last {given:.0} s of the time given were too few")),
                    row => device.rows[n].add(row),
                }
            }
        }
        device.finish();
    }
    Ok(Report {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: system::commit(),
        os: system::os(),
        cpu: system::cpu(),
        kernel_hash: system::kernel_hash(),
        seconds: began.elapsed().as_secs_f64(),
        devices,
    })
}

/// Say why a row has no number; one that has keeps it, whatever ends the run.
fn leave_out(row: &mut Row, why: String) {
    if row.rounds.is_empty() {
        row.failed.get_or_insert(why);
    }
}

/// Whether the processes that measured a row agree.
fn agree(row: &Row) -> bool {
    const NEAR: f64 = 1.03;
    let times = row.rounds.iter().map(|r| super::job::quartile(r, 1));
    let (low, high) = times.fold((f64::INFINITY, 0.0f64), |(l, h), t| (l.min(t), h.max(t)));
    high <= low * NEAR
}

/// The order of the table; where time may run out, one of each family of kernels, then another of each.
fn order(probes: &[Probe], short: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probes.len()).collect();
    if short {
        let kernels = |p: &Probe| p.size.is_some();
        order.sort_by_key(|&n| probes[..n].iter().filter(|p| kernels(&probes[n]) && p.family() == probes[n].family()).count());
    }
    order
}

/// How much larger a probe may be than those that its time is told from.
const REACH: f64 = 16.0;

/// What stands before the reason.
const TOO_LONG: &str = "not run: one dispatch would take";

/// Why a run was ended by hand.
const INTERRUPTED: &str = "not run: interrupted";

/// Operations and bytes that no device takes long for.
const SMALL: (f64, f64) = (1e8, 6.4e7);

/// Milliseconds that a probe will take, by the fastest of its family among those that are not much smaller.
fn estimate<'r>(probe: &Probe, rows: impl Iterator<Item = &'r Row>) -> Option<f64> {
    let (flops, bytes) = probe.size?;
    let of_family = rows.filter(|r| family(&r.name) == probe.family() && r.name != probe.name && !r.rounds.is_empty());
    let told = of_family.filter_map(|r| {
        let times = (flops / r.flops.max(1.0)).max(bytes / r.bytes.max(1.0));
        (times <= REACH).then(|| median(&r.samples()) * times)
    });
    told.min_by(f64::total_cmp)
}

/// Why a probe is not tried: it would take long, or a smaller one was not tried for that reason.
fn too_long(probe: &Probe, rows: &[Row], scouts: &[Row]) -> Option<String> {
    let (flops, bytes) = probe.size?;
    match estimate(probe, rows.iter().chain(scouts)) {
        Some(ms) if ms > LONGEST_MS => Some(format!("{TOO_LONG} about {} ms, more than {LONGEST_MS}", ms.ceil())),
        Some(_) => None,
        None => {
            let left_out = |r: &&Row| r.failed.as_ref().is_some_and(|why| why.starts_with(TOO_LONG)) && r.flops <= flops && r.bytes <= bytes;
            let smaller = rows.iter().chain(scouts).filter(|r| family(&r.name) == probe.family() && r.name != probe.name);
            smaller.into_iter().find(left_out).map(|r| format!("{TOO_LONG} longer than that of {}, more than {LONGEST_MS} ms", r.name))
        }
    }
}

/// Where nothing tells yet how long a large probe takes, measure smaller ones of its family until one does: what was asked for alone is no less long.
fn scout(probe: &Probe, rows: &[Row], scouts: &mut Vec<Row>, measure: &mut dyn FnMut(&Probe) -> Row) {
    let Some((flops, bytes)) = probe.size.filter(|(flops, bytes)| *flops > SMALL.0 || *bytes > SMALL.1) else { return };
    if estimate(probe, rows.iter().chain(&*scouts)).is_some() || too_long(probe, rows, scouts).is_some() {
        return;
    }
    let below = |p: &Probe| p.family() == probe.family() && p.size.is_some_and(|(f, b)| f < flops && b <= bytes);
    let unknown = |p: &Probe| !rows.iter().chain(&*scouts).any(|r| r.name == p.name && (!r.rounds.is_empty() || r.failed.is_some()));
    let size = |p: &Probe| p.size.map_or(0.0, |(f, _)| f);
    let Some(smaller) = all_probes().into_iter().filter(|p| below(p) && unknown(p)).max_by(|a, b| size(a).total_cmp(&size(b))) else { return };
    scout(&smaller, rows, scouts, measure);
    let (flops, bytes) = smaller.size.unwrap_or_default();
    let named = Row { name: smaller.name.clone(), flops, bytes, ..Row::default() };
    scouts.push(match too_long(&smaller, rows, scouts) {
        Some(why) => Row { failed: Some(why), ..named },
        // What fails is found out where it was asked for.
        None => Row { name: named.name, flops, bytes, ..measure(&smaller) },
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_of_time_begins_with_one_of_each_family() {
        let probes = super::super::probe::probes();
        assert!(order(&probes, false).is_sorted());
        let order = order(&probes, true);
        let first: Vec<&str> = order.iter().map(|&n| probes[n].family()).skip_while(|f| ["peak", "cost", "train"].contains(f)).take(4).collect();
        assert_eq!(first, ["elementwise", "matmul", "conv", "reduce"]);
        // Within a family the small ones stay first: estimates come from them.
        let matmuls: Vec<usize> = order.into_iter().filter(|&n| probes[n].family() == "matmul").collect();
        assert!(matmuls.is_sorted());
    }

    #[test]
    fn what_would_be_long_is_left_out() {
        let probes = super::super::probe::select(&["matmul".into()]).unwrap();
        let at = |name: &str| probes.iter().position(|p| p.name == name).unwrap();
        let mut rows: Vec<Row> =
            probes.iter().map(|p| Row { name: p.name.clone(), flops: p.size.unwrap().0, bytes: p.size.unwrap().1, ..Row::default() }).collect();
        let says = |name: &str, rows: &[Row]| too_long(&probes[at(name)], rows, &[]);
        rows[at("matmul/128")].rounds = vec![vec![1.0]];
        assert_eq!(says("matmul/256", &rows), None);
        // From so far below nothing follows.
        assert_eq!(says("matmul/1024", &rows), None);
        rows[at("matmul/128")].rounds = vec![vec![7.0]];
        assert_eq!(says("matmul/256", &rows).unwrap(), "not run: one dispatch would take about 56 ms, more than 50");
        rows[at("matmul/256")].failed = says("matmul/256", &rows);
        assert!(says("matmul/1024", &rows).unwrap().contains("longer than that of matmul/256"));
        assert_eq!(says("matmul/64", &rows), None);
    }

    #[test]
    fn what_is_asked_for_alone_is_told_by_smaller_ones() {
        let probes = super::super::probe::select(&["matmul/4096".into()]).unwrap();
        let rows = [Row { name: "matmul/4096".into(), ..Row::default() }];
        let asked = |rate: f64| {
            let (mut scouts, mut order) = (Vec::new(), Vec::new());
            scout(&probes[0], &rows, &mut scouts, &mut |p| {
                order.push(p.size.unwrap().0);
                Row { rounds: vec![vec![p.size.unwrap().0 / rate]], ..Row::default() }
            });
            (too_long(&probes[0], &rows, &scouts), order)
        };
        // 10 TFLOP/s and 100 GFLOP/s, in operations of a millisecond.
        let (fast, order) = asked(1e10);
        assert!(fast.is_none() && order.is_sorted() && order.len() > 2 && order[0] <= SMALL.0, "{fast:?} {order:?}");
        let (slow, order) = asked(1e8);
        assert!(slow.unwrap().starts_with(TOO_LONG) && order.iter().all(|f| f / 1e8 <= LONGEST_MS * REACH), "{order:?}");
    }
}
