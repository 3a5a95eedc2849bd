//! The launches of convolutions and their gradients: which kernels, and those in register blocks, which take what the others do not.

use super::geometry::Geometry;
use super::strips::Strips;
use super::strips_weight::WeightStrips;
use super::tiles;
use crate::device::choices::{Choices, WEIGHT_PARTS};
use crate::device::{Caps, Kind, Slot};
use crate::error::Result;
use crate::graph::{Call, LaunchCtx};
use crate::ops::matmul::{BLOCK, Family, chosen_parts, lanes_share, product, split, sum_splits};
use crate::tensor::{Layout, Shape};

/// Columns that one row of a workgroup's invocations owns, in all three kernels.
const COLUMNS: usize = 32;
/// Output channels of one invocation of the weight's gradient.
const WEIGHT_ROWS: usize = 8;

/// Rows of invocations in a workgroup: lavapipe forms its lanes along x, and runs the rows one after the other.
fn group_rows(ctx: &LaunchCtx<'_>, tiles: usize) -> usize {
    if ctx.caps.kind == Kind::Software || tiles < 8 { 1 } else { 8 }
}

/// Refuse sums of more terms than the loops of conv2d.wgsl may turn for: a turn takes four, and each block has two turns more.
fn turns(ctx: &LaunchCtx<'_>, terms: usize) -> Result<()> {
    ctx.turns("conv2d", terms.div_ceil(4) + 2 * terms.div_ceil(BLOCK))
}

/// Zeros through the epilogue: what an empty sum gives.
fn zeros(ctx: &mut LaunchCtx<'_>, count: usize) -> Result<()> {
    ctx.call("map")?.u32(count).with_epilogue()?.grid_linear(count.div_ceil(64))
}

/// The words that most kernels share after the first two vectors.
pub(super) fn steps<'c, 'a>(call: Call<'c, 'a>, g: &Geometry) -> Call<'c, 'a> {
    call.u32s(&[g.kh, g.kw, g.groups, g.models]).u32s(&g.stride).u32s(&g.padding).u32s(&g.dilation)
}

/// Rows of one invocation: no more than there are.
fn rows_of(rows: usize) -> usize {
    match rows {
        0..=4 => 4,
        5..=8 => 8,
        _ => 16,
    }
}

/// Read the weight in fours along its rows.
fn wide_weight<'c, 'a>(call: Call<'c, 'a>) -> Call<'c, 'a> {
    let at = |lane: &str| format!("w[(p.{lane} + k) >> 2u]");
    let body = format!("    return mat4x4<f32>({}, {}, {}, {});", at("x"), at("y"), at("z"), at("w"));
    // Single steps are not read any more; the body must be valid all the same.
    call.hook("w4", &body).hook("w1", "    return vec4<f32>();")
}

/// The weight turned round, rows of which are image channels, and the length of a row: the gradient of the image reads it along output channels.
pub(super) fn pack_weight(ctx: &mut LaunchCtx<'_>, g: &Geometry) -> Result<(Slot, usize)> {
    let (slot, terms) = (ctx.inputs[1].slot, g.og * g.taps());
    let k = terms.next_multiple_of(4);
    let size = g.models * g.groups * g.cg * k;
    let packed = ctx.scratch(size * 4);
    let call = ctx.call("pack_weight")?.read("w", slot, "f32").write("packed", packed, "f32");
    call.u32s(&[size, g.cg, k, terms, g.taps(), g.og]).offset(1).grid_linear(size.div_ceil(64))?;
    Ok((packed, k))
}

/// Channels of a group from which tiles of them pay.
const TILED: usize = 5;

/// Whether hardware makes it in tiles, where a group of the result has that many channels.
fn in_tiles(ctx: &LaunchCtx<'_>, rows: usize) -> bool {
    Family::of(ctx.caps) == Family::Tiles && rows >= TILED
}

/// Whether the device is a processor, for which convolutions go along strips of rows.
fn in_strips(ctx: &LaunchCtx<'_>) -> bool {
    Family::of(ctx.caps) != Family::Tiles
}

/// The strips of a convolution, or of the gradient of its image, on a processor whose loops may turn that often.
fn strips(ctx: &LaunchCtx<'_>, g: &Geometry, grad: bool) -> Option<Strips> {
    let found = in_strips(ctx).then(|| Strips::of(g, grad, ctx.inputs[0].aligned, &ctx.caps.choices))??;
    (found.turns(g) <= ctx.caps.loop_turns().unwrap_or(usize::MAX)).then_some(found)
}

/// A convolution of single elements, or the gradient of its image: the product of the weight (turned round) and each image.
fn pointwise(ctx: &mut LaunchCtx<'_>, g: &Geometry, grad: bool) -> Result<()> {
    let (to, from, positions) = if grad { (g.cg, g.og, g.h * g.w) } else { (g.og, g.cg, g.h * g.w) };
    let batch = [g.models, g.n, g.groups];
    let shape = |rows: usize, columns: usize| Shape::new(&[batch[0], batch[1], batch[2], rows, columns]);
    let (own, other) = if grad { (1, g.cg) } else { (g.cg, 1) };
    let weight = [g.weight(), 0, g.og * g.cg, own, other].map(|s| s as isize);
    let weight = Layout::new(shape(to, from), &weight, 0);
    product(ctx, (1, &weight), (0, &Layout::contiguous(shape(from, positions))))
}

pub(super) fn forward(ctx: &mut LaunchCtx<'_>, g: &Geometry) -> Result<()> {
    let (count, k) = (g.models * g.n * g.result(), g.k());
    if count == 0 {
        return Ok(());
    }
    if g.cg * g.h * g.w == 0 {
        return zeros(ctx, count);
    }
    if g.is_pointwise() {
        return pointwise(ctx, g, false);
    }
    if in_tiles(ctx, g.og) {
        return tiles::image(ctx, g, false);
    }
    if let Some(strips) = strips(ctx, g, false) {
        return strips.launch(ctx, g);
    }
    turns(ctx, k)?;
    let (slot_x, slot_w) = (ctx.inputs[0].slot, ctx.inputs[1].slot);
    let wide = k.is_multiple_of(4) && ctx.inputs[1].aligned;
    let rows = rows_of(g.og);
    let tiles = (g.n * g.positions()).div_ceil(COLUMNS);
    let below = group_rows(ctx, tiles);
    let (across, down) = (tiles.div_ceil(below), g.og.div_ceil(rows));
    let mut call = ctx.call("conv2d")?.set("ROWS", format!("{rows}u")).set("GROUP_ROWS", format!("{below}u"));
    if wide {
        call = wide_weight(call);
    }
    call = call.read("x", slot_x, "f32").read("w", slot_w, if wide { "vec4<f32>" } else { "f32" });
    call = call.u32s(&[g.og, g.positions(), g.n, k]).u32s(&[g.cg, g.h, g.w, g.ow]);
    call = steps(call, g).offset(0).offset(1).u32s(&[across, down, 0, 0]).flops(2 * (count * k) as u64);
    call.with_epilogue()?.grid_linear(across * down * g.groups * g.models)
}

pub(super) fn input_grad(ctx: &mut LaunchCtx<'_>, g: &Geometry) -> Result<()> {
    let (count, terms) = (g.models * g.n * g.image(), g.og * g.taps());
    if count == 0 {
        return Ok(());
    }
    if terms == 0 {
        return zeros(ctx, count);
    }
    if g.is_pointwise() {
        return pointwise(ctx, g, true);
    }
    if in_tiles(ctx, g.cg) {
        return tiles::image(ctx, g, true);
    }
    if let Some(strips) = strips(ctx, g, true) {
        return strips.launch(ctx, g);
    }
    turns(ctx, terms)?;
    let (packed, k) = pack_weight(ctx, g)?;
    let slot_g = ctx.inputs[0].slot;
    let rows = rows_of(g.cg);
    let positions = g.h * g.w;
    let tiles = (g.n * positions).div_ceil(COLUMNS);
    let below = group_rows(ctx, tiles);
    let (across, down) = (tiles.div_ceil(below), g.cg.div_ceil(rows));
    let call = ctx.call("conv2d")?.set("GRAD", true).set("ROWS", format!("{rows}u")).set("GROUP_ROWS", format!("{below}u"));
    let mut call = wide_weight(call).read("x", slot_g, "f32").read("w", packed, "vec4<f32>");
    call = call.u32s(&[g.cg, positions, g.n, k]).u32s(&[g.og, g.oh, g.ow, g.w]);
    call = steps(call, g).offset(0).u32(0).u32s(&[across, down, 0, 0]).flops(2 * (count * terms) as u64);
    call.with_epilogue()?.grid_linear(across * down * g.groups * g.models)
}

/// Parts of the terms of a weight's gradient, where others were chosen than the rule's, and the terms of one.
pub(super) fn weight_parts(choices: &Choices, g: &Geometry, rule: (usize, usize)) -> (usize, usize) {
    chosen_parts(choices, (&WEIGHT_PARTS, &g.gradient_key()), g.n * g.positions(), PART, rule)
}

/// Terms of a part of a weight's gradient are a multiple of this.
const PART: usize = 256;

/// Whether the gradient of the weight makes that of a bias along the way: in strips of which lanes share reads.
pub(super) fn sums_results(caps: &Caps, g: &Geometry, aligned: [bool; 2]) -> bool {
    let any = g.models * g.weight() * g.n * g.positions() * g.h * g.w > 0;
    any && lanes_share(caps) && WeightStrips::of(g, aligned[0], aligned[1], &caps.choices).is_some()
}

pub(super) fn weight_grad(ctx: &mut LaunchCtx<'_>, g: &Geometry) -> Result<()> {
    let (count, k, terms) = (g.models * g.weight(), g.k(), g.n * g.positions());
    if count == 0 {
        return Ok(());
    }
    if terms == 0 || g.h * g.w == 0 {
        return zeros(ctx, count);
    }
    if in_tiles(ctx, g.og) {
        return tiles::weight_grad(ctx, g);
    }
    if in_strips(ctx)
        && let Some(strips) = WeightStrips::of(g, ctx.inputs[0].aligned, ctx.inputs[1].aligned, &ctx.caps.choices)
    {
        return strips.launch(ctx, g);
    }
    let (slot_x, slot_g) = (ctx.inputs[0].slot, ctx.inputs[1].slot);
    let wide = g.positions().is_multiple_of(4) && ctx.inputs[1].aligned;
    let rows = g.og.div_ceil(WEIGHT_ROWS);
    let below = group_rows(ctx, rows);
    let (across, down) = (k.div_ceil(COLUMNS), rows.div_ceil(below));
    let (parts, each) = weight_parts(&ctx.caps.choices, g, split(across * rows * g.groups, terms));
    let scratch = (parts > 1).then(|| ctx.scratch(parts * count * 4));
    let mut call = ctx.call("conv2d_weight_grad")?.set("GROUP_ROWS", format!("{below}u"));
    if wide {
        let at = |lane: &str| format!("g[(p.{lane} + ta.w) >> 2u]");
        let body = format!("    return mat4x4<f32>({}, {}, {}, {});", at("x"), at("y"), at("z"), at("w"));
        call = call.hook("g4", &body).hook("g1", "    return vec4<f32>();");
    }
    call = call.read("g", slot_g, if wide { "vec4<f32>" } else { "f32" }).read("x", slot_x, "f32");
    call = call.u32s(&[g.og, k, g.positions(), g.n]).u32s(&[g.cg, g.h, g.w, g.ow]);
    call = steps(call, g).offset(1).offset(0).u32s(&[across, down, parts, each]).u32s(&[count, 0, 0, 0]);
    call = call.flops(2 * (count * terms) as u64);
    let groups = across * down * parts * g.groups * g.models;
    let Some(scratch) = scratch else { return call.with_epilogue()?.grid_linear(groups) };
    call.write("y", scratch, "f32").grid_linear(groups)?;
    sum_splits(ctx, scratch, count, parts)
}
