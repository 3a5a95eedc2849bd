//! The launches of a matrix product.

use super::coop::{CoopTile, Halves};
use super::lanes::Lanes;
use super::tiles::Tile;
use super::{Dims, leading};
use crate::device::choices::{Choice, Choices, MATMUL_PARTS};
use crate::device::{Caps, Kind, Slot};
use crate::error::Result;
use crate::graph::{Call, LaunchCtx, MatmulPrecision};
use crate::tensor::{DType, Layout};

/// Rows and columns that one invocation (rows) and one workgroup (columns) own in matmul.wgsl.
const ROWS: usize = 8;
/// Terms between two visits to the total, as BLOCK in matmul.wgsl; also the unit by which k is split.
pub(in crate::ops) const BLOCK: usize = 256;

/// How the kernel reads four rows (of a) or columns (of b) by four steps of k.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reads {
    /// One float at a time, at any strides.
    Single,
    /// Four of k at once.
    AlongK,
    /// Four rows or columns at once.
    Across,
}

impl Reads {
    /// The element type of the buffer's array.
    fn element(self) -> &'static str {
        if self == Reads::Single { "f32" } else { "vec4<f32>" }
    }
}

/// The widest reads that the operand's layout allows. `k` and `across` are the sizes; the strides are those of k and of rows (or columns).
/// Depends on the model's sizes and on how it lies, never on a batch that is a leading dimension, so that a last batch of another size needs no other kernel: a
/// lone column (`[k, 1]`, where k may be the batch) is not read along k, though it could be.
fn reads(aligned: bool, layout: &Layout, k: (usize, isize), across: (usize, isize)) -> Reads {
    let fours = |d: (usize, isize)| d.0.is_multiple_of(4) && d.1 == 1;
    let lead = leading(layout);
    let even = aligned && lead.shape.iter().zip(lead.strides()).all(|(&n, &s)| n == 1 || s % 4 == 0);
    if even && fours(k) && across.1 % 4 == 0 {
        Reads::AlongK
    } else if even && fours(across) && k.1 % 4 == 0 {
        Reads::Across
    } else {
        Reads::Single
    }
}

/// How the operands of a product are read, each told with whether it is aligned.
fn both_reads((a, a_aligned): (&Layout, bool), (b, b_aligned): (&Layout, bool)) -> [Reads; 2] {
    let Dims { m, k, n, .. } = Dims::of(&a.shape, &b.shape);
    let lead = a.shape.rank() - 2;
    let (a_row, a_col, b_row, b_col) = (a.strides()[lead], a.strides()[lead + 1], b.strides()[lead], b.strides()[lead + 1]);
    [reads(a_aligned, a, (k, a_col), (m, a_row)), reads(b_aligned, b, (k, b_row), (n, b_col))]
}

/// Put the bodies in that read operand `name` in fours. `size` and `step` are the words that hold the size across and the stride of k.
fn widen<'c, 'a>(call: Call<'c, 'a>, name: &str, reads: Reads, size: &str, step: &str) -> Call<'c, 'a> {
    let places = if name == "a" { "rows_at" } else { "columns_at" };
    match reads {
        Reads::Single => call,
        Reads::AlongK => {
            let of = |lane: &str| format!("{name}[(p.{lane} + k) >> 2u]");
            let block = format!("mat4x4<f32>({}, {}, {}, {})", of("x"), of("y"), of("z"), of("w"));
            // k is a multiple of four: there is no rest of single steps, only a body that must be valid.
            let block = if name == "a" { block } else { format!("transpose({block})") };
            call.hook(&format!("{name}4"), &format!("    return {block};")).hook(&format!("{name}1"), &format!("    return {name}4(p, k)[0];"))
        }
        Reads::Across => {
            // Four at a time from a multiple of four: past the end, the last four are read again.
            let first = if name == "a" { "row" } else { "col" };
            let one = |k: &str| format!("{name}[(p.x + {k} * {step}) >> 2u]");
            let block = format!("mat4x4<f32>({}, {}, {}, {})", one("k"), one("(k + 1u)"), one("(k + 2u)"), one("(k + 3u)"));
            let block = if name == "a" { format!("transpose({block})") } else { block };
            call.hook(places, &format!("    return vec4<u32>(base + min({first}, {size} - 4u));"))
                .hook(&format!("{name}1"), &format!("    return {};", one("k")))
                .hook(&format!("{name}4"), &format!("    return {block};"))
        }
    }
}

/// Whether a workgroup's eight lanes along x are one subgroup, so that they can read for each other. So on lavapipe, where loads cost more than arithmetic.
pub(in crate::ops) fn lanes_share(caps: &Caps) -> bool {
    caps.kind == Kind::Software && caps.subgroups == Some((8, 8))
}

/// Batch dimensions that both operands walk evenly, joined: size, stride in a, stride in b; outermost first.
fn batch_dims(a: &Layout, b: &Layout) -> Vec<(usize, isize, isize)> {
    let mut out: Vec<(usize, isize, isize)> = Vec::new();
    for ((&size, &sa), &sb) in a.shape.iter().zip(a.strides()).zip(b.strides()) {
        if size == 1 {
            continue;
        }
        match out.last_mut() {
            Some((n, ta, tb)) if *ta == sa * size as isize && *tb == sb * size as isize => (*n, *ta, *tb) = (*n * size, sa, sb),
            _ => out.push((size, sa, sb)),
        }
    }
    out
}

/// Terms of a sum that one invocation on a processor makes at most. Mesa's llvmpipe ends every loop, silently, once the loops of an invocation made 65535
/// iterations, and one iteration takes four terms.
const LONGEST: usize = 1 << 17;

/// Into how many parts a sum of `k` terms is split, and the terms of one, where that many tiles hold the results: a long sum with few results
/// would leave cores idle. Decided by the shape of one model's result alone.
pub(in crate::ops) fn split(tiles: usize, k: usize) -> (usize, usize) {
    /// Workgroups that keep a processor busy: more only add to the second pass.
    const BUSY: usize = 32;
    if (2 * tiles >= BUSY || k < 4 * BLOCK) && k <= LONGEST {
        return (1, k);
    }
    let parts = (BUSY / tiles).min(k / BLOCK).max(k.div_ceil(LONGEST));
    let each = k.div_ceil(parts).next_multiple_of(BLOCK);
    (k.div_ceil(each), each)
}

/// The least terms of a part on hardware.
const LEAST: usize = 128;

/// The same for hardware, which has more to keep busy and starts a second launch at little cost.
pub(in crate::ops) fn split_fine(tiles: usize, k: usize) -> (usize, usize) {
    if tiles >= 64 || k < 2 * LEAST {
        return (1, k);
    }
    let parts = 64usize.div_ceil(tiles).clamp(2, k / LEAST);
    let each = k.div_ceil(parts).next_multiple_of(LEAST);
    (k.div_ceil(each), each)
}

/// Parts of a sum of `terms`, where others were chosen for `key` than the rule's: whole units of terms, and the terms of one.
pub(in crate::ops) fn chosen_parts(choices: &Choices, (what, key): (&'static Choice, &[usize]), terms: usize, unit: usize, rule: (usize, usize)) -> (usize, usize) {
    match choices.number(what, key, rule.0, |p| (p == 1 || p * unit <= terms) && terms.div_ceil(p) <= LONGEST) {
        parts if parts == rule.0 => rule,
        1 => (1, terms),
        parts => {
            let each = terms.div_ceil(parts).next_multiple_of(unit);
            (terms.div_ceil(each), each)
        }
    }
}

/// Parts of a product's terms, where others were chosen than the rule's, and the terms of one.
pub(super) fn product_parts(choices: &Choices, [m, k, n]: [usize; 3], unit: usize, rule: (usize, usize)) -> (usize, usize) {
    chosen_parts(choices, (&MATMUL_PARTS, &[m, k, n]), k, unit, rule)
}

/// Which kernels of matrix products and convolutions fit a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Family {
    /// Hardware: tiles in workgroup memory.
    Tiles,
    /// A processor whose lanes read for each other.
    Lanes,
    /// A processor of which only that is known which every device has: blocks in registers.
    Blocks,
}

impl Family {
    pub fn of(caps: &Caps) -> Family {
        match caps.kind {
            Kind::Software if lanes_share(caps) => Family::Lanes,
            Kind::Software => Family::Blocks,
            Kind::Discrete | Kind::Integrated | Kind::Other => Family::Tiles,
        }
    }
}

/// One operand of a product: which input of the launch it is, its strides from one row (of b: column) and from one term to the next, and how it is read.
#[derive(Clone, Copy, Debug)]
struct Side {
    input: usize,
    across: isize,
    along: isize,
    reads: Reads,
}

impl Side {
    /// Whether neighbours in memory are those along k, so that neighbouring invocations bring them.
    fn lies_along(&self) -> bool {
        self.reads == Reads::AlongK || self.reads == Reads::Single && self.along == 1
    }
}

/// A product as kernels see it.
#[derive(Debug)]
struct Product {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    a: Side,
    b: Side,
    dims: Vec<(usize, isize, isize)>,
}

impl Product {
    fn of(ctx: &LaunchCtx<'_>, (i, a): (usize, &Layout), (j, b): (usize, &Layout)) -> Product {
        let Dims { batch, m, k, n } = Dims::of(&a.shape, &b.shape);
        let lead = a.shape.rank() - 2;
        let (sa, sb) = (a.strides(), b.strides());
        let (a_row, a_col, b_row, b_col) = (sa[lead], sa[lead + 1], sb[lead], sb[lead + 1]);
        let [read_a, read_b] = both_reads((a, ctx.inputs[i].aligned), (b, ctx.inputs[j].aligned));
        let a_side = Side { input: i, across: a_row, along: a_col, reads: read_a };
        let b_side = Side { input: j, across: b_col, along: b_row, reads: read_b };
        Product { batch, m, k, n, a: a_side, b: b_side, dims: batch_dims(&leading(a), &leading(b)) }
    }

    fn count(&self) -> usize {
        self.batch * self.m * self.n
    }

    /// The operands and the words that all kernels share: rows and columns as the kernel sees them, in `tiles` of each and `(parts, terms of one)`.
    fn words<'c, 'a>(&self, call: Call<'c, 'a>, turned: bool, tiles: [usize; 2], (parts, each): (usize, usize)) -> Call<'c, 'a> {
        let (rows, columns, sizes) = if turned { (self.b, self.a, [self.n, self.m]) } else { (self.a, self.b, [self.m, self.n]) };
        let mut call = call.read_input("a", rows.input, rows.reads.element()).read_input("b", columns.input, columns.reads.element());
        call = call.u32s(&sizes).u32(self.k).offset(rows.input).offset(columns.input);
        call = call.stride(rows.across).stride(rows.along).stride(columns.along).stride(columns.across);
        call = call.u32s(&tiles).u32s(&[parts, each, self.dims.len(), self.count(), self.batch]);
        for d in 0..6 {
            let (size, sa, sb) = self.dims.get(d).copied().unwrap_or((1, 0, 0));
            let (sa, sb) = if turned { (sb, sa) } else { (sa, sb) };
            call = call.u32(size).stride(sa).stride(sb).u32(0);
        }
        call.flops(2 * (self.count() * self.k) as u64)
    }

    /// Put the bodies in that read operands in fours, for kernels that read blocks of four by four of them (quads.wgsl).
    fn widen_tiles<'c, 'a>(&self, mut call: Call<'c, 'a>) -> Call<'c, 'a> {
        for (name, reads, places, at, size, step) in
            [("a", self.a.reads, "rows_at", "row", "u[0].x", "u[1].z"), ("b", self.b.reads, "columns_at", "col", "u[0].y", "u[1].w")]
        {
            call = match reads {
                Reads::Single => call,
                Reads::AlongK => {
                    let one = |lane: &str| format!("{name}[(p.{lane} + k) >> 2u]");
                    let block = format!("transpose(mat4x4<f32>({}, {}, {}, {}))", one("x"), one("y"), one("z"), one("w"));
                    let body = format!("    if k < end {{\n        return {block};\n    }}\n    return mat4x4<f32>();");
                    // k is a multiple of four: there are no single terms, only a body that must be valid.
                    call.hook(&format!("quad_{name}"), &body).hook(&format!("{name}1"), "    return vec4<f32>();")
                }
                // Four at a time from a multiple of four: past the end, the last four are read again.
                Reads::Across => call
                    .hook(places, &format!("    return vec4<u32>(base + min({at}, {size} - 4u));"))
                    .hook(&format!("{name}1"), &format!("    return {name}[(p.x + k * {step}) >> 2u];")),
            };
        }
        call
    }
}

pub(super) fn launch(ctx: &mut LaunchCtx<'_>, precision: MatmulPrecision) -> Result<()> {
    let (a, b) = (ctx.inputs[0].layout, ctx.inputs[1].layout);
    let halves = match (ctx.inputs[0].meta.dtype, precision) {
        (DType::F16, _) | (_, MatmulPrecision::Medium) => Some(Halves::One),
        (_, MatmulPrecision::High) => Some(Halves::Two),
        (_, MatmulPrecision::Highest) => None,
    };
    if let (Some(coop), Some(halves)) = (ctx.caps.coop, halves) {
        let p = Product::of(ctx, (0, &a), (1, &b));
        // What is smaller than a small matrix or two wastes most of them.
        let fits = p.m.min(p.n) >= coop.edge && p.k >= coop.edge;
        let tile = CoopTile::of(ctx.caps, coop, halves, (p.m, p.n)).filter(|_| fits && p.batch > 0);
        if let Some(tile) = tile {
            return cooperative(ctx, &p, &tile);
        }
    }
    product(ctx, (0, &a), (1, &b))
}

/// Launch the product of two inputs, seen through these layouts: `[batch.., m, k]` and `[batch.., k, n]`. Output 0 is the result.
pub(in crate::ops) fn product(ctx: &mut LaunchCtx<'_>, a: (usize, &Layout), b: (usize, &Layout)) -> Result<()> {
    let p = Product::of(ctx, a, b);
    let count = p.count();
    if count == 0 {
        return Ok(());
    }
    if p.k == 0 {
        // An empty sum: zeros, through the epilogue.
        return ctx.call("map")?.u32(count).with_epilogue()?.grid_linear(count.div_ceil(64));
    }
    match Family::of(ctx.caps) {
        Family::Tiles => tiles(ctx, &p),
        Family::Lanes => lanes(ctx, &p),
        Family::Blocks => blocks(ctx, &p),
    }
}

/// The product in register blocks: matmul.wgsl.
fn blocks(ctx: &mut LaunchCtx<'_>, p: &Product) -> Result<()> {
    let (count, wide) = (p.count(), p.n > 32);
    let split = product_parts(&ctx.caps.choices, [p.m, p.k, p.n], BLOCK, split(p.m.div_ceil(ROWS) * p.n.div_ceil(32), p.k));
    let tiles = [p.m.div_ceil(ROWS), p.n.div_ceil(if wide { 64 } else { 32 })];
    let scratch = (split.0 > 1).then(|| ctx.scratch(split.0 * count * 4));
    let mut call = ctx.call("matmul")?.set("WIDE", wide);
    call = widen(call, "a", p.a.reads, "u[0].x", "u[1].z");
    call = widen(call, "b", p.b.reads, "u[0].y", "u[1].w");
    call = p.words(call, false, tiles, split);
    let groups = p.batch * split.0 * tiles[0] * tiles[1];
    let Some(scratch) = scratch else { return call.with_epilogue()?.grid_linear(groups) };
    call.write("y", scratch, "f32").grid_linear(groups)?;
    sum_splits(ctx, scratch, count, split.0)
}

/// The second pass of a split sum of `count` elements; where the launch makes a sum along the way, that one's elements lie behind them.
pub(in crate::ops) fn sum_splits(ctx: &mut LaunchCtx<'_>, scratch: Slot, count: usize, parts: usize) -> Result<()> {
    let along = sum_along(ctx);
    let all = count + along.map_or(0, |(_, n)| n);
    let mut call = ctx.call("sum_splits")?.read("part", scratch, "f32");
    if let Some((slot, _)) = along {
        let body = "    if i < u[0].z {\n        epilogue(i, v);\n    } else {\n        sums[i - u[0].z] = v;\n    }";
        call = call.hook("put", body).write("sums", slot, "f32");
    }
    call.u32s(&[all, parts, count, 0]).with_epilogue()?.grid_linear(all.div_ceil(64))
}

/// The buffer and the elements of the sum that the planner has this launch make along the way.
pub(in crate::ops) fn sum_along(ctx: &LaunchCtx<'_>) -> Option<(Slot, usize)> {
    ctx.outputs.get(1).and_then(|(slot, meta)| Some(((*slot)?, meta.numel())))
}

/// Whether the product makes the sums of its left operand's rows along the way: where lanes share reads of them, and no sum is split. Units for small matrices,
/// which some precisions take, make none.
pub(super) fn sums_rows(caps: &Caps, a: &(Layout, bool), b: &(Layout, bool)) -> bool {
    if a.0.shape.rank() != 2 || b.0.shape.rank() != 2 || !lanes_share(caps) || caps.coop.is_some() {
        return false;
    }
    let Dims { m, k, n, .. } = Dims::of(&a.0.shape, &b.0.shape);
    let [read_a, read_b] = both_reads((&a.0, a.1), (&b.0, b.1));
    m * k * n > 0 && !Lanes::turned(n) && Lanes::new(read_a, read_b, [m, k, n], &caps.choices).split([m, k, n], &caps.choices).0 == 1
}

/// The product where lanes read for each other: matmul_lanes.wgsl.
fn lanes(ctx: &mut LaunchCtx<'_>, p: &Product) -> Result<()> {
    let (count, turned) = (p.count(), Lanes::turned(p.n));
    // Rows and columns as the kernel sees them.
    let (rows, columns, sizes) = if turned { (p.b, p.a, [p.n, p.m]) } else { (p.a, p.b, [p.m, p.n]) };
    let lanes = Lanes::new(rows.reads, columns.reads, [p.m, p.k, p.n], &ctx.caps.choices);
    let fours = !turned && p.n.is_multiple_of(4);
    let tiles = [sizes[0].div_ceil(lanes.rows()), sizes[1].div_ceil(8 * lanes.columns())];
    let split = product_parts(&ctx.caps.choices, [p.m, p.k, p.n], BLOCK, split(tiles[0] * tiles[1], p.k));
    let scratch = (split.0 > 1).then(|| ctx.scratch(split.0 * count * 4));
    let along = sum_along(ctx);
    let mut call = ctx.call("matmul_lanes")?.set("ROWS", format!("{}u", lanes.rows())).set("COLUMNS", format!("{}u", lanes.columns()));
    call = call.set("FOURS", fours).hook("multiply", &lanes.multiply(p.k, along.is_some()));
    if columns.reads == Reads::Across {
        // Four at a time from a multiple of four: past the end, the last four are read again.
        call = call.hook("columns_at", "    return vec4<u32>(base + min(col, u[0].y - 4u));");
    }
    let steps = if turned { [1, p.n, 0, 0] } else { [p.n, 1, 0, 0] };
    call = p.words(call, turned, tiles, split).u32s(&steps);
    if let Some((slot, _)) = along {
        call = call.write("sums", slot, "f32");
    }
    let groups = p.batch * split.0 * tiles[0] * tiles[1];
    let Some(scratch) = scratch else { return call.with_epilogue_of(fours)?.grid_linear(groups) };
    call.write_of(fours, "y", scratch).grid_linear(groups)?;
    sum_splits(ctx, scratch, count, split.0)
}

/// The product in tiles of workgroup memory: matmul_tiles.wgsl.
fn tiles(ctx: &mut LaunchCtx<'_>, p: &Product) -> Result<()> {
    let count = p.count();
    let tile = Tile::of_product(p.n, ctx.caps);
    let tiles = [p.m.div_ceil(tile.rows), p.n.div_ceil(tile.columns)];
    let split = product_parts(&ctx.caps.choices, [p.m, p.k, p.n], LEAST, split_fine(tiles[0] * tiles[1], p.k));
    let fours = p.n.is_multiple_of(4);
    let scratch = (split.0 > 1).then(|| ctx.scratch(split.0 * count * 4));
    let mut call = tile.constants(ctx.call("matmul_tiles")?).set("FOURS", fours);
    call = call.hook("product", &tile.product(p.a.lies_along(), p.b.lies_along()));
    call = p.widen_tiles(call);
    call = p.words(call, false, tiles, split);
    let groups = p.batch * split.0 * tiles[0] * tiles[1];
    let Some(scratch) = scratch else { return call.with_epilogue_of(fours)?.grid_linear(groups) };
    call.write_of(fours, "y", scratch).grid_linear(groups)?;
    sum_splits(ctx, scratch, count, split.0)
}

/// The product by units for small matrices: matmul_coop.wgsl. Rows of floats are scaled to fit f16, each by a power of two; halves fit as they are.
fn cooperative(ctx: &mut LaunchCtx<'_>, p: &Product, tile: &CoopTile) -> Result<()> {
    let (count, scaled) = (p.count(), ctx.inputs[p.a.input].meta.dtype == DType::F32);
    let scales = scaled.then(|| ctx.scratch(p.batch * (p.m + p.n) * 4));
    if let Some(scales) = scales {
        let groups = p.batch * (p.m.div_ceil(4) + p.n.div_ceil(4));
        let call = p.widen_tiles(ctx.call("operand_scales")?);
        p.words(call, false, [1, 1], (1, p.k)).write("y", scales, "f32").grid_linear(groups)?;
    }
    let tiles = [p.m.div_ceil(tile.rows), p.n.div_ceil(tile.columns)];
    let split = split_fine(tiles[0] * tiles[1], p.k);
    let fours = p.n.is_multiple_of(4);
    let scratch = (split.0 > 1).then(|| ctx.scratch(split.0 * count * 4));
    let mut call = tile.shape(ctx.call("matmul_coop")?, [p.a.lies_along(), p.b.lies_along()]).set("FOURS", fours);
    call = p.words(p.widen_tiles(call), false, tiles, split);
    if let Some(scales) = scales {
        call = call
            .read("scale", scales, "f32")
            .hook("scale_a", "    return scale[batch * (u[0].x + u[0].y) + min(row, u[0].x - 1u)];")
            .hook("scale_b", "    return scale[batch * (u[0].x + u[0].y) + u[0].x + min(col, u[0].y - 1u)];");
    }
    let groups = p.batch * split.0 * tiles[0] * tiles[1];
    let Some(scratch) = scratch else { return call.with_epilogue_of(fours)?.grid_linear(groups) };
    call.write_of(fours, "y", scratch).grid_linear(groups)?;
    sum_splits(ctx, scratch, count, split.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    #[test]
    fn splits_cover_k_in_blocks() {
        for (tiles, k) in [(1, 5000), (8, 1024), (4096, 100_000), (1, 1_000_001), (1, 100)] {
            let (parts, each) = split(tiles, k);
            assert!(parts * each >= k && (parts - 1) * each < k, "{tiles} {k}: {parts} x {each}");
            assert!(parts == 1 || each % BLOCK == 0);
            assert!(each <= LONGEST);
        }
    }

    #[test]
    fn batches_join_only_where_both_lie_evenly() {
        let a = Layout::contiguous(Shape::new(&[2, 3]));
        let b = Layout::new(Shape::new(&[2, 3]), &[0, 5], 0);
        assert_eq!(batch_dims(&a, &a), [(6, 1, 1)]);
        assert_eq!(batch_dims(&a, &b), [(2, 3, 0), (3, 1, 5)]);
    }
}
