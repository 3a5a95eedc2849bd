// Mean and deviation of each channel of x [models, n, channels, inner]: one invocation per part of a channel, which it reads once, moving a mean and a sum of
// squared deviations along. Where a channel has several parts they go to scratch, [parts, channels], and a second launch of this shader joins them, LANES
// invocations a channel.
// Elements of x are counted in V. u[0]: channels of all models, elements of a channel, parts of each, offset of x
// u[1]: channels of a model, elements of a row (inner), a step of `parts` elements as (image, element of its row)
// u[2]: images of a model, parts to join, offsets of the running mean and variance
// u[3]: what is added to the variance, how far the running statistics move, what stays of them, the unbiased variance as a multiple
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> center: array<f32>;
@group(0) @binding(4) var<storage, read> old_mean: array<f32>;
@group(0) @binding(5) var<storage, read> old_var: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_mean: array<f32>;
@group(0) @binding(7) var<storage, read_write> new_var: array<f32>;

alias V = f32;
// Elements of a V.
const WIDTH: u32 = 1u;
// Whether neighbours take neighbouring elements of a channel, or neighbouring channels.
const ROWS: bool = true;
const LANES: u32 = 1u;

var<workgroup> values: array<f32, 64>;

// Hooks: an element; where V is four of them, what they give together.
fn load(i: u32) -> V {
    return x[u[0].w + i];
}

fn fold(mean: V, squares: V, count: f32) -> vec2<f32> {
    return vec2<f32>(mean, squares);
}

// Hook: the sum of what the invocations of a channel have. Where they are several, two barriers: values are written, values were read.
fn total(v: f32, lane: u32) -> f32 {
    return v;
}

// Elements of part p.
fn elements(p: u32, parts: u32) -> f32 {
    return f32((u[0].y + parts - 1u - p) / parts);
}

// Hook: mean and sum of squared deviations of a part of channel c (Welford).
fn walk(c: u32, part: u32) -> vec2<f32> {
    let model = c / u[1].x;
    let base = (model * u[2].x * u[1].x + (c - model * u[1].x)) * u[1].y;
    let across = u[1].x * u[1].y;
    let count = elements(part, u[0].z);
    var image = part / u[1].y;
    var inner = part - image * u[1].y;
    var m = V(0.0);
    var squares = V(0.0);
    for (var k = 1.0; k <= count; k += 1.0) {
        let v = load(base + image * across + inner);
        let d = v - m;
        m += d * (1.0 / k);
        squares += d * (v - m);
        image += u[1].z;
        inner += u[1].w;
        if inner >= u[1].y {
            image += 1u;
            inner -= u[1].y;
        }
    }
    return fold(m, squares, count);
}

// Hook: the same of a whole channel, from its parts (Chan).
fn joined(c: u32, lane: u32) -> vec2<f32> {
    let parts = u[2].y;
    var sum = 0.0;
    for (var p = lane; p < parts; p += LANES) {
        sum += elements(p, parts) * partial[p * u[0].x + c].x;
    }
    let m = total(sum, lane) / f32(u[0].y);
    var squares = 0.0;
    for (var p = lane; p < parts; p += LANES) {
        let v = partial[p * u[0].x + c];
        squares += v.y + f32(WIDTH) * elements(p, parts) * (v.x - m) * (v.x - m);
    }
    return vec2<f32>(m, total(squares, lane));
}

// Hook: which of the two.
fn statistics(c: u32, part: u32, lane: u32) -> vec2<f32> {
    return walk(c, part);
}

// Hook: where there are running statistics, they move.
fn move_running(c: u32, m: f32, variance: f32) {
    let k = bitcast<vec4<f32>>(u[3]);
    new_mean[c] = old_mean[u[2].z + c] * k.z + m * k.y;
    new_var[c] = old_var[u[2].w + c] * k.z + variance * k.w * k.y;
}

// Hook: what a channel, or its part, gives.
fn finish(c: u32, part: u32, v: vec2<f32>) {
    let variance = v.y / f32(WIDTH * u[0].y);
    center[2u * c] = v.x;
    center[2u * c + 1u] = inverseSqrt(variance + bitcast<f32>(u[3].x));
    move_running(c, v.x, variance);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = gid.x + gid.y * groups.x * 64u;
    let j = id / LANES;
    if j >= u[0].x * u[0].z {
        return;
    }
    let part = select(j / u[0].x, j % u[0].z, ROWS);
    let c = select(j % u[0].x, j / u[0].z, ROWS);
    let v = statistics(c, part, id % LANES);
    if id % LANES == 0u {
        finish(c, part, v);
    }
}
