//! What runs again and again takes no more memory: read from /proc, so on Linux only.

use super::gpu;
use crate::op_table::{Lay, answer, draw, op_cases};
use crate::ops::none;
use wgrad::tensor::DType;

/// The variable that tells the test below that it is the child, and of how many samples it takes one (1: all, for minutes).
const CHILD: &str = "MEMORY_CHILD";

/// Kilobytes of memory that this process holds.
fn resident_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "run by what_runs_again_and_again_takes_no_more_memory, in a process of its own"]
fn child_that_repeats() {
    let Some(stride): Option<usize> = std::env::var(CHILD).ok().map(|n| n.parse().unwrap()) else { return };
    const RUNS: usize = 12;
    let device = gpu().unwrap();
    let mut grown = Vec::new();
    // Statistics of a batch join parts in a launch of their own: the one that grew.
    let cases: Vec<_> = op_cases().into_iter().filter(|c| !c.host_only).enumerate().filter(|(n, c)| n % stride == 0 || c.name.contains("batch_norm")).collect();
    for (_, case) in &cases {
        let values = draw(case, 0);
        let run = |times| (0..times).for_each(|_| drop(answer(case, &values, Lay::Contiguous, DType::F32, &device).unwrap()));
        run(3);
        let before = resident_kb();
        run(RUNS);
        // Once is an allocator's room for what comes; what a driver keeps of a dispatch (lavapipe a copy of its shader), it keeps each time.
        let first = resident_kb().saturating_sub(before);
        run(RUNS);
        let kb = first.min(resident_kb().saturating_sub(before + first));
        if kb > RUNS * 32 {
            grown.push(format!("{}: {kb} KB in {RUNS} runs", case.name));
        }
    }
    none("operations that take more memory each time", &grown);
}

#[test]
fn what_runs_again_and_again_takes_no_more_memory() {
    if gpu().is_none() {
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "promises::growth::child_that_repeats", "--ignored", "--nocapture"])
        .env(CHILD, "5")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
