// use channels
// Mean and deviation of each channel of x [models, n, channels, inner], read once: a mean and a sum of squared deviations move along.
// The words of channels.wgsl, and u[0].w: offset of x    u[2]: .., offsets of the running mean and variance
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

// Hooks: an element; where V is four of them, what they give together.
fn load(i: u32) -> V {
    return x[u[0].w + i];
}

fn fold(mean: V, squares: V, count: f32) -> vec2<f32> {
    return vec2<f32>(mean, squares);
}

// Hook: mean and sum of squared deviations of a part of channel c (Welford).
fn walk(c: u32, part: u32) -> vec2<f32> {
    let count = f32(elements(part, u[0].z));
    var m = V(0.0);
    var squares = V(0.0);
    begin(c, part);
    for (var k = 1.0; k <= count; k += 1.0) {
        let v = load(row + inner);
        let d = v - m;
        m += d * (1.0 / k);
        squares += d * (v - m);
        next();
    }
    return fold(m, squares, count);
}

// Hook: the same of a whole channel, from its parts (Chan).
fn joined(c: u32, lane: u32) -> vec2<f32> {
    let parts = u[2].y;
    var sum = 0.0;
    for (var p = lane; p < parts; p += LANES) {
        sum += f32(elements(p, parts)) * partial[p * u[0].x + c].x;
    }
    let m = total(sum, lane) / f32(u[0].y);
    var squares = 0.0;
    for (var p = lane; p < parts; p += LANES) {
        let v = partial[p * u[0].x + c];
        squares += v.y + f32(WIDTH * elements(p, parts)) * (v.x - m) * (v.x - m);
    }
    return vec2<f32>(m, total(squares, lane));
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
