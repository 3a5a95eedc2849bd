// use rows, math, layout
// softmax, or its logarithm, from each row's maximum and sum of exponentials: one invocation per V.
// u: as in softmax.wgsl
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// How many dimensions count the rows.
const OUTER: u32 = 4u;
const LOG: bool = false;

fn epilogue(i: u32, v: V) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x * u[0].y {
        return;
    }
    let row = i / u[0].y;
    let s = p[row];
    let v = load(place(row, u[1], u[2], OUTER) + (i - row * u[0].y) * u[0].w) - s.x;
    if LOG {
        epilogue(i * WIDTH, v - log_(s.y));
    } else {
        epilogue(i * WIDTH, power(v) / s.y);
    }
}
