//! Convolution and the gradient of its image in strips, for processors: which strips, and the text of one step (strips.wgsl).

use super::geometry::Geometry;
use super::window::{Reads, Window};
use crate::device::choices::{CONV_ROWS, CONV_STRIP, Choices};
use crate::error::Result;
use crate::graph::LaunchCtx;
use crate::ops::matmul::{BLOCK, lanes_share};
use std::collections::HashMap;
use std::fmt::Write;

/// Channels that a lane owns at most.
const MOST_ROWS: usize = 16;
/// Sums that a lane holds at most: they lie in the first cache, not in registers, whatever their number.
const MOST_SUMS: usize = 192;
/// Neighbours that a step reads at most: a wide kernel over many steps would make a long text.
const MOST_NEIGHBOURS: isize = 40;
/// What one load costs, in products.
const LOAD: usize = 100;

/// Rows of blocks that cut `count` evenly, none longer than `most`.
pub(super) fn even(count: usize, most: usize) -> usize {
    count.div_ceil(count.div_ceil(most))
}

/// One direction of a convolution: from planes of a `source` to planes of a result.
#[derive(Clone, Copy, Debug)]
struct Flow {
    grad: bool,
    /// Channels of a group, height and width.
    from: [usize; 3],
    to: [usize; 3],
    /// Across.
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
}

/// How a lane works: its part of the result, and what it reads for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strips {
    flow: Flow,
    rows: usize,
    strip: usize,
    /// Channels of a step.
    channels: usize,
    window: Window,
}

impl Flow {
    fn of(g: &Geometry, grad: bool) -> Flow {
        let (x, y) = ([g.cg, g.h, g.w], [g.og, g.oh, g.ow]);
        let (from, to) = if grad { (y, x) } else { (x, y) };
        Flow { grad, from, to, kernel: g.kw, stride: g.stride[1], padding: g.padding[1], dilation: g.dilation[1] }
    }

    /// From one column of a vector to the next.
    fn step(&self) -> usize {
        if self.grad { self.stride } else { 1 }
    }

    /// The column that vector `n` of a strip begins with.
    fn column(&self, n: usize, strip: usize) -> usize {
        let span = strip / 4 / self.step();
        n / span + self.step() * 4 * (n % span)
    }

    /// The neighbour of x that column `column` of a strip reads at step `kx`, where there is one.
    fn neighbour(&self, column: usize, kx: usize) -> Option<isize> {
        let (column, kx) = (column as isize, (kx * self.dilation) as isize);
        let (stride, padding) = (self.stride as isize, self.padding as isize);
        if !self.grad {
            return Some(column * stride + kx - padding);
        }
        let t = column + padding - kx;
        (t.rem_euclid(stride) == 0).then(|| t.div_euclid(stride))
    }

    /// The neighbours of x that one vector reads at step `kx`: the first, and from one to the next.
    fn four(&self, n: usize, kx: usize, strip: usize) -> Option<(isize, isize)> {
        let first = self.neighbour(self.column(n, strip), kx)?;
        Some((first, if self.grad { 1 } else { self.stride as isize }))
    }

    fn window(&self, strip: usize, reads: Reads) -> Option<Window> {
        let fours = (0..strip / 4).flat_map(|n| (0..self.kernel).filter_map(move |kx| self.four(n, kx, strip)));
        let (first, last) = fours.fold((isize::MAX, isize::MIN), |(a, b), (f, step)| (a.min(f), b.max(f + 3 * step)));
        (first <= last).then_some(Window { reads, first, last })
    }
}

impl Strips {
    /// The strips of that direction; none where another kernel must do it. Follows from one image, whatever their number.
    pub fn of(g: &Geometry, grad: bool, aligned: bool, choices: &Choices) -> Option<Strips> {
        let flow = Flow::of(g, grad);
        if grad && g.stride[0] > 1 && g.dilation[0] > 1 {
            return None;
        }
        let reads = Reads::of(aligned, flow.from[2], flow.from.iter().product::<usize>() * g.groups);
        let most = choices.number(&CONV_ROWS, &g.key(grad), MOST_ROWS, |n| n == MOST_ROWS || even(flow.to[0], n) != even(flow.to[0], MOST_ROWS));
        let rows = even(flow.to[0], most);
        let channels = if flow.kernel < 3 { (4 / flow.kernel).min(flow.from[0]) } else { 1 };
        let cost = |w: &Window, strip: usize| {
            let loads = channels * w.reads.loads(w.first, w.last) + rows.div_ceil(8) * (channels * flow.kernel).div_ceil(4);
            (loads * LOAD + rows * strip * channels * flow.kernel) * flow.to[2].div_ceil(strip)
        };
        let strips = |n: usize| {
            let strip = 4 * n * flow.step();
            let window = flow.window(strip, reads)?;
            let window = if strip < flow.to[2] { window } else { window.within(flow.from[2])? };
            let fits = window.last - window.first < MOST_NEIGHBOURS && (rows * strip <= MOST_SUMS || strip == 4);
            fits.then_some(Strips { flow, rows, strip, channels, window })
        };
        let rule = (1..=8).filter(|&n| strips(n).is_some()).min_by_key(|&n| strips(n).map(|s| cost(&s.window, s.strip)))?;
        strips(choices.number(&CONV_STRIP, &g.key(grad), rule, |n| strips(n).is_some()))
    }

    /// Channels whose terms are summed before they join the totals.
    fn block(&self, g: &Geometry) -> usize {
        (BLOCK / (self.channels * self.flow.kernel * g.kh)).max(1) * self.channels
    }

    /// How many times the loops of a lane turn, their ends among them.
    pub fn turns(&self, g: &Geometry) -> usize {
        let from = self.flow.from[0];
        from.div_ceil(self.channels) * (g.kh + 2) + 3 * from.div_ceil(self.block(g))
    }

    /// Vectors of columns.
    fn vectors(&self) -> usize {
        self.strip / 4
    }

    /// Room for the rows of a block in the packed weight: whole subgroups.
    fn room(&self) -> usize {
        self.rows.next_multiple_of(8)
    }

    /// Vectors of the packed weight that hold one row's part of a step.
    fn taps(&self) -> usize {
        (self.channels * self.flow.kernel).div_ceil(4)
    }

    fn step(&self, shares: bool, pads_rows: bool, pads_columns: bool) -> String {
        let (f, w) = (self.flow, self.window);
        let mut out = String::new();
        for c in 0..self.channels {
            let partial = !f.from[0].is_multiple_of(self.channels) && c > 0;
            let row = match (pads_rows, partial) {
                (_, true) => {
                    let _ = writeln!(out, "    let row{c} = select(0u, row, channel + {c}u < u[0].z);");
                    Some(format!("vec4<u32>(row{c})"))
                }
                (true, false) => Some("vec4<u32>(row)".to_string()),
                (false, false) => None,
            };
            let mask = |n: usize| match (&row, pads_columns) {
                (Some(r), true) => Some(format!("mask[{n}] & {r}")),
                (Some(r), false) => Some(r.clone()),
                (None, true) => Some(format!("mask[{n}]")),
                (None, false) => None,
            };
            let at = if c == 0 { "at".to_string() } else { format!("at + {c}u * u[0].w") };
            out += &w.read("x", &format!("x{c}_"), &at, "limit", |n| mask(n).map(|m| format!("({m})")));
        }
        // The vectors of neighbours, each made once.
        let mut made: HashMap<(usize, isize, isize), String> = HashMap::new();
        for c in 0..self.channels {
            for (n, kx) in (0..self.vectors()).flat_map(|n| (0..f.kernel).map(move |kx| (n, kx))) {
                let Some((first, step)) = f.four(n, kx, self.strip) else { continue };
                // What is all padding adds nothing.
                let Some(four) = w.four(&format!("x{c}_"), first, step) else { continue };
                let count = made.len();
                made.entry((c, first, step)).or_insert_with(|| {
                    let _ = writeln!(out, "    let v{count} = {four};");
                    format!("v{count}")
                });
            }
        }
        let room = self.room();
        // Four steps of one row of the weight: of a packed one a vector, else as they lie.
        let four = |q: usize, packed: String, own: usize| {
            if f.grad {
                return packed;
            }
            let tap = |n: usize| match (n / f.kernel, n % f.kernel) {
                (c, _) if c >= self.channels => "0.0".to_string(),
                (0, kx) => format!("w[p + own[{own}] + {kx}u]"),
                (c, kx) => {
                    let at = format!("p + own[{own}] + {c}u * u[3].x * u[5].z + {kx}u");
                    let there = format!("channel + {c}u < u[0].z");
                    format!("select(0.0, w[select(p, {at}, {there})], {there})")
                }
            };
            format!("vec4<f32>({})", [0, 1, 2, 3].map(|n| tap(q * 4 + n)).join(", "))
        };
        if shares {
            for q in 0..self.taps() {
                for eight in 0..self.rows.div_ceil(8) {
                    let value = four(q, format!("w[p + lane + {}u]", q * room + eight * 8), eight);
                    let _ = writeln!(out, "    let w{eight}_{q} = {value};");
                }
            }
        }
        for r in 0..self.rows {
            for q in 0..self.taps() {
                let value = if shares { format!("subgroupBroadcast(w{}_{q}, {}u)", r / 8, r % 8) } else { four(q, format!("w[p + {}u]", q * room + r), r) };
                let _ = writeln!(out, "    let r{r}_{q} = {value};");
            }
            for n in 0..self.vectors() {
                let mut terms = Vec::new();
                for (c, kx) in (0..self.channels).flat_map(|c| (0..f.kernel).map(move |kx| (c, kx))) {
                    let Some((first, step)) = f.four(n, kx, self.strip) else { continue };
                    let Some(four) = made.get(&(c, first, step)) else { continue };
                    let tap = c * f.kernel + kx;
                    terms.push(format!("r{r}_{}.{} * {}", tap / 4, ["x", "y", "z", "w"][tap % 4], four));
                }
                if !terms.is_empty() {
                    let _ = writeln!(out, "    s[{}] += {};", r * self.vectors() + n, terms.join(" + "));
                }
            }
        }
        out
    }

    pub fn launch(&self, ctx: &mut LaunchCtx<'_>, g: &Geometry) -> Result<()> {
        let f = self.flow;
        let ([from, height, width], [to, rows_to, columns_to]) = (f.from, f.to);
        let (slot_x, slot_w) = (ctx.inputs[0].slot, ctx.inputs[1].slot);
        let (blocks, steps, taps, room) = (to.div_ceil(self.rows), from.div_ceil(self.channels), self.taps(), self.room());
        let units = g.models * g.groups * blocks * steps * g.kh;
        // The gradient meets the weight turned round, which a small copy makes short to read. Forward it is read as it lies: rows behind it keep one launch.
        let (weight, element) = if f.grad { (ctx.scratch(units * taps * room * 16), "vec4<f32>") } else { (slot_w, "f32") };
        if f.grad {
            let call = ctx.call("pack_strips")?.set("ROWS", format!("{}u", self.rows)).set("ROOM", format!("{room}u"));
            let call = call.set("CHANNELS", format!("{}u", self.channels)).read("w", slot_w, "f32").write("packed", weight, "vec4<f32>");
            let call = call.u32(units * room).offset(1).u32s(&[to, from, g.taps(), g.k(), g.og * g.k(), g.kh, f.kernel, blocks, taps, 0]);
            call.grid_linear((units * room).div_ceil(64))?;
        }

        let phases = if f.grad { g.stride[0] } else { 1 };
        let (down, strips) = (rows_to.div_ceil(phases), columns_to.div_ceil(self.strip));
        let tiles = (g.n * down * strips).div_ceil(8);
        let fours = f.step() == 1 && columns_to.is_multiple_of(4);
        let vectors = self.vectors();
        let block = self.block(g);
        let whole = f.from[0] <= block;
        let mut flush = String::new();
        for i in 0..self.rows * vectors {
            let _ = if whole { writeln!(flush, "    t[{i}] = s[{i}];") } else { writeln!(flush, "    t[{i}] += s[{i}];\n    s[{i}] = vec4<f32>();") };
        }
        // One row's stores in a loop: they are long where a software adapter compiles them. What was stored makes room for what comes after it.
        let mut finish = String::from("    for (var r = 0u; r < min(ROWS, rows); r++) {\n");
        for n in 0..vectors {
            let _ = writeln!(finish, "        store(first + r * u[0].y, column + {}u, t[{n}]);", f.column(n, self.strip));
        }
        for i in vectors..self.rows * vectors {
            let _ = writeln!(finish, "        t[{}] = t[{i}];", i - vectors);
        }
        finish += "    }\n";
        let pads = |d: usize| f.grad || g.padding[d] > 0;
        // A strip that is a whole row knows which columns are padding.
        let pads_columns = pads(1) && strips > 1;
        let shares = lanes_share(ctx.caps);
        let reads = self.window.reads;
        let mut call = ctx.call("strips")?.set("GRAD", f.grad).set("FOURS", fours).set("SHARES", shares);
        for (name, value) in [
            ("ROWS", self.rows),
            ("STRIP", self.strip),
            ("VECTORS", vectors),
            ("SPAN", vectors / f.step()),
            ("STEP", f.step()),
            ("CHANNELS", self.channels),
            ("BLOCK", block),
            ("ACROSS", f.stride),
            ("MASKS", self.window.vectors()),
        ] {
            call = call.set(name, format!("{value}u"));
        }
        let masks: Vec<String> = self.window.masks("column", "u[1].y").iter().enumerate().map(|(n, m)| format!("    mask[{n}] = {m};")).collect();
        call = call.hook("columns", &masks.join("\n")).hook("flush", &flush).hook("finish", &finish);
        call = call.hook("step", &self.step(shares, pads(0), pads_columns));
        if whole {
            call = call.hook("terms", "    add(0u, u[0].z, w);\n    flush();");
        }
        call = call.hook("limit", &format!("    return {};", reads.limit("u[5].x", "u[5].y")));
        call = call.read("x", slot_x, reads.element()).read("w", weight, element);
        call = call.u32s(&[to, rows_to * columns_to, from, height * width, height, width, rows_to, columns_to]);
        call = call.u32s(&[g.n, g.groups, g.models, strips, g.kh, tiles, blocks, phases, down, g.stride[0], g.padding[0], g.dilation[0]]);
        call = call.offset(0).u32s(&[g.models * g.n * g.groups * from * height * width, if f.grad { taps * room } else { f.kernel }]);
        call = if f.grad { call.u32(0) } else { call.offset(1) };
        call = call.flops(2 * g.models as u64 * g.work() as u64);
        call.with_epilogue_of(fours)?.grid_linear(tiles * phases * blocks * g.groups * g.models)
    }
}
