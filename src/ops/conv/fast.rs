//! The fast CPU path of convolutions: the windows of a few images (or of a few rows of one) are laid out as the columns of a matrix that stays in the second
//! cache level, and matrixmultiply does the rest. Work is cut by the shape of one model only, and sums run in a fixed order.

use super::geometry::Geometry;
use crate::device::cpu::Threads;
use crate::device::cpu::gemm::{Mat, gemm};
use std::cell::RefCell;
use std::ops::Range;

/// Elements of the matrix of windows: half a megabyte.
const COLUMNS: usize = 1 << 17;
/// Multiplications of one task: tens of microseconds, well above what waking a thread costs.
const TASK: usize = 1 << 20;
/// The most parts that the sum of a weight's gradient is cut into.
const PARTS: usize = 8;

/// How the positions of a model's images are cut into matrices.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    /// Images in one matrix.
    images: usize,
    /// Rows of the result in one matrix: all of them where it holds several images.
    rows: usize,
    /// Images of one task, a multiple of `images`.
    task: usize,
}

impl Tiling {
    fn of(g: &Geometry) -> Tiling {
        let columns = (COLUMNS / g.k().max(1)).clamp(64, 512);
        let most = if pointwise(g) { 1 } else { columns / g.positions().max(1) };
        // As even as can be: 64 images are nine matrices of 7 and one of 1, or ten of 6 and 7.
        let images = g.n.div_ceil(g.n.div_ceil(most.max(1)).max(1)).max(1);
        let rows = if images > 1 || g.positions() <= columns { g.oh } else { (columns / g.ow).max(1) };
        let work = (g.result() * g.k()).max(1);
        Tiling { images, rows, task: TASK.div_ceil(work).next_multiple_of(images) }
    }

    /// Columns of the largest matrix.
    fn columns(&self, g: &Geometry) -> usize {
        self.images * self.rows * g.ow
    }
}

/// Whether each window is one pixel, in order: then the image itself is the matrix.
fn pointwise(g: &Geometry) -> bool {
    g.taps() == 1 && g.stride == [1, 1] && g.padding == [0, 0]
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Run `f` with two buffers of this thread; their content is undefined.
fn with_scratch<R>(first: usize, second: usize, f: impl FnOnce(&mut [f32], &mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|s| {
        if s.len() < first + second {
            s.resize(first + second, 0.0);
        }
        let (a, b) = s[..first + second].split_at_mut(first);
        f(a, b)
    })
}

/// Cut `out`, which holds `each` elements an image, into tasks: `f(model, images within the model, part)`.
fn each_task(g: &Geometry, tiling: Tiling, each: usize, out: &mut [f32], threads: &Threads, f: impl Fn(usize, Range<usize>, &mut [f32]) + Send + Sync) {
    if out.is_empty() {
        return;
    }
    let mut tasks = Vec::new();
    for (m, of_model) in out.chunks_mut(g.n * each).enumerate() {
        for (t, part) in of_model.chunks_mut(tiling.task * each).enumerate() {
            tasks.push((m, t * tiling.task, part));
        }
    }
    threads.each_of(tasks, |_, (m, first, part)| {
        let images = part.len() / each;
        f(m, first..first + images, part);
    });
}

/// The matrices of a range of images: `f(images, rows)`.
fn each_tile(g: &Geometry, tiling: Tiling, images: Range<usize>, mut f: impl FnMut(Range<usize>, Range<usize>)) {
    for first in images.clone().step_by(tiling.images) {
        for row in (0..g.oh).step_by(tiling.rows) {
            f(first..(first + tiling.images).min(images.end), row..(row + tiling.rows).min(g.oh));
        }
    }
}

/// `y` of `x` and `w`.
pub(super) fn forward(g: &Geometry, x: &[f32], w: &[f32], y: &mut [f32], threads: &Threads) {
    let tiling = Tiling::of(g);
    let (k, p) = (g.k(), g.positions());
    each_task(g, tiling, g.result(), y, threads, |m, images, part| {
        let base = images.start;
        with_scratch(k * tiling.columns(g), g.og * tiling.columns(g), |windows, product| {
            each_tile(g, tiling, images, |images, rows| {
                for group in 0..g.groups {
                    let columns = images.len() * rows.len() * g.ow;
                    let weight = Mat { data: w, offset: m * g.weight() + group * g.og * k, row: k as isize, col: 1 };
                    let b = gather(g, x, m, group, &images, &rows, windows);
                    let at = |image: usize| (image - base) * g.result() + group * g.og * p + rows.start * g.ow;
                    if images.len() == 1 {
                        gemm(g.og, k, columns, weight, b, 0.0, &mut part[at(images.start)..], p);
                        continue;
                    }
                    gemm(g.og, k, columns, weight, b, 0.0, product, columns);
                    for (i, image) in images.clone().enumerate() {
                        for o in 0..g.og {
                            part[at(image) + o * p..][..p].copy_from_slice(&product[o * columns + i * p..][..p]);
                        }
                    }
                }
            });
        });
    });
}

/// The gradient of the image, of `gy` and `w`.
pub(super) fn input_grad(g: &Geometry, gy: &[f32], w: &[f32], gx: &mut [f32], threads: &Threads) {
    let tiling = Tiling::of(g);
    let (k, plane) = (g.k(), g.h * g.w);
    each_task(g, tiling, g.image(), gx, threads, |m, images, part| {
        let base = images.start;
        part.fill(0.0);
        with_scratch(k * tiling.columns(g), g.og * tiling.columns(g), |windows, packed| {
            each_tile(g, tiling, images, |images, rows| {
                for group in 0..g.groups {
                    let columns = images.len() * rows.len() * g.ow;
                    let weight = Mat { data: w, offset: m * g.weight() + group * g.og * k, row: k as isize, col: 1 }.t();
                    let grad = gradient(g, gy, m, group, &images, &rows, packed);
                    if pointwise(g) {
                        let at = (images.start - base) * g.image() + group * g.cg * plane + rows.start * g.ow;
                        gemm(k, g.og, columns, weight, grad, 0.0, &mut part[at..], plane);
                        continue;
                    }
                    gemm(k, g.og, columns, weight, grad, 0.0, windows, columns);
                    for (i, image) in images.clone().enumerate() {
                        let to = &mut part[(image - base) * g.image() + group * g.cg * plane..][..g.cg * plane];
                        spread(g, &rows, windows, columns, i * g.positions(), to);
                    }
                }
            });
        });
    });
}

/// The gradient of the weight, of `x` and `gy`: parts of the images' sum, added in order.
pub(super) fn weight_grad(g: &Geometry, x: &[f32], gy: &[f32], gw: &mut [f32], threads: &Threads) {
    let tiling = Tiling::of(g);
    let k = g.k();
    let wanted = (g.work() / TASK).clamp(1, PARTS);
    let images = g.n.div_ceil(wanted).next_multiple_of(tiling.images).max(1);
    let parts = g.n.div_ceil(images).max(1);
    let size = g.weight();
    if gw.is_empty() {
        return;
    }
    let run = |task: usize, sum: &mut [f32]| {
        let (m, part) = (task / parts, task % parts);
        sum.fill(0.0);
        with_scratch(k * tiling.columns(g), g.og * tiling.columns(g), |windows, packed| {
            each_tile(g, tiling, part * images..((part + 1) * images).min(g.n), |images, rows| {
                for group in 0..g.groups {
                    let columns = images.len() * rows.len() * g.ow;
                    let b = gather(g, x, m, group, &images, &rows, windows);
                    let grad = gradient(g, gy, m, group, &images, &rows, packed);
                    gemm(g.og, columns, k, grad, b.t(), 1.0, &mut sum[group * g.og * k..], k);
                }
            });
        });
    };
    if parts == 1 {
        let tasks: Vec<&mut [f32]> = gw.chunks_mut(size).collect();
        return threads.each_of(tasks, run);
    }
    let mut sums = vec![0f32; g.models * parts * size];
    threads.each_of(sums.chunks_mut(size).collect(), run);
    threads.chunks(gw, size.min(1 << 13), |start, out| {
        for (i, o) in out.iter_mut().enumerate() {
            let (m, e) = ((start + i) / size, (start + i) % size);
            *o = (0..parts).map(|p| sums[(m * parts + p) * size + e]).sum();
        }
    });
}

/// The windows of a group of channels, `[k, positions of all images]`: laid out in `windows`, or the image itself.
fn gather<'a>(g: &Geometry, x: &'a [f32], m: usize, group: usize, images: &Range<usize>, rows: &Range<usize>, windows: &'a mut [f32]) -> Mat<'a> {
    let plane = g.h * g.w;
    let at = |image: usize| (m * g.n + image) * g.image() + group * g.cg * plane;
    if pointwise(g) {
        return Mat { data: x, offset: at(images.start) + rows.start * g.ow, row: plane as isize, col: 1 };
    }
    let columns = images.len() * rows.len() * g.ow;
    for (i, image) in images.clone().enumerate() {
        lay_out(g, rows, &x[at(image)..][..g.cg * plane], windows, columns, i * g.positions());
    }
    Mat::rows(windows, columns)
}

/// The gradients of a group of channels, `[og, positions of all images]`: where they lie, or copied together into `packed`.
fn gradient<'a>(g: &Geometry, gy: &'a [f32], m: usize, group: usize, images: &Range<usize>, rows: &Range<usize>, packed: &'a mut [f32]) -> Mat<'a> {
    let p = g.positions();
    let at = |image: usize| (m * g.n + image) * g.result() + group * g.og * p + rows.start * g.ow;
    if images.len() == 1 {
        return Mat { data: gy, offset: at(images.start), row: p as isize, col: 1 };
    }
    let columns = images.len() * p;
    for (i, image) in images.clone().enumerate() {
        for o in 0..g.og {
            packed[o * columns + i * p..][..p].copy_from_slice(&gy[at(image) + o * p..][..p]);
        }
    }
    Mat::rows(packed, columns)
}

/// The results `low..high` of `out` whose step, `shift` away from `stride` times the result's place, lies inside `size`.
fn inside(out: usize, size: usize, stride: usize, shift: isize) -> Range<usize> {
    let low = (-shift).max(0) as usize;
    let high = (size as isize - shift).max(0) as usize;
    let high = high.div_ceil(stride).min(out);
    low.div_ceil(stride).min(high)..high
}

/// One step of the kernel over one channel: what it needs to know to copy between plane and row of windows.
struct Tap {
    /// Rows of the result that lie inside the image, and columns.
    ys: Range<usize>,
    xs: Range<usize>,
    /// Where the step lies, from the result's place.
    dy: isize,
    dx: isize,
}

impl Tap {
    fn of(g: &Geometry, rows: &Range<usize>, ky: usize, kx: usize) -> Tap {
        let dy = (ky * g.dilation[0]) as isize - g.padding[0] as isize;
        let dx = (kx * g.dilation[1]) as isize - g.padding[1] as isize;
        let ys = inside(g.oh, g.h, g.stride[0], dy);
        let xs = inside(g.ow, g.w, g.stride[1], dx);
        let (start, end) = (ys.start.clamp(rows.start, rows.end), ys.end.clamp(rows.start, rows.end));
        // Nothing inside across is nothing inside at all.
        let ys = if xs.is_empty() { rows.start..rows.start } else { start..end.max(start) };
        Tap { ys, xs, dy, dx }
    }

    /// Where the step of the first inside column of result row `oy` lies in the plane.
    fn source(&self, g: &Geometry, oy: usize) -> usize {
        let iy = (oy * g.stride[0]) as isize + self.dy;
        let ix = (self.xs.start * g.stride[1]) as isize + self.dx;
        (iy * g.w as isize + ix) as usize
    }
}

/// Whether rows of windows are rows of the image, shifted: then all rows are one run.
fn shifted(g: &Geometry) -> bool {
    g.stride == [1, 1] && g.ow == g.w
}

/// Lay out the windows of one image's channels: row (channel, ky, kx) of `windows`, which is `columns` long, from column `at` on.
fn lay_out(g: &Geometry, rows: &Range<usize>, x: &[f32], windows: &mut [f32], columns: usize, at: usize) {
    let (plane, ow) = (g.h * g.w, g.ow);
    for ky in 0..g.kh {
        for kx in 0..g.kw {
            let tap = Tap::of(g, rows, ky, kx);
            let (top, bottom) = ((tap.ys.start - rows.start) * ow, (tap.ys.end - rows.start) * ow);
            for c in 0..g.cg {
                let from = &x[c * plane..][..plane];
                let to = &mut windows[((c * g.kh + ky) * g.kw + kx) * columns + at..][..rows.len() * ow];
                to[..top].fill(0.0);
                to[bottom..].fill(0.0);
                if tap.ys.is_empty() {
                    continue;
                }
                if shifted(g) {
                    let (start, end) = (top + tap.xs.start, bottom - (ow - tap.xs.end));
                    to[start..end].copy_from_slice(&from[tap.source(g, tap.ys.start)..][..end - start]);
                    for row in to[top..bottom].chunks_exact_mut(ow) {
                        row[..tap.xs.start].iter_mut().for_each(|v| *v = 0.0);
                        row[tap.xs.end..].iter_mut().for_each(|v| *v = 0.0);
                    }
                    continue;
                }
                for (row, oy) in to[top..bottom].chunks_exact_mut(ow).zip(tap.ys.clone()) {
                    let from = &from[tap.source(g, oy)..];
                    row[..tap.xs.start].fill(0.0);
                    row[tap.xs.end..].fill(0.0);
                    let inner = &mut row[tap.xs.clone()];
                    match g.stride[1] {
                        1 => inner.copy_from_slice(&from[..inner.len()]),
                        s => inner.iter_mut().zip(from.iter().step_by(s)).for_each(|(t, f)| *t = *f),
                    }
                }
            }
        }
    }
}

/// Add rows of windows back to one image's channels: [`lay_out`] turned round. Spoils the windows.
fn spread(g: &Geometry, rows: &Range<usize>, windows: &mut [f32], columns: usize, at: usize, x: &mut [f32]) {
    let (plane, ow) = (g.h * g.w, g.ow);
    for ky in 0..g.kh {
        for kx in 0..g.kw {
            let tap = Tap::of(g, rows, ky, kx);
            if tap.ys.is_empty() {
                continue;
            }
            let (top, bottom) = ((tap.ys.start - rows.start) * ow, (tap.ys.end - rows.start) * ow);
            for c in 0..g.cg {
                let to = &mut x[c * plane..][..plane];
                let from = &mut windows[((c * g.kh + ky) * g.kw + kx) * columns + at..][..rows.len() * ow];
                if shifted(g) {
                    for row in from[top..bottom].chunks_exact_mut(ow) {
                        row[..tap.xs.start].iter_mut().for_each(|v| *v = 0.0);
                        row[tap.xs.end..].iter_mut().for_each(|v| *v = 0.0);
                    }
                    let (start, end) = (top + tap.xs.start, bottom - (ow - tap.xs.end));
                    to[tap.source(g, tap.ys.start)..][..end - start].iter_mut().zip(&from[start..end]).for_each(|(t, f)| *t += f);
                    continue;
                }
                for (row, oy) in from[top..bottom].chunks_exact(ow).zip(tap.ys.clone()) {
                    let inner = &row[tap.xs.clone()];
                    to[tap.source(g, oy)..].iter_mut().step_by(g.stride[1]).zip(inner).for_each(|(t, f)| *t += f);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Conv;
    use super::*;
    use crate::tensor::Shape;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn close(what: &str, got: &[f32], want: &[f64], terms: usize) {
        let scale = want.iter().fold(0f64, |m, v| m.max(v.abs()));
        let bound = (4.0 + 2.0 * (terms as f64).sqrt()) * f32::EPSILON as f64 * scale;
        for (i, (&a, &b)) in got.iter().zip(want).enumerate() {
            assert!((a as f64 - b).abs() <= bound, "{what}[{i}]: {a} is not {b}");
        }
    }

    /// Image [n, c, h, w], weight [o, c / groups, kh, kw], stride, padding, dilation, groups.
    type Case = ([usize; 4], [usize; 4], [usize; 2], [usize; 2], [usize; 2], usize);

    const CASES: &[Case] = &[
        ([1, 1, 1, 1], [1, 1, 1, 1], [1, 1], [0, 0], [1, 1], 1),
        ([5, 3, 7, 8], [4, 3, 3, 3], [1, 1], [1, 1], [1, 1], 1),
        ([2, 4, 9, 11], [6, 2, 3, 2], [2, 3], [2, 1], [1, 2], 2),
        ([3, 2, 8, 8], [2, 2, 1, 1], [1, 1], [0, 0], [1, 1], 1),
        ([1, 2, 40, 37], [3, 2, 5, 5], [1, 1], [2, 2], [1, 1], 1),
        ([1, 1, 70, 65], [2, 1, 3, 3], [3, 2], [4, 4], [2, 2], 1),
        ([40, 1, 8, 8], [32, 1, 3, 3], [1, 1], [1, 1], [1, 1], 1),
        ([9, 32, 8, 8], [64, 32, 3, 3], [1, 1], [1, 1], [1, 1], 1),
        ([2, 1, 2, 3], [1, 1, 1, 4], [1, 1], [0, 3], [1, 2], 1),
        ([0, 2, 4, 4], [3, 2, 2, 2], [1, 1], [0, 0], [1, 1], 1),
    ];

    #[test]
    fn fast_paths_agree_with_the_definition() {
        for &(xs, ws, stride, padding, dilation, groups) in CASES {
            let conv = Conv { stride, padding, dilation, groups, models: 0 };
            let g = conv.geometry(&Shape::from(xs), &Shape::from(ws)).unwrap();
            let (x, w, gy) = (values(g.n * g.image(), 1), values(g.weight(), 2), values(g.n * g.result(), 3));
            let (mut y, mut gx, mut gw) = (vec![0f64; gy.len()], vec![0f64; x.len()], vec![0f64; w.len()]);
            g.each_product(|iy, ix, iw| {
                y[iy] += x[ix] as f64 * w[iw] as f64;
                gx[ix] += gy[iy] as f64 * w[iw] as f64;
                gw[iw] += gy[iy] as f64 * x[ix] as f64;
            });
            let mut before: Option<[Vec<f32>; 3]> = None;
            for count in [1, 2] {
                let threads = Threads::new(count).unwrap();
                let mut got = [vec![f32::NAN; y.len()], vec![f32::NAN; gx.len()], vec![f32::NAN; gw.len()]];
                forward(&g, &x, &w, &mut got[0], &threads);
                input_grad(&g, &gy, &w, &mut got[1], &threads);
                weight_grad(&g, &x, &gy, &mut got[2], &threads);
                close("y", &got[0], &y, g.k());
                close("gx", &got[1], &gx, g.og * g.taps());
                close("gw", &got[2], &gw, g.n * g.positions());
                assert!(before.as_ref().is_none_or(|b| *b == got), "{xs:?}: bits depend on the number of threads");
                before = Some(got);
            }
        }
    }

    #[test]
    fn stacked_models_have_the_bits_of_each_alone() {
        let conv = Conv { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1, models: 0 };
        let one = conv.geometry(&Shape::new(&[9, 3, 8, 8]), &Shape::new(&[16, 3, 3, 3])).unwrap();
        let both = Geometry { models: 2, ..one };
        let threads = Threads::new(2).unwrap();
        let (x, w, gy) = (values(2 * one.n * one.image(), 1), values(2 * one.weight(), 2), values(2 * one.n * one.result(), 3));
        let run = |g: &Geometry, x: &[f32], w: &[f32], gy: &[f32]| {
            let mut got = [vec![0f32; gy.len()], vec![0f32; x.len()], vec![0f32; w.len()]];
            forward(g, x, w, &mut got[0], &threads);
            input_grad(g, gy, w, &mut got[1], &threads);
            weight_grad(g, x, gy, &mut got[2], &threads);
            got
        };
        let whole = run(&both, &x, &w, &gy);
        for m in 0..2 {
            let half = |v: &[f32]| v[m * v.len() / 2..(m + 1) * v.len() / 2].to_vec();
            assert_eq!(run(&one, &half(&x), &half(&w), &half(&gy)), [half(&whole[0]), half(&whole[1]), half(&whole[2])]);
        }
    }
}
