//! The launches of a matrix product.

use super::lanes::Lanes;
use super::tiles::Tile;
use super::{Dims, leading};
use crate::device::{Caps, Kind, Slot};
use crate::error::Result;
use crate::graph::{Call, LaunchCtx, Operand};
use crate::tensor::Layout;

/// Rows and columns that one invocation (rows) and one workgroup (columns) own in matmul.wgsl.
const ROWS: usize = 8;
/// Terms between two visits to the total, as BLOCK in matmul.wgsl; also the unit by which k is split.
pub(super) const BLOCK: usize = 256;

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
/// Depends on the model's sizes and on how it lies, never on a batch, so that a last batch of another size needs no other kernel: a lone column
/// (`[k, 1]`, where k may be the batch) is not read along k, though it could be.
fn reads(o: &Operand, k: (usize, isize), across: (usize, isize)) -> Reads {
    let fours = |d: (usize, isize)| d.0.is_multiple_of(4) && d.1 == 1;
    let lead = leading(&o.layout);
    let even = o.aligned && lead.shape.iter().zip(lead.strides()).all(|(&n, &s)| n == 1 || s % 4 == 0);
    if even && fours(k) && across.1 % 4 == 0 {
        Reads::AlongK
    } else if even && fours(across) && k.1 % 4 == 0 {
        Reads::Across
    } else {
        Reads::Single
    }
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

/// Into how many parts a sum of `k` terms is split, and the terms of one, where that many tiles hold the results: a long sum with few results
/// would leave cores idle. Decided by the shape of one model's result alone.
pub(in crate::ops) fn split(tiles: usize, k: usize) -> (usize, usize) {
    /// Workgroups that keep a processor busy: more only add to the second pass.
    const BUSY: usize = 32;
    if 2 * tiles >= BUSY || k < 4 * BLOCK {
        return (1, k);
    }
    let parts = (BUSY / tiles).min(k / BLOCK);
    let each = k.div_ceil(parts).next_multiple_of(BLOCK);
    (k.div_ceil(each), each)
}

/// The same for hardware, which has more to keep busy and starts a second launch at little cost.
pub(in crate::ops) fn split_fine(tiles: usize, k: usize) -> (usize, usize) {
    /// The least terms of a part.
    const LEAST: usize = 128;
    if tiles >= 64 || k < 2 * LEAST {
        return (1, k);
    }
    let parts = 64usize.div_ceil(tiles).clamp(2, k / LEAST);
    let each = k.div_ceil(parts).next_multiple_of(LEAST);
    (k.div_ceil(each), each)
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

pub(super) fn launch(ctx: &mut LaunchCtx<'_>) -> Result<()> {
    let (a, b) = (&ctx.inputs[0], &ctx.inputs[1]);
    let Dims { batch, m, k, n } = Dims::of(&a.layout.shape, &b.layout.shape);
    let count = batch * m * n;
    if count == 0 {
        return Ok(());
    }
    if k == 0 {
        // An empty sum: zeros, through the epilogue.
        return ctx.call("map")?.u32(count).with_epilogue()?.grid_linear(count.div_ceil(64));
    }
    let lead = a.layout.shape.rank() - 2;
    let (sa, sb) = (a.layout.strides(), b.layout.strides());
    let (a_row, a_col, b_row, b_col) = (sa[lead], sa[lead + 1], sb[lead], sb[lead + 1]);
    let (read_a, read_b) = (reads(a, (k, a_col), (m, a_row)), reads(b, (k, b_row), (n, b_col)));
    let dims = batch_dims(&leading(&a.layout), &leading(&b.layout));
    match Family::of(ctx.caps) {
        Family::Tiles => return tiles(ctx, (read_a, read_b), &dims),
        Family::Lanes => return lanes(ctx, (read_a, read_b), &dims),
        Family::Blocks => {}
    }
    let (parts, each) = split(m.div_ceil(ROWS) * n.div_ceil(32), k);
    let wide = n > 32;
    let (tiles_m, tiles_n) = (m.div_ceil(ROWS), n.div_ceil(if wide { 64 } else { 32 }));
    let (slot_a, slot_b) = (a.slot, b.slot);
    let scratch = (parts > 1).then(|| ctx.scratch(parts * count * 4));
    let mut call = ctx.call("matmul")?.set("WIDE", wide);
    call = widen(call, "a", read_a, "u[0].x", "u[1].z");
    call = widen(call, "b", read_b, "u[0].y", "u[1].w");
    call = call.read("a", slot_a, read_a.element()).read("b", slot_b, read_b.element());
    call = call.u32s(&[m, n, k]).offset(0).offset(1).stride(a_row).stride(a_col).stride(b_row).stride(b_col);
    call = call.u32s(&[tiles_m, tiles_n, parts, each, dims.len(), count, batch]);
    call = batches(call, &dims, false);
    call = call.flops(2 * (count * k) as u64);
    let groups = batch * parts * tiles_m * tiles_n;
    let Some(scratch) = scratch else { return call.with_epilogue()?.grid_linear(groups) };
    call.write("y", scratch, "f32").grid_linear(groups)?;
    sum_splits(ctx, scratch, count, parts)
}

/// The words of the batch dimensions; `turned`: those of b first.
fn batches<'c, 'a>(mut call: Call<'c, 'a>, dims: &[(usize, isize, isize)], turned: bool) -> Call<'c, 'a> {
    for d in 0..6 {
        let (size, sa, sb) = dims.get(d).copied().unwrap_or((1, 0, 0));
        let (sa, sb) = if turned { (sb, sa) } else { (sa, sb) };
        call = call.u32(size).stride(sa).stride(sb).u32(0);
    }
    call
}

/// The second pass of a split sum.
pub(in crate::ops) fn sum_splits(ctx: &mut LaunchCtx<'_>, scratch: Slot, count: usize, parts: usize) -> Result<()> {
    ctx.call("sum_splits")?.read("part", scratch, "f32").u32(count).u32(parts).u32s(&[0, 0]).with_epilogue()?.grid_linear(count.div_ceil(64))
}

/// The product where lanes read for each other: matmul_lanes.wgsl.
fn lanes(ctx: &mut LaunchCtx<'_>, (read_a, read_b): (Reads, Reads), dims: &[(usize, isize, isize)]) -> Result<()> {
    let Dims { batch, m, k, n } = Dims::of(&ctx.inputs[0].layout.shape, &ctx.inputs[1].layout.shape);
    let count = batch * m * n;
    // Rows and columns as the kernel sees them: size, operand, its stride across and along k, how it is read, stride in y.
    let side = |i: usize, size: usize, reads: Reads, y: usize| {
        let o = &ctx.inputs[i];
        let s = &o.layout.strides()[o.layout.shape.rank() - 2..];
        let (across, along) = if i == 0 { (s[0], s[1]) } else { (s[1], s[0]) };
        (size, i, across, along, reads, y)
    };
    let (own_rows, own_columns) = (side(0, m, read_a, n), side(1, n, read_b, 1));
    let turned = Lanes::turned(n);
    let (rows, columns) = if turned { (own_columns, own_rows) } else { (own_rows, own_columns) };
    let lanes = Lanes::new(rows.4, columns.4, n);
    let fours = !turned && n.is_multiple_of(4);
    let (tiles_m, tiles_n) = (rows.0.div_ceil(lanes.rows()), columns.0.div_ceil(8 * lanes.columns()));
    let (parts, each) = split(tiles_m * tiles_n, k);
    let (slot_a, slot_b) = (ctx.inputs[rows.1].slot, ctx.inputs[columns.1].slot);
    let scratch = (parts > 1).then(|| ctx.scratch(parts * count * 4));
    let mut call = ctx.call("matmul_lanes")?.set("ROWS", format!("{}u", lanes.rows())).set("COLUMNS", format!("{}u", lanes.columns()));
    call = call.set("FOURS", fours).hook("multiply", &lanes.multiply());
    if columns.4 == Reads::Across {
        // Four at a time from a multiple of four: past the end, the last four are read again.
        call = call.hook("columns_at", "    return vec4<u32>(base + min(col, u[0].y - 4u));");
    }
    call = call.read("a", slot_a, rows.4.element()).read("b", slot_b, columns.4.element());
    call = call.u32s(&[rows.0, columns.0, k]).offset(rows.1).offset(columns.1);
    call = call.stride(rows.2).stride(rows.3).stride(columns.3).stride(columns.2);
    call = call.u32s(&[tiles_m, tiles_n, parts, each, dims.len(), count, batch]);
    call = batches(call, dims, turned).u32s(&[rows.5, columns.5, 0, 0]).flops(2 * (count * k) as u64);
    let groups = batch * parts * tiles_m * tiles_n;
    let Some(scratch) = scratch else { return call.with_epilogue_of(fours)?.grid_linear(groups) };
    call.write_of(fours, "y", scratch).grid_linear(groups)?;
    sum_splits(ctx, scratch, count, parts)
}

/// The product in tiles of workgroup memory: matmul_tiles.wgsl.
fn tiles(ctx: &mut LaunchCtx<'_>, (read_a, read_b): (Reads, Reads), dims: &[(usize, isize, isize)]) -> Result<()> {
    let (a, b) = (&ctx.inputs[0], &ctx.inputs[1]);
    let Dims { batch, m, k, n } = Dims::of(&a.layout.shape, &b.layout.shape);
    let count = batch * m * n;
    let lead = a.layout.shape.rank() - 2;
    let (sa, sb) = (a.layout.strides(), b.layout.strides());
    let (a_row, a_col, b_row, b_col) = (sa[lead], sa[lead + 1], sb[lead], sb[lead + 1]);
    let tile = Tile::of(n, false);
    let (tiles_m, tiles_n) = (m.div_ceil(tile.rows), n.div_ceil(tile.columns));
    let (parts, each) = split_fine(tiles_m * tiles_n, k);
    let fours = n.is_multiple_of(4);
    let (slot_a, slot_b) = (a.slot, b.slot);
    let scratch = (parts > 1).then(|| ctx.scratch(parts * count * 4));
    let mut call = tile.constants(ctx.call("matmul_tiles")?).set("FOURS", fours);
    call = call.hook("product", &tile.product(read_a == Reads::AlongK, read_b == Reads::AlongK));
    for (name, reads, places, at, size, step) in [("a", read_a, "rows_at", "row", "u[0].x", "u[1].z"), ("b", read_b, "columns_at", "col", "u[0].y", "u[1].w")] {
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
    call = call.read("a", slot_a, read_a.element()).read("b", slot_b, read_b.element());
    call = call.u32s(&[m, n, k]).offset(0).offset(1).stride(a_row).stride(a_col).stride(b_row).stride(b_col);
    call = call.u32s(&[tiles_m, tiles_n, parts, each, dims.len(), count, batch]);
    call = batches(call, dims, false).flops(2 * (count * k) as u64);
    let groups = batch * parts * tiles_m * tiles_n;
    let Some(scratch) = scratch else { return call.with_epilogue_of(fours)?.grid_linear(groups) };
    call.write_of(fours, "y", scratch).grid_linear(groups)?;
    sum_splits(ctx, scratch, count, parts)
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
