// use rows, math, layout
// Maximum m and sum of e^(x - m) of parts of long rows, [parts, rows]: one invocation per part. Where there are several parts, a second launch of this shader
// joins them.
// u[0..3]: as in softmax.wgsl, of pairs where parts are joined    u[3].x: parts of a row
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec2<f32>>;

// How many dimensions count the rows.
const OUTER: u32 = 4u;
// Whether a part is a run of its row, or every so-manieth of it.
const RUNS: bool = true;

// Hook: of the Vs of a row from `first` on.
fn result(row: u32, first: u32, end: u32, by: u32) -> vec2<f32> {
    let base = place(row, u[1], u[2], OUTER);
    let step = u[0].w;
    var m = LOWEST;
    for (var k = first; k < end; k += by) {
        m = max(m, most(load(base + k * step)));
    }
    var s = vec4<f32>(0.0);
    for (var k = first; k < end; k += by) {
        s = add(s, power(load(base + k * step) - m));
    }
    return vec2<f32>(m, (s.x + s.y) + (s.z + s.w));
}

// Hook: of what parts gave.
fn joined(row: u32, first: u32, end: u32, by: u32) -> vec2<f32> {
    var m = LOWEST;
    for (var k = first; k < end; k += by) {
        m = max(m, p[k * u[0].x + row].x);
    }
    // Four chains, taken in turn.
    var s = vec4<f32>(0.0);
    for (var k = first; k < end; k += by) {
        let v = p[k * u[0].x + row];
        s = vec4<f32>(s.yzw, s.x + v.y * exp_(v.x - m));
    }
    return vec2<f32>(m, (s.x + s.y) + (s.z + s.w));
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
    let run = (u[0].y + parts - 1u) / parts;
    let first = select(part, part * run, RUNS);
    let end = select(u[0].y, min(u[0].y, first + run), RUNS);
    y[part * u[0].x + row] = result(row, first, end, select(parts, 1u, RUNS));
}
