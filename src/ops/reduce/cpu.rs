//! Reductions on the CPU, fast: f32 chains of bounded length joined in f64, cut into tasks by the number of terms alone.

use super::Kind;
use crate::device::cpu::{Loop, Threads, widely};

/// Elements of one task.
const TASK: usize = 1 << 15;
/// Terms of one f32 chain, times the lanes that run side by side.
const LANES: usize = 16;
const CHAIN: usize = 32 * LANES;
/// Columns that a task keeps sums of: they stay in the first cache level.
const COLUMNS: usize = 1024;

/// How f32 terms are joined; one type a kind, so that the inner loops are compiled for each.
trait Join {
    const KIND: Kind;
    fn join(a: f32, b: f32) -> f32;
}

struct Sum;
struct Max;
struct Min;

impl Join for Sum {
    const KIND: Kind = Kind::Sum;
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        a + b
    }
}

impl Join for Max {
    const KIND: Kind = Kind::Max;
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        if a > b || a.is_nan() { a } else { b }
    }
}

impl Join for Min {
    const KIND: Kind = Kind::Min;
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        if a < b || a.is_nan() { a } else { b }
    }
}

/// The terms, row-major.
pub(super) trait Source: Sync {
    /// `len` of them, from index `at` on; `room` has place for as many.
    fn get<'a>(&'a self, at: usize, len: usize, room: &'a mut [f32]) -> &'a [f32];
}

impl Source for [f32] {
    #[inline(always)]
    fn get<'a>(&'a self, at: usize, len: usize, _: &'a mut [f32]) -> &'a [f32] {
        &self[at..at + len]
    }
}

/// Terms that are computed where they are wanted.
pub(super) struct Loaded<'a>(pub &'a (dyn Fn(usize, &mut [f32]) + Sync));

impl Source for Loaded<'_> {
    fn get<'a>(&'a self, at: usize, len: usize, room: &'a mut [f32]) -> &'a [f32] {
        (self.0)(at, &mut room[..len]);
        &room[..len]
    }
}

/// Reduce `x`, row-major, to `out`, one element for each index of the kept dimensions. `runs`: sizes and strides of the kept, then of the reduced ones.
pub(super) fn reduce<X: Source + ?Sized>(kind: Kind, x: &X, runs: &[Vec<(usize, isize)>; 2], out: &mut [f32], threads: &Threads) {
    match kind {
        Kind::Sum => reduce_by::<Sum, X>(x, runs, out, threads),
        Kind::Max => reduce_by::<Max, X>(x, runs, out, threads),
        Kind::Min => reduce_by::<Min, X>(x, runs, out, threads),
    }
}

fn reduce_by<J: Join, X: Source + ?Sized>(x: &X, [kept, reduced]: &[Vec<(usize, isize)>; 2], out: &mut [f32], threads: &Threads) {
    if count(kept) * count(reduced) == 0 {
        out.fill(J::KIND.identity() as f32);
    } else if reduced.is_empty() {
        threads.chunks(out, TASK, |start, run| load(x, start, run));
    } else if reduced.last().is_some_and(|d| d.1 == 1) {
        rows::<J, X>(x, kept, reduced, out, threads);
    } else {
        columns::<J, X>(x, kept, reduced, out, threads);
    }
}

/// Where index `i` over `dims` lies.
fn offset(mut i: usize, dims: &[(usize, isize)]) -> usize {
    let mut at = 0;
    for &(size, stride) in dims.iter().rev() {
        at += i % size * stride as usize;
        i /= size;
    }
    at
}

fn count(dims: &[(usize, isize)]) -> usize {
    dims.iter().map(|d| d.0).product()
}

/// The innermost dimension is reduced: terms lie in rows.
fn rows<J: Join, X: Source + ?Sized>(x: &X, kept: &[(usize, isize)], reduced: &[(usize, isize)], out: &mut [f32], threads: &Threads) {
    let (inner, outer) = (reduced[reduced.len() - 1].0, &reduced[..reduced.len() - 1]);
    let lines = count(outer);
    // Long rows are cut; of short ones several make a piece.
    let (cuts, group) = if inner > TASK { (inner.div_ceil(TASK), 1) } else { (1, (TASK / inner).max(1)) };
    let pieces = lines.div_ceil(group) * cuts;
    let piece = |o: usize, p: usize| {
        let base = offset(o, kept);
        let (first, from) = (p / cuts * group, p % cuts * TASK);
        let to = if cuts == 1 { inner } else { (from + TASK).min(inner) };
        (first..(first + group).min(lines)).fold(J::KIND.identity(), |acc, line| {
            let at = base + offset(line, outer);
            J::KIND.join(acc, run_of::<J, X>(x, at + from, to - from))
        })
    };
    let task = (TASK / (inner * lines)).max(1);
    if pieces == 1 {
        threads.chunks(out, task, |start, run| run.iter_mut().enumerate().for_each(|(k, v)| *v = piece(start + k, 0) as f32));
        return;
    }
    let mut parts = vec![0f64; out.len() * pieces];
    threads.chunks(&mut parts, task, |start, run| {
        run.iter_mut().enumerate().for_each(|(k, v)| *v = piece((start + k) / pieces, (start + k) % pieces));
    });
    for (o, parts) in out.iter_mut().zip(parts.chunks(pieces)) {
        *o = parts.iter().fold(J::KIND.identity(), |a, &b| J::KIND.join(a, b)) as f32;
    }
}

/// Terms as they are.
fn load<X: Source + ?Sized>(x: &X, at: usize, to: &mut [f32]) {
    let mut room = [0f32; CHAIN];
    for (n, to) in to.chunks_mut(CHAIN).enumerate() {
        to.copy_from_slice(x.get(at + n * CHAIN, to.len(), &mut room));
    }
}

/// `len` terms joined.
fn run_of<J: Join, X: Source + ?Sized>(x: &X, at: usize, len: usize) -> f64 {
    let mut room = [0f32; CHAIN];
    let mut total = J::KIND.identity();
    for first in (0..len).step_by(CHAIN) {
        let chain = x.get(at + first, CHAIN.min(len - first), &mut room);
        let lanes = widely(Chain(chain, std::marker::PhantomData::<J>));
        total = lanes.iter().fold(total, |a, &l| J::KIND.join(a, f64::from(l)));
    }
    total
}

/// One chain of terms in each lane.
struct Chain<'a, J>(&'a [f32], std::marker::PhantomData<J>);

impl<J: Join> Loop for Chain<'_, J> {
    type Out = [f32; LANES];
    #[inline(always)]
    fn run(self) -> [f32; LANES] {
        let mut lanes = [J::KIND.identity() as f32; LANES];
        let (whole, rest) = self.0.as_chunks::<LANES>();
        for v in whole {
            for (l, &v) in lanes.iter_mut().zip(v) {
                *l = J::join(*l, v);
            }
        }
        for (l, &v) in lanes.iter_mut().zip(rest) {
            *l = J::join(*l, v);
        }
        lanes
    }
}

/// The innermost dimension is kept: terms of one output lie apart, and neighbours are reduced together.
fn columns<J: Join, X: Source + ?Sized>(x: &X, kept: &[(usize, isize)], reduced: &[(usize, isize)], out: &mut [f32], threads: &Threads) {
    const ROWS: usize = 32;
    let (width, outer) = (kept.last().map_or(1, |d| d.0), &kept[..kept.len().saturating_sub(1)]);
    let lines = count(reduced);
    let per = (4 * TASK / width.min(COLUMNS)).max(ROWS);
    let pieces = lines.div_ceil(per);
    // [pieces, outputs]
    let mut parts = vec![J::KIND.identity(); out.len() * pieces];
    let task = if width > COLUMNS { COLUMNS } else { width * (TASK / (width * lines.min(per))).max(1) };
    threads.chunks(&mut parts, task, |start, run| {
        let mut chain = [0f32; COLUMNS];
        let mut room = [0f32; COLUMNS];
        let mut done = 0;
        while done < run.len() {
            let at = start + done;
            let (piece, o) = (at / out.len(), at % out.len());
            let (block, column) = (o / width, o % width);
            let len = (width - column).min(run.len() - done).min(COLUMNS);
            let base = offset(block, outer) + column;
            let sums = &mut run[done..done + len];
            let end = ((piece + 1) * per).min(lines);
            for first in (piece * per..end).step_by(ROWS) {
                let chain = &mut chain[..len];
                chain.fill(J::KIND.identity() as f32);
                for line in first..(first + ROWS).min(end) {
                    let from = base + offset(line, reduced);
                    for (c, &v) in chain.iter_mut().zip(x.get(from, len, &mut room)) {
                        *c = J::join(*c, v);
                    }
                }
                sums.iter_mut().zip(chain).for_each(|(s, c)| *s = J::KIND.join(*s, f64::from(*c)));
            }
            done += len;
        }
    });
    let outputs = out.len();
    for (o, v) in out.iter_mut().enumerate() {
        *v = (0..pieces).fold(J::KIND.identity(), |a, p| J::KIND.join(a, parts[p * outputs + o])) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reduce;
    use super::*;
    use crate::device::cpu::{CpuView, CpuViewMut};
    use crate::graph::{Op, Slots};
    use crate::tensor::{DType, Meta};

    /// The fast path equals the definition, with the same bits for one and for two threads.
    fn check(kind: Kind, shape: &[usize], dims: u8) {
        let op = Reduce { kind, dims };
        let meta = Meta::new(DType::F32, shape);
        let x: Vec<f32> = (0..meta.numel()).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.4) * (1.0 + (i % 13) as f32)).collect();
        let input = CpuView::new(meta, bytemuck::cast_slice(&x));
        let out = op.infer(&Slots::none(), &[meta]).unwrap()[0];
        let run = |threads: Option<usize>| {
            let mut y = vec![0f32; out.numel()];
            let mut view = [CpuViewMut::new(out, bytemuck::cast_slice_mut(&mut y))];
            match threads {
                None => op.cpu(&Slots::none(), &[input], &mut view).unwrap(),
                Some(n) => assert!(op.cpu_fast(&Slots::none(), &[input], &mut view, &Threads::new(n).unwrap()).unwrap()),
            }
            y
        };
        let (want, got) = (run(None), run(Some(1)));
        assert_eq!(got, run(Some(2)));
        let scale = want.iter().fold(1f32, |m, v| m.max(v.abs()));
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 1e-6 * scale, "{kind:?} {shape:?} {dims:#b}: {g} is not {w}");
        }
    }

    #[test]
    fn fast_reductions_equal_the_definition() {
        for kind in [Kind::Sum, Kind::Max, Kind::Min] {
            check(kind, &[], 0);
            check(kind, &[7], 1);
            check(kind, &[100_003], 1);
            check(kind, &[3, 5, 7], 0b010);
            check(kind, &[3, 5, 7], 0b101);
            check(kind, &[1000, 3], 0b01);
            check(kind, &[2, 3000], 0b01);
            check(kind, &[70_000, 2], 0b01);
            check(kind, &[20, 6, 40, 40], 0b1101);
            check(kind, &[4, 1, 6, 1, 5], 0b10101);
            check(kind, &[513, 300], 0b10);
            check(kind, &[2, 3, 2, 3, 2, 3], 0b010101);
        }
        check(Kind::Sum, &[0, 3], 0b01);
    }

    #[test]
    fn nan_reaches_maxima() {
        let x = [1.0, f32::NAN, 2.0];
        for kind in [Kind::Max, Kind::Min] {
            let mut out = [0f32];
            reduce(kind, &x[..], &[vec![], vec![(3, 1)]], &mut out, &Threads::new(1).unwrap());
            assert!(out[0].is_nan());
        }
    }
}
