//! Convolutions and their gradients in tiles of workgroup memory, for hardware.

use super::geometry::Geometry;
use super::gpu::{weight_parts, pack_weight, steps};
use crate::error::Result;
use crate::graph::{Call, LaunchCtx};
use crate::ops::matmul::{Tile, split_fine, sum_splits};

/// The constants of a shader in tiles, and the text of its product.
fn tiled<'c, 'a>(call: Call<'c, 'a>, t: Tile, along_a: bool) -> Call<'c, 'a> {
    t.constants(call).hook("product", &t.product(along_a, false))
}

/// The body that reads four neighbours of each of four rows of `name`, `at(lane)` a row's place.
fn fours(name: &str, at: impl Fn(&str) -> String) -> String {
    let one = |lane: &str| format!("{name}[({}) >> 2u]", at(lane));
    let block = format!("transpose(mat4x4<f32>({}, {}, {}, {}))", one("x"), one("y"), one("z"), one("w"));
    format!("    if k < end {{\n        return {block};\n    }}\n    return mat4x4<f32>();")
}

/// Convolution, or with `grad` the gradient of its image.
pub(super) fn image(ctx: &mut LaunchCtx<'_>, g: &Geometry, grad: bool) -> Result<()> {
    let slot_x = ctx.inputs[0].slot;
    let (rows, from, [height, width], [oh, ow]) =
        if grad { (g.cg, g.og, [g.oh, g.ow], [g.h, g.w]) } else { (g.og, g.cg, [g.h, g.w], [g.oh, g.ow]) };
    let (slot_w, k, wide) = if grad {
        let (packed, k) = pack_weight(ctx, g)?;
        (packed, k, true)
    } else {
        (ctx.inputs[1].slot, g.k(), g.k().is_multiple_of(4) && ctx.inputs[1].aligned)
    };
    let t = Tile::of_channels(rows, ctx.caps);
    let positions = oh * ow;
    let (across, down) = ((g.n * positions).div_ceil(t.columns), rows.div_ceil(t.rows));
    let even = positions.is_multiple_of(4);
    let mut call = tiled(ctx.call("conv_tiles")?, t, true).set("GRAD", grad).set("STRIDED", g.stride != [1, 1]).set("FOURS", even);
    if wide {
        call = call.hook("w4", &fours("w", |l| format!("p.{l} + k"))).hook("w1", "    return vec4<f32>();");
    }
    call = call.read("x", slot_x, "f32").read("w", slot_w, if wide { "vec4<f32>" } else { "f32" });
    call = call.u32s(&[rows, positions, g.n, k]).u32s(&[from, height, width, ow]);
    call = steps(call, g).offset(0);
    call = if grad { call.u32(0) } else { call.offset(1) };
    call = call.u32s(&[across, down, 0, 0]).flops(2 * (g.models * g.work()) as u64);
    call.with_epilogue_of(even)?.grid_linear(across * down * g.groups * g.models)
}

pub(super) fn weight_grad(ctx: &mut LaunchCtx<'_>, g: &Geometry) -> Result<()> {
    let (count, k, terms) = (g.models * g.weight(), g.k(), g.n * g.positions());
    let (slot_x, slot_g) = (ctx.inputs[0].slot, ctx.inputs[1].slot);
    let t = Tile::of_channels(g.og, ctx.caps);
    let (across, down) = (k.div_ceil(t.columns), g.og.div_ceil(t.rows));
    let (parts, each) = weight_parts(&ctx.caps.choices, g, split_fine(across * down * g.groups, terms));
    let scratch = (parts > 1).then(|| ctx.scratch(parts * count * 4));
    let wide = g.positions().is_multiple_of(4) && ctx.inputs[1].aligned;
    let mut call = tiled(ctx.call("conv_weight_tiles")?, t, true);
    if wide {
        let image = "(k / u[0].z) * u[2].z * u[0].x * u[0].z + k % u[0].z";
        call = call.hook("g4", &fours("g", |l| format!("p.{l} + {image}"))).hook("g1", "    return vec4<f32>();");
    }
    call = call.read("g", slot_g, if wide { "vec4<f32>" } else { "f32" }).read("x", slot_x, "f32");
    call = call.u32s(&[g.og, k, g.positions(), g.n]).u32s(&[g.cg, g.h, g.w, g.ow]);
    call = steps(call, g).offset(1).offset(0).u32s(&[across, down, parts, each]).u32s(&[count, 0, 0, 0]);
    call = call.flops(2 * (g.models * g.work()) as u64);
    let groups = across * down * parts * g.groups * g.models;
    let Some(scratch) = scratch else { return call.with_epilogue()?.grid_linear(groups) };
    call.write("y", scratch, "f32").grid_linear(groups)?;
    sum_splits(ctx, scratch, count, parts)
}
