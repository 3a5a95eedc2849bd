// use math
// max_pool2d of 2 x 2 windows side by side: one invocation per LENGTH columns of two rows, which it reads as one V each.
// u[0]: invocations, height and width of x, offset of x    u[1].xy: height of y, invocations of a row of it
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> index: array<i32>;

alias V = vec2<f32>;
const LENGTH: u32 = 2u;

struct Best {
    value: f32,
    at: u32,
}

// The first of equals, the last NaN where there is one.
fn larger(best: Best, v: f32, at: u32) -> Best {
    let is = v > best.value || is_nan(v);
    return Best(select(best.value, v, is), select(best.at, at, is));
}

fn window(top: vec2<f32>, bottom: vec2<f32>, at: u32) -> Best {
    let first = larger(Best(top.x, at), top.y, at + 1u);
    return larger(larger(first, bottom.x, at + u[0].z), bottom.y, at + u[0].z + 1u);
}

// Hooks: an output that nobody wants is not stored.
fn store_value(i: u32, v: f32) {
    y[i] = v;
}

fn store_index(i: u32, at: u32) {
    index[i] = i32(at);
}

// Hook: the windows of one invocation.
fn windows(i: u32, top: V, bottom: V, at: u32) {
    let a = window(top, bottom, at);
    store_value(i, a.value);
    store_index(i, a.at);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let row = i / u[1].y;
    let plane = row / u[1].x;
    let at = (row - plane * u[1].x) * 2u * u[0].z + (i - row * u[1].y) * LENGTH;
    let first = u[0].w + plane * (u[0].y * u[0].z) + at;
    windows(i, x[first / LENGTH], x[(first + u[0].z) / LENGTH], at);
}
