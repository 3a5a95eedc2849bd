//! Memory by lifetime.

use super::{cpu, gpu, measured, tensor};
use crate::op_table::{Lay, answer, draw, op_cases};
use crate::ops::none;
use wgrad::graph::{flush, no_grad};
use wgrad::ops::Conv2dOptions;
use wgrad::tensor::DType;

#[test]
fn a_forward_pass_without_gradients_holds_three_activations() {
    for device in std::iter::once(cpu()).chain(gpu()) {
        let (x, w) = (tensor(1, &[256, 256], &device), tensor(2, &[256, 256], &device));
        let activation = 256 * 256 * 4;
        // Under WGRAD_POISON the first run makes what later ones are filled from.
        tensor(3, &[4], &device).exp().to_vec::<f32>().unwrap();
        let before = device.counters().bytes_in_use;
        device.reset_peak();
        let y = no_grad(|| (0..32).fold(x.clone(), |h, _| h.matmul(&w).relu()));
        flush(&device).unwrap();
        let peak = device.counters().bytes_peak - before;
        measured(&device, format!("{:.2} activations", peak as f64 / activation as f64));
        assert!(peak <= 3 * activation, "{device:?}: {peak} bytes are {:.2} activations", peak as f64 / activation as f64);
        drop(y);
    }
}

#[test]
fn a_convolution_and_its_gradients_reserve_nothing_of_the_size_of_all_windows() {
    for device in std::iter::once(cpu()).chain(gpu()) {
        let options = Conv2dOptions { padding: [2, 2], ..Default::default() };
        let (n, c, o, size, kernel) = (8, 16, 16, 32, 5);
        let x = tensor(1, &[n, c, size, size], &device).requires_grad().unwrap();
        let w = tensor(2, &[o, c, kernel, kernel], &device).requires_grad().unwrap();
        let windows = (n * size * size * c * kernel * kernel * 4) as u64;
        let (before, calls) = (device.counters().bytes_reserved, device.counters().create_buffer);
        x.conv2d(&w, None, options).square().sum_all().backward().unwrap();
        flush(&device).unwrap();
        let (reserved, calls) = (device.counters().bytes_reserved - before, device.counters().create_buffer - calls);
        measured(&device, format!("{reserved} bytes in {calls} buffers; all windows are {windows} bytes"));
        assert_eq!(x.grad().unwrap().shape(), x.shape());
        // Together, not only each alone, they are a small part of it: the result, the gradients, and what a split sum needs.
        assert!(reserved < windows / 2, "{device:?}: {reserved} bytes reserved, all windows are {windows}");
    }
}

/// The variable that tells the test below that it is the child, and of how many samples it takes one (1: all, for minutes).
#[cfg(target_os = "linux")]
const CHILD: &str = "MEMORY_CHILD";

/// Kilobytes of memory that this process holds.
#[cfg(target_os = "linux")]
fn resident_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
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

#[cfg(target_os = "linux")]
#[test]
fn what_runs_again_and_again_takes_no_more_memory() {
    if gpu().is_none() {
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "promises::memory::child_that_repeats", "--ignored", "--nocapture"])
        .env(CHILD, "5")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
