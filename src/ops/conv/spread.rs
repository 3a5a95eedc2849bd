//! The gradient of the image where the flipped kernel will not do: the gradients of all windows are one product, and are added back where the windows lie.

use super::fast::{each_task, images_of_task};
use super::geometry::Geometry;
use crate::device::cpu::{Threads, with_scratch};
use crate::device::cpu::gemm::{Mat, gemm};
use std::ops::Range;

/// Elements of the matrix of windows: half a megabyte.
const COLUMNS: usize = 1 << 17;

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
        let most = columns / g.positions().max(1);
        // As even as can be: 64 images are nine matrices of 7 and one of 1, or ten of 6 and 7.
        let images = g.n.div_ceil(g.n.div_ceil(most.max(1)).max(1)).max(1);
        let rows = if images > 1 || g.positions() <= columns { g.oh } else { (columns / g.ow).max(1) };
        Tiling { images, rows, task: images_of_task(g).next_multiple_of(images) }
    }

    /// Columns of the largest matrix.
    fn columns(&self, g: &Geometry) -> usize {
        self.images * self.rows * g.ow
    }
}

/// The matrices of a range of images: `f(images, rows)`.
fn each_tile(g: &Geometry, tiling: Tiling, images: Range<usize>, mut f: impl FnMut(Range<usize>, Range<usize>)) {
    for first in images.clone().step_by(tiling.images) {
        for row in (0..g.oh).step_by(tiling.rows) {
            f(first..(first + tiling.images).min(images.end), row..(row + tiling.rows).min(g.oh));
        }
    }
}

/// The gradient of the image, of `gy` and `w`, for steps of any size.
pub(super) fn input_grad(g: &Geometry, gy: &[f32], w: &[f32], gx: &mut [f32], threads: &Threads) {
    let tiling = Tiling::of(g);
    let (k, plane) = (g.k(), g.h * g.w);
    each_task(g, tiling.task, g.image(), gx, threads, |m, images, part| {
        let base = images.start;
        part.fill(0.0);
        let (of_windows, of_packed) = (k * tiling.columns(g), g.og * tiling.columns(g));
        with_scratch(of_windows + of_packed, |scratch| {
            let (windows, packed) = scratch.split_at_mut(of_windows);
            each_tile(g, tiling, images, |images, rows| {
                for group in 0..g.groups {
                    let columns = images.len() * rows.len() * g.ow;
                    let weight = Mat { data: w, offset: m * g.weight() + group * g.og * k, row: k as isize, col: 1 }.t();
                    let grad = gradient(g, gy, m, group, &images, &rows, packed);
                    gemm(k, g.og, columns, weight, grad, false, windows, columns);
                    for (i, image) in images.clone().enumerate() {
                        let to = &mut part[(image - base) * g.image() + group * g.cg * plane..][..g.cg * plane];
                        spread(g, &rows, windows, columns, i * g.positions(), to);
                    }
                }
            });
        });
    });
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
