// For each channel of x [models, n, channels, inner], the sum of g and that of g times the normalised x: one invocation per part of a channel. Where a channel
// has several parts they go to scratch, [parts, channels], and a second launch of this shader joins them, LANES invocations a channel.
// Elements are counted in V. u[0]: channels of all models, elements of a channel, parts of each, offset of x
// u[1]: channels of a model, elements of a row (inner), a step of `parts` elements as (image, element of its row)
// u[2]: images of a model, parts to join, offsets of g and of mean and the deviation's inverse    u[3].x: offset of the weight
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
// Whether neighbours take neighbouring elements of a channel, or neighbouring channels.
const ROWS: bool = true;
const LANES: u32 = 1u;

var<workgroup> values: array<f32, 64>;

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

// Hook: the sum of what the invocations of a channel have. Where they are several, two barriers: values are written, values were read.
fn total(v: f32, lane: u32) -> f32 {
    return v;
}

// Hook: the sums of a part of channel c, with the deviation as it is.
fn walk(c: u32, part: u32) -> vec2<f32> {
    let model = c / u[1].x;
    let base = (model * u[2].x * u[1].x + (c - model * u[1].x)) * u[1].y;
    let across = u[1].x * u[1].y;
    let count = (u[0].y + u[0].z - 1u - part) / u[0].z;
    let m = center[u[2].w + 2u * c];
    var image = part / u[1].y;
    var inner = part - image * u[1].y;
    var s = V(0.0);
    var t = V(0.0);
    for (var k = 0u; k < count; k++) {
        let i = base + image * across + inner;
        let v = load_g(i);
        s += v;
        t += v * (load(i) - m);
        image += u[1].z;
        inner += u[1].w;
        if inner >= u[1].y {
            image += 1u;
            inner -= u[1].y;
        }
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

// Hook: which of the two.
fn sums(c: u32, part: u32, lane: u32) -> vec2<f32> {
    return walk(c, part);
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

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = gid.x + gid.y * groups.x * 64u;
    let j = id / LANES;
    if j >= u[0].x * u[0].z {
        return;
    }
    let part = select(j / u[0].x, j % u[0].z, ROWS);
    let c = select(j % u[0].x, j / u[0].z, ROWS);
    let v = sums(c, part, id % LANES);
    if id % LANES == 0u {
        finish(c, part, v);
    }
}
