//! Halves on the CPU: widened for the fast paths, which know f32, and back.

use crate::device::cpu::{CpuView, Threads};
use crate::tensor::F16;

/// Elements of one task: some tens of microseconds.
const TASK: usize = 1 << 16;

/// The values of a view of halves, row-major.
pub(super) fn widen(view: &CpuView<'_>, threads: &Threads) -> Vec<f32> {
    let halves = view.elements::<u16>();
    let mut out = vec![0.0; halves.len()];
    threads.chunks(&mut out, TASK, |first, part| {
        part.iter_mut().zip(&halves[first..]).for_each(|(x, &h)| *x = F16(h).to_f32());
    });
    out
}

/// The nearest halves.
pub(super) fn narrow(values: &[f32], out: &mut [u16], threads: &Threads) {
    threads.chunks(out, TASK, |first, part| {
        part.iter_mut().zip(&values[first..]).for_each(|(h, &x)| *h = F16::from(x).0);
    });
}

/// Each value to the nearest half.
pub(super) fn round(values: &mut [f32], threads: &Threads) {
    threads.chunks(values, TASK, |_, part| part.iter_mut().for_each(|x| *x = F16::from(*x).to_f32()));
}
