//! The fast CPU path of convolutions: products whose right operand is the image itself, laid out so that each term of all windows of a row is a row of it.
//! Work is cut by the shape of one model only, and sums run in a fixed order.

use super::geometry::Geometry;
use super::planes::Planes;
use super::spread;
use crate::device::cpu::{Threads, with_scratch};
use crate::device::cpu::gemm::{BLOCK, Mat, Panel, Places, Rows, Terms, blocks, gemm, pack_right, panels, panels_width, product};
use std::ops::Range;

/// Multiplications of one task: tens of microseconds, well above what handing it to a thread costs.
const TASK: usize = 1 << 20;
/// The most parts that the sum of a weight's gradient is cut into.
const PARTS: usize = 8;
/// Positions that are laid out together, where windows are.
const COLUMNS: usize = 512;
/// Elements that are copied at once.
const STRIDE: usize = 8;

/// Images of one task.
pub(super) fn images_of_task(g: &Geometry) -> usize {
    TASK.div_ceil((g.result() * g.k()).max(1))
}

/// Cut `out`, which holds `each` elements an image, into tasks: `f(model, images within the model, part)`.
pub(super) fn each_task(g: &Geometry, task: usize, each: usize, out: &mut [f32], threads: &Threads, f: impl Fn(usize, Range<usize>, &mut [f32]) + Send + Sync) {
    if out.is_empty() {
        return;
    }
    let mut tasks = Vec::new();
    for (m, of_model) in out.chunks_mut(g.n * each).enumerate() {
        for (t, part) in of_model.chunks_mut(task * each).enumerate() {
            tasks.push((m, t * task, part));
        }
    }
    threads.each_of(tasks, |_, (m, first, part)| {
        let images = part.len() / each;
        f(m, first..first + images, part);
    });
}

/// `y` of `x` and `w`.
pub(super) fn forward(g: &Geometry, x: &[f32], w: &[f32], y: &mut [f32], threads: &Threads) {
    // Images without rows may have results, which read nothing but padding.
    if x.is_empty() {
        return y.fill(0.0);
    }
    let planes = Planes::of(g);
    let (k, p, plane) = (g.k(), g.positions(), g.h * g.w);
    let direct = reads_planes(g);
    let most = if direct || g.is_pointwise() { 1 } else { (COLUMNS / p.max(1)).max(1) };
    // As even as can be: 64 images are ten of 6 and 7 rather than nine of 7 and one.
    let together = g.n.div_ceil(g.n.div_ceil(most).max(1)).max(1);
    let starts: Places = (0..g.og).map(|o| o * k).collect();
    each_task(g, images_of_task(g).next_multiple_of(together), g.result(), y, threads, |m, images, part| {
        for first in images.clone().step_by(together) {
            let count = together.min(images.end - first);
            for group in 0..g.groups {
                let weight = &w[m * g.weight() + group * g.og * k..][..g.og * k];
                let to = &mut part[(first - images.start) * g.result() + group * g.og * p..];
                let image = |i: usize| &x[(m * g.n + first + i) * g.image() + group * g.cg * plane..][..g.cg * plane];
                if g.is_pointwise() {
                    gemm(g.og, k, p, Mat::rows(weight, k), Mat::rows(image(0), p), false, to, p);
                } else if direct {
                    along_rows(g, &planes, image(0), weight, &starts, to);
                } else {
                    in_panels(g, &planes, count, image, weight, &starts, to);
                }
            }
        }
    });
}

/// Whether products read the planes themselves, a row of the result at a time: where that leaves less of the vectors empty than laying out windows costs,
/// which is about what a dozen channels do.
fn reads_planes(g: &Geometry) -> bool {
    const LAYING_OUT: usize = 12;
    g.og * panels_width(g.ow) <= (g.og + LAYING_OUT) * g.ow
}

/// One image and group, row by row.
fn along_rows(g: &Geometry, planes: &Planes, x: &[f32], weight: &[f32], starts: &Places, to: &mut [f32]) {
    let (k, p) = (g.k(), g.positions());
    with_scratch(planes.size, |laid| {
        planes.lay(g, x, laid);
        for y in 0..g.oh {
            for panel in panels(g.ow) {
                let at = y * g.ow + panel.first;
                // What is written behind a row's end is written again with the next row; only behind the last one there is another channel.
                let panel = if at + panel.width <= p { Panel { cols: panel.width, ..panel } } else { panel };
                for (from, depth) in blocks(k) {
                    let rows = Rows { data: &weight[from..], starts, step: 1, run: 0, runs: 1, depth };
                    let terms = Terms::Found { data: laid, first: planes.at(y, panel.first), places: &planes.places, from };
                    product(rows, terms, panel, &mut to[at..], p, from > 0);
                }
            }
        }
    });
}

/// A run of positions of one row, inside a panel.
struct Run {
    /// Where its first window begins, in the planes.
    from: usize,
    /// Its first column in the panel, and how many there are.
    to: usize,
    len: usize,
}

/// Some images of a group: the windows of 32 positions or so are laid out as a panel, wherever rows and images end.
fn in_panels<'a>(g: &Geometry, planes: &Planes, count: usize, image: impl Fn(usize) -> &'a [f32], weight: &[f32], starts: &Places, to: &mut [f32]) {
    let (k, p) = (g.k(), g.positions());
    let columns = count * p;
    let of_product = if count > 1 { g.og * columns } else { 0 };
    let of_panel = k.min(BLOCK) * panels(columns).next().map_or(0, |panel| panel.width) + STRIDE;
    with_scratch(count * planes.size + of_panel + of_product, |scratch| {
        let (laid, rest) = scratch.split_at_mut(count * planes.size);
        let (packed, apart) = rest.split_at_mut(of_panel);
        laid.chunks_exact_mut(planes.size).enumerate().for_each(|(i, laid)| planes.lay(g, image(i), laid));
        let mut runs: Vec<Run> = Vec::new();
        for panel in panels(columns) {
            runs.clear();
            let mut column = 0;
            while column < panel.cols {
                let (i, at) = ((panel.first + column) / p, (panel.first + column) % p);
                let (y, x) = (at / g.ow, at % g.ow);
                let len = (g.ow - x).min(panel.cols - column);
                runs.push(Run { from: i * planes.size + planes.at(y, x), to: column, len });
                column += len;
            }
            for (from, depth) in blocks(k) {
                lay_out(laid, &planes.places[from..from + depth], &runs, panel.width, packed);
                let rows = Rows { data: &weight[from..], starts, step: 1, run: 0, runs: 1, depth };
                if count > 1 {
                    product(rows, Terms::Packed(packed), panel, &mut apart[panel.first..], columns, from > 0);
                } else {
                    product(rows, Terms::Packed(packed), panel, &mut to[panel.first..], p, from > 0);
                }
            }
        }
        for (o, line) in apart.chunks_exact(columns.max(1)).enumerate() {
            for (i, line) in line.chunks_exact(p).enumerate() {
                to[i * g.result() + o * p..][..p].copy_from_slice(line);
            }
        }
    });
}

/// The terms of a panel's windows, a row of `width` each. Runs are copied some elements at once, and what is written behind a run's end is written again by
/// what follows; behind the panel's columns there may be anything.
fn lay_out(laid: &[f32], places: &[usize], runs: &[Run], width: usize, to: &mut [f32]) {
    for (p, &place) in places.iter().enumerate() {
        for run in runs {
            let (from, to) = (&laid[run.from + place..], &mut to[p * width + run.to..]);
            let whole = run.len.next_multiple_of(STRIDE);
            for (to, from) in to[..whole].as_chunks_mut::<STRIDE>().0.iter_mut().zip(from[..whole].as_chunks::<STRIDE>().0) {
                *to = *from;
            }
        }
    }
}

/// The gradient of the image, of `gy` and `w`.
pub(super) fn input_grad(g: &Geometry, gy: &[f32], w: &[f32], gx: &mut [f32], threads: &Threads) {
    if gx.is_empty() {
        return;
    }
    let Some(turned) = turned(g) else {
        return spread::input_grad(g, gy, w, gx, threads);
    };
    let taps = g.taps();
    let mut kernels = vec![0f32; w.len()];
    for (w, to) in w.chunks_exact((g.og * g.k()).max(1)).zip(kernels.chunks_exact_mut((g.og * g.k()).max(1))) {
        for (i, kernel) in w.chunks_exact(taps).enumerate() {
            let (o, c) = (i / g.cg, i % g.cg);
            let to = &mut to[(c * g.og + o) * taps..][..taps];
            to.iter_mut().zip(kernel.iter().rev()).for_each(|(t, w)| *t = *w);
        }
    }
    forward(&turned, gy, &kernels, gx, threads);
}

/// The gradient of the image as a convolution of the result's gradient, with each kernel turned round: for strides of 1, where its products with padding cost
/// less than adding all windows back would.
fn turned(g: &Geometry) -> Option<Geometry> {
    let reach = [g.dilation[0] * (g.kh - 1), g.dilation[1] * (g.kw - 1)];
    let padding = [reach[0].checked_sub(g.padding[0])?, reach[1].checked_sub(g.padding[1])?];
    const ADDING: usize = 16;
    let pays = g.og * g.h * g.w <= (g.og + ADDING) * g.positions();
    (g.stride == [1, 1] && pays).then_some(Geometry { cg: g.og, og: g.cg, h: g.oh, w: g.ow, oh: g.h, ow: g.w, padding, ..*g })
}

/// The gradient of the weight, of `x` and `gy`: parts of the images' sum, added in order. Windows are rows of the left operand, which need no laying out;
/// so each part is a sum of transposed gradients, `[groups, k, og]`.
pub(super) fn weight_grad(g: &Geometry, x: &[f32], gy: &[f32], gw: &mut [f32], threads: &Threads) {
    /// Results that are transposed together.
    const TOGETHER: usize = 16;
    if gw.is_empty() || x.is_empty() {
        return gw.fill(0.0);
    }
    let planes = Planes::of(g);
    let (k, p, plane, size) = (g.k(), g.positions(), g.h * g.w, g.weight());
    let images = g.n.div_ceil((g.work() / TASK).clamp(1, PARTS)).max(1);
    let parts = g.n.div_ceil(images).max(1);
    let mut sums = vec![0f32; g.models * parts * size];
    threads.chunks(&mut sums, size, |start, sum| {
        let (m, part) = (start / size / parts, start / size % parts);
        with_scratch(planes.size + p * panels_width(g.og), |scratch| {
            let (laid, grads) = scratch.split_at_mut(planes.size);
            for image in part * images..((part + 1) * images).min(g.n) {
                for group in 0..g.groups {
                    let (image, sum) = (m * g.n + image, &mut sum[group * g.og * k..][..g.og * k]);
                    planes.lay(g, &x[image * g.image() + group * g.cg * plane..][..g.cg * plane], laid);
                    let grad = &gy[image * g.result() + group * g.og * p..][..g.og * p];
                    for panel in panels(g.og) {
                        let grads = &mut grads[..p * panel.width];
                        pack_right(Mat::rows(&grad[panel.first * p..], p).t(), p, panel.cols, panel.width, grads);
                        add_windows(g, &planes, laid, grads, panel, &mut sum[panel.first..]);
                    }
                }
            }
        });
    });
    let mut tasks = Vec::new();
    for (n, of_group) in gw.chunks_mut(g.og * k).enumerate() {
        tasks.extend(of_group.chunks_mut(TOGETHER * k).enumerate().map(|(i, part)| (n, i * TOGETHER, part)));
    }
    threads.each_of(tasks, |_, (n, first, out)| {
        let (m, group, count) = (n / g.groups, n % g.groups, out.len() / k);
        for e in 0..k {
            let mut total = [0f32; TOGETHER];
            for part in 0..parts {
                let sum = &sums[(m * parts + part) * size + group * g.og * k + e * g.og + first..][..count];
                total.iter_mut().zip(sum).for_each(|(t, s)| *t += s);
            }
            (0..count).for_each(|o| out[o * k + e] = total[o]);
        }
    });
}

/// Add one image's products of windows and gradients (laid out as `panel`) to a part of the weight's gradient. Chains of sums are no longer than elsewhere.
fn add_windows(g: &Geometry, planes: &Planes, laid: &[f32], grads: &[f32], panel: Panel, sum: &mut [f32]) {
    let together = (BLOCK / g.ow).max(1);
    for y in (0..g.oh).step_by(together) {
        let runs = together.min(g.oh - y);
        for (x, depth) in blocks(g.ow) {
            let rows = Rows { data: &laid[planes.at(y, x)..], starts: &planes.places, step: 1, run: planes.row, runs, depth };
            product(rows, Terms::Packed(&grads[(y * g.ow + x) * panel.width..]), panel, sum, g.og, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Conv;
    use super::*;
    use crate::device::cpu::gemm::tests::values;
    use crate::tensor::Shape;

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
