// use math, layout
// Maximum m and sum of e^(x - m) of parts of long rows, [parts, rows]: one invocation per part, which owns the elements part, part + parts, ...
// Where there are several parts, a second launch of this shader joins them.
// u[0]: rows, elements (or pairs) of a row, offset of x, stride along the row
// u[1], u[2]: sizes and strides of the dimensions that count the rows, innermost first
// u[3].x: parts of a row
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec2<f32>>;

const OUTER: u32 = 4u;
const LOWEST: f32 = -3.40282347e38;

fn load(i: u32) -> f32 {
    return x[u[0].z + i];
}

// Element k of a row, as (maximum, sum).
fn pair(row: u32, k: u32) -> vec2<f32> {
    return p[k * u[0].x + row];
}

fn element(row: u32, k: u32) -> vec2<f32> {
    return vec2<f32>(load(place(row, u[1], u[2], OUTER) + k * u[0].w), 1.0);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let j = gid.x + gid.y * groups.x * 64u;
    let parts = u[3].x;
    if j >= u[0].x * parts {
        return;
    }
    let row = j / parts;
    let part = j - row * parts;
    let n = u[0].y;
    var m = LOWEST;
    for (var k = part; k < n; k += parts) {
        m = max(m, pair(row, k).x);
    }
    // Four chains, taken in turn.
    var s = vec4<f32>(0.0);
    for (var k = part; k < n; k += parts) {
        let v = pair(row, k);
        s = vec4<f32>(s.yzw, s.x + v.y * exp_(v.x - m));
    }
    y[part * u[0].x + row] = vec2<f32>(m, (s.x + s.y) + (s.z + s.w));
}
