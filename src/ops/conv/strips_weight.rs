//! The gradient of a convolution's weight in strips, for processors: which strips, and the text of one step (strips_weight.wgsl).

use super::geometry::Geometry;
use super::strips::even;
use super::window::{Reads, Window};
use super::gpu::weight_parts;
use crate::device::choices::{Choices, WEIGHT_STRIP};
use crate::error::Result;
use crate::graph::LaunchCtx;
use crate::ops::matmul::{BLOCK, lanes_share, split, sum_along, sum_splits};
use std::fmt::Write;

/// Channels of g that a lane owns at most: four subgroups of eight read them.
const MOST_ROWS: usize = 32;
/// Sums that a lane holds at most.
const MOST_SUMS: usize = 96;
/// Products of a step at most: its text is as long.
const MOST_PRODUCTS: usize = 1024;
/// Neighbours that a step reads at most.
const MOST_NEIGHBOURS: isize = 40;
/// Turns of loops in a row at most: a part of a sum has one row at least, and llvmpipe ends loops after 65535.
const MOST_TURNS: usize = 50_000;

/// How a lane works: its part of the result, and what it reads for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightStrips {
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    rows: usize,
    /// Positions of a step, full steps of a row, positions of its last step.
    strip: usize,
    full: usize,
    rest: usize,
    /// Of a row of x.
    width: usize,
    reads_x: Reads,
    reads_g: Reads,
}

impl WeightStrips {
    /// The strips of that geometry; none where another kernel must do it. Follows from one image, whatever their number.
    pub fn of(g: &Geometry, aligned_x: bool, aligned_g: bool, choices: &Choices) -> Option<WeightStrips> {
        let rows = even(g.og, (MOST_SUMS / g.kw).clamp(1, MOST_ROWS));
        let reads_x = Reads::of(aligned_x, g.w, g.image());
        let reads_g = Reads::of(aligned_g, g.ow, g.result());
        let base = WeightStrips {
            kernel: g.kw,
            stride: g.stride[1],
            padding: g.padding[1],
            dilation: g.dilation[1],
            rows,
            strip: 0,
            full: 0,
            rest: 0,
            width: g.w,
            reads_x,
            reads_g,
        };
        let cut = |strip: usize| WeightStrips { strip, full: g.ow / strip, rest: g.ow % strip, ..base };
        // By the options of WEIGHT_STRIP.
        let options = [4, 8, 12, 16, g.ow.min(16)].map(cut);
        let can = |s: &WeightStrips| s.x(s.strip).last - s.x(s.strip).first < MOST_NEIGHBOURS && s.turns() <= MOST_TURNS && s.sees_any();
        let fits = |s: &WeightStrips| {
            let ends = s.full > 0 && (s.strip.is_multiple_of(4) || s.is_whole());
            ends && can(s) && rows * g.kw * s.strip <= MOST_PRODUCTS.max(4 * rows * g.kw)
        };
        let cost = |s: &WeightStrips| s.full * s.loads(s.strip) + if s.rest > 0 { s.loads(s.rest) } else { 0 };
        let rule = (0..options.len()).filter(|&o| fits(&options[o])).min_by_key(|&o| cost(&options[o]));
        let chosen = rule.map(|rule| choices.pick(&WEIGHT_STRIP, &g.key(false), Some(rule), |o| fits(&options[o])).unwrap_or(rule));
        chosen.map(|o| options[o]).or_else(|| Some(cut(g.ow)).filter(|s| g.ow < 4 && can(s)))
    }

    fn neighbour(&self, position: usize, kx: usize) -> isize {
        (position * self.stride + kx * self.dilation) as isize - self.padding as isize
    }

    /// Whether one step takes a whole row.
    fn is_whole(&self) -> bool {
        self.full == 1 && self.rest == 0
    }

    /// How many times loops turn in a row, and around it, their ends among them.
    fn turns(&self) -> usize {
        if self.is_whole() { 4 } else { self.full + 2 * self.full.div_ceil(self.steps()) + 6 }
    }

    /// Steps whose terms are summed before they join the totals, where rows are longer than such a block.
    fn steps(&self) -> usize {
        (BLOCK / self.strip).max(1)
    }

    /// A step of a whole row has no masks, so it must read something of x.
    fn sees_any(&self) -> bool {
        !self.is_whole() || self.window(self.strip).within(self.width).is_some()
    }

    fn window(&self, positions: usize) -> Window {
        Window { reads: self.reads_x, first: self.neighbour(0, 0), last: self.neighbour(positions - 1, self.kernel - 1) }
    }

    fn x(&self, positions: usize) -> Window {
        let window = self.window(positions);
        // A step that is a whole row knows which columns are padding.
        if self.is_whole() { window.within(self.width).unwrap_or(window) } else { window }
    }

    fn g(&self, positions: usize) -> Window {
        Window { reads: self.reads_g, first: 0, last: positions as isize - 1 }
    }

    fn loads(&self, positions: usize) -> usize {
        let (x, g) = (self.x(positions), self.g(positions));
        x.reads.loads(x.first, x.last) + self.rows.div_ceil(8) * g.reads.loads(g.first, g.last)
    }

    /// `along`: whether lanes sum what they read of g, too.
    fn step(&self, positions: usize, shares: bool, along: bool, pads_rows: bool, pads_columns: bool) -> String {
        let (x, g) = (self.x(positions), self.g(positions));
        let mut out = String::new();
        if pads_columns {
            for (n, m) in x.masks("column", "u[1].y").iter().enumerate() {
                let _ = writeln!(out, "    let m{n} = {m};");
            }
        }
        let mask = |n: usize| match (pads_rows, pads_columns) {
            (true, true) => Some(format!("(m{n} & vec4<u32>(row))")),
            (true, false) => Some("vec4<u32>(row)".to_string()),
            (false, true) => Some(format!("m{n}")),
            (false, false) => None,
        };
        out += &x.read("x", "x", "at", "last.y", mask);
        if shares {
            for (e, lane) in ["x", "y", "z", "w"].iter().enumerate().take(self.rows.div_ceil(8)) {
                out += &g.read("g", &format!("g{e}_"), &format!("first + own.{lane}"), "last.x", |_| None);
                if along {
                    let terms: Vec<String> = (0..positions).filter_map(|p| g.element(&format!("g{e}_"), p as isize)).collect();
                    let _ = writeln!(out, "    own_s.{lane} += {};", terms.join(" + "));
                }
            }
        }
        for r in 0..self.rows {
            let name = format!("r{r}_");
            if shares {
                for n in 0..g.vectors() {
                    let _ = writeln!(out, "    let {name}{n} = subgroupBroadcast(g{}_{n}, {}u);", r / 8, r % 8);
                }
            } else {
                out += &g.read("g", &name, &format!("first + min({r}u, channels - 1u) * u[0].y"), "last.x", |_| None);
            }
            for kx in 0..self.kernel {
                let term = |p: usize| Some(format!("{} * {}", g.element(&name, p as isize)?, x.element("x", self.neighbour(p, kx))?));
                let terms: Vec<String> = (0..positions).filter_map(term).collect();
                if !terms.is_empty() {
                    let _ = writeln!(out, "    s[{}] += {};", r * self.kernel + kx, terms.join(" + "));
                }
            }
        }
        out
    }

    pub fn launch(&self, ctx: &mut LaunchCtx<'_>, g: &Geometry) -> Result<()> {
        let count = g.models * g.weight();
        let (slot_x, slot_g) = (ctx.inputs[0].slot, ctx.inputs[1].slot);
        let (tiles, blocks) = ((g.cg * g.kh).div_ceil(8), g.og.div_ceil(self.rows));
        let rows = g.n * g.oh;
        let (_, terms) = weight_parts(&ctx.caps.choices, g, split(tiles * blocks * g.groups, rows * g.ow));
        // A turn may be a short row: then fewer of them than the terms of a part would make.
        let each = terms.div_ceil(g.ow).min(ctx.caps.loop_turns().unwrap_or(usize::MAX) / self.turns());
        let parts = rows.div_ceil(each);
        let along = sum_along(ctx);
        let all = count + along.map_or(0, |(_, n)| n);
        let scratch = (parts > 1).then(|| ctx.scratch(parts * all * 4));
        let sums = self.rows * self.kernel;
        let (mut flush, mut finish) = (String::new(), String::new());
        for i in 0..sums {
            let _ = writeln!(flush, "    t[{i}] += s[{i}];\n    s[{i}] = 0.0;");
        }
        // One channel's stores in a loop, as in strips.
        finish += "    for (var r = 0u; r < min(ROWS, rows); r++) {\n";
        for kx in 0..self.kernel {
            let _ = writeln!(finish, "        epilogue(first + r * u[0].z * u[3].x * u[6].y + {kx}u, t[{kx}]);");
        }
        for i in self.kernel..sums {
            let _ = writeln!(finish, "        t[{}] = t[{i}];", i - self.kernel);
        }
        finish += "    }\n";
        let shares = lanes_share(ctx.caps);
        let (pads_rows, pads_columns) = (g.padding[0] > 0, g.padding[1] > 0 && !self.is_whole());
        let mut call = ctx.call("strips_weight")?;
        if let Some((slot, _)) = along {
            flush += "    own_t += own_s;\n    own_s = vec4<f32>();\n";
            // In a part of a split sum, they lie behind the others.
            let to = if scratch.is_some() { "y[part * u[6].x + u[6].x - u[6].z + first + 8u * e]" } else { "sums[first + 8u * e]" };
            let body = "    for (var e = 0u; e < (ROWS + 7u) / 8u; e++) {\n        if lane + 8u * e < min(ROWS, channels) {";
            call = call.hook("finish_along", &format!("{body}\n            {to} = own_t[e];\n        }}\n    }}"));
            if scratch.is_none() {
                call = call.write("sums", slot, "f32");
            }
        }
        let (block, steps) = ((BLOCK / g.ow).max(1), self.steps());
        let numbers = [("ROWS", self.rows), ("SUMS", sums), ("STRIP", self.strip), ("REST", self.rest), ("ACROSS", self.stride), ("BLOCK", block), ("STEPS", steps)];
        for (name, value) in numbers {
            call = call.set(name, format!("{value}u"));
        }
        if self.is_whole() {
            call = call.hook("steps", "    step(at, 0u, row, first, own, channels, last);");
        } else if self.full > steps {
            let each = "add(at, row, first, own, channels, last, n, min(u[2].w, n + STEPS));\n        flush();";
            call = call.hook("steps", &format!("    for (var n = 0u; n < u[2].w; n += STEPS) {{\n        {each}\n    }}"));
        }
        call = call.hook("step", &self.step(self.strip, shares, along.is_some(), pads_rows, pads_columns)).hook("flush", &flush).hook("finish", &finish);
        if self.rest > 0 {
            call = call.hook("rest", &self.step(self.rest, shares, along.is_some(), pads_rows, pads_columns));
        }
        let limit = |r: Reads, offset: &str, elements: &str| r.limit(offset, elements);
        let limits = format!("vec2<u32>({}, {})", limit(self.reads_g, "u[5].x", "u[5].z"), limit(self.reads_x, "u[5].y", "u[5].w"));
        call = call.hook("limits", &format!("    return {limits};"));
        call = call.read("g", slot_g, self.reads_g.element()).read("x", slot_x, self.reads_x.element());
        call = call.u32s(&[g.og, g.positions(), g.cg, g.h * g.w, g.h, g.w, g.oh, g.ow, g.n, g.groups, g.models, self.full]);
        call = call.u32s(&[g.kh, tiles, blocks, parts, each, g.stride[0], g.padding[0], g.dilation[0]]).offset(1).offset(0);
        call = call.u32s(&[g.models * g.n * g.result(), g.models * g.n * g.image(), all, g.kw, all - count, 0]);
        call = call.flops(2 * g.models as u64 * g.work() as u64);
        let groups = tiles * blocks * parts * g.groups * g.models;
        let Some(scratch) = scratch else { return call.with_epilogue()?.grid_linear(groups) };
        call.write("y", scratch, "f32").grid_linear(groups)?;
        sum_splits(ctx, scratch, count, parts)
    }
}
