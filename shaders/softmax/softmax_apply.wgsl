// use math, layout
// softmax, or its logarithm, from each row's maximum and sum of exponentials: one invocation per element.
// u[0]: rows, elements of a row, offset of x, stride along the row
// u[1], u[2]: sizes and strides of the dimensions that count the rows, innermost first
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const LOG: bool = false;
const OUTER: u32 = 4u;

fn load(i: u32) -> f32 {
    return x[u[0].z + i];
}

fn epilogue(i: u32, v: f32) {
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
        epilogue(i, v - log_(s.y));
    } else {
        epilogue(i, exp_(v) / s.y);
    }
}
