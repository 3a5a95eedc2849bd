//! Images laid out so that every step of a kernel reads them at one distance: padded with zeros, and rows and columns apart by their remainder of the stride.

use super::geometry::Geometry;
use crate::device::cpu::gemm::Places;

/// Elements behind an image that may be read with its last ones.
const SLACK: usize = 32;

/// Where things lie in an image that is laid out.
#[derive(Debug)]
pub(super) struct Planes {
    /// Elements of a channel: a plane for each remainder of row and column by the stride.
    channel: usize,
    /// Elements of a plane.
    plane: usize,
    /// From a position to the one below it.
    pub row: usize,
    /// Where the term of a window lies, seen from its position: (channel, row, column) of the kernel, in order.
    pub places: Places,
    /// Elements of a group of channels, those that may be read behind them included.
    pub size: usize,
}

impl Planes {
    pub fn of(g: &Geometry) -> Planes {
        let [sy, sx] = g.stride;
        let (rows, row) = ((g.h + 2 * g.padding[0]).div_ceil(sy), (g.w + 2 * g.padding[1]).div_ceil(sx));
        let plane = rows * row;
        let channel = sy * sx * plane;
        let place = |c: usize, ky: usize, kx: usize| {
            let (dy, dx) = (ky * g.dilation[0], kx * g.dilation[1]);
            c * channel + (dy % sy * sx + dx % sx) * plane + dy / sy * row + dx / sx
        };
        let taps = |c| (0..g.kh).flat_map(move |ky| (0..g.kw).map(move |kx| place(c, ky, kx)));
        Planes { channel, plane, row, places: (0..g.cg).flat_map(taps).collect(), size: g.cg * channel + SLACK }
    }

    /// Where the window of position (y, x) begins.
    pub fn at(&self, y: usize, x: usize) -> usize {
        y * self.row + x
    }

    /// Lay out the channels `x` of an image.
    pub fn lay(&self, g: &Geometry, x: &[f32], to: &mut [f32]) {
        if g.stride == [1, 1] {
            for (x, to) in x.chunks_exact(g.h * g.w).zip(to.chunks_exact_mut(self.channel)) {
                self.lay_whole(g, x, to);
            }
            return;
        }
        let ([sy, sx], [py, px]) = (g.stride, g.padding);
        to.fill(0.0);
        for (c, x) in x.chunks_exact(g.h * g.w).enumerate() {
            for (y, from) in (py..).zip(x.chunks_exact(g.w)) {
                let row = c * self.channel + y % sy * sx * self.plane + y / sy * self.row;
                for (x, &v) in (px..).zip(from) {
                    to[row + x % sx * self.plane + x / sx] = v;
                }
            }
        }
    }

    /// A channel whose rows stay whole: zeros around it. (Behind the last channel there may be anything.)
    fn lay_whole(&self, g: &Geometry, x: &[f32], to: &mut [f32]) {
        let [py, px] = g.padding;
        let (above, rest) = to.split_at_mut(py * self.row);
        let (rows, below) = rest.split_at_mut(g.h * self.row);
        above.fill(0.0);
        below.fill(0.0);
        for (from, to) in x.chunks_exact(g.w).zip(rows.chunks_exact_mut(self.row)) {
            to[..px].iter_mut().for_each(|v| *v = 0.0);
            to[px..px + g.w].copy_from_slice(from);
            to[px + g.w..].iter_mut().for_each(|v| *v = 0.0);
        }
    }
}
