// use channels
// For each channel of x [models, n, channels, inner], the sum of g and that of g times the normalised x.
// The words of channels.wgsl, and u[0].w: offset of x    u[2]: .., offsets of g and of mean and the deviation's inverse    u[3].x: offset of the weight
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> center: array<f32>;
@group(0) @binding(5) var<storage, read> weight: array<f32>;
@group(0) @binding(6) var<storage, read_write> sum: array<f32>;
@group(0) @binding(7) var<storage, read_write> along: array<f32>;
@group(0) @binding(8) var<storage, read_write> scale: array<f32>;

alias V = f32;
// Elements of a V.
const WIDTH: u32 = 1u;

// Hooks: an element of each; where V is four of them, what they give together.
fn load(i: u32) -> V {
    return x[u[0].w + i];
}

fn load_g(i: u32) -> V {
    return g[u[2].z + i];
}

fn fold(v: V) -> f32 {
    return v;
}

// Hook: without a weight, 1.
fn weight_of(c: u32) -> f32 {
    return weight[u[3].x + c];
}

// Hook: the sums of a part of channel c, with the deviation as it is.
fn walk(c: u32, part: u32) -> vec2<f32> {
    let count = elements(part, u[0].z);
    let m = center[u[2].w + 2u * c];
    var s = V(0.0);
    var t = V(0.0);
    begin(c, part);
    for (var k = 0u; k < count; k++) {
        let i = row + inner;
        let v = load_g(i);
        s += v;
        t += v * (load(i) - m);
        next();
    }
    return vec2<f32>(fold(s), fold(t));
}

// Hook: the same of a whole channel, from its parts.
fn joined(c: u32, lane: u32) -> vec2<f32> {
    var s = vec2<f32>(0.0);
    for (var p = lane; p < u[2].y; p += LANES) {
        s += partial[p * u[0].x + c];
    }
    return vec2<f32>(total(s.x, lane), total(s.y, lane));
}

// Hook: what a channel, or its part, gives. The scale is what makes the gradient by x of g and x: a factor, what is taken from g, what the deviation is
// multiplied by, and the mean.
fn finish(c: u32, part: u32, v: vec2<f32>) {
    let count = f32(WIDTH * u[0].y);
    let d = center[u[2].w + 2u * c + 1u];
    sum[c] = v.x;
    along[c] = v.y * d;
    scale[4u * c] = d * weight_of(c);
    scale[4u * c + 1u] = v.x / count;
    scale[4u * c + 2u] = v.y * d / count * d;
    scale[4u * c + 3u] = center[u[2].w + 2u * c];
}
