// use math
// The index of the largest (or smallest) element along a dimension; of equals the first, and NaN before all: one invocation per part of an output.
// Parts are runs of the dimension; where there are several, what they found, [parts, outputs], is the next launch's candidates.
// u[0]: outputs, candidates of each, parts of each, offset of x
// u[1].xyz: inner size, stride of the outer dimension, stride of the searched one
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> c: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<i32>;

const MAX: bool = true;
// Candidates of one part.
const PART: u32 = 256u;

// The k-th candidate of output o.
fn candidate(o: u32, k: u32) -> u32 {
    return u32(c[k * u[0].x + o]);
}

fn better(a: f32, b: f32) -> bool {
    return !is_nan(a) && (is_nan(b) || select(a > b, b > a, MAX));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let j = gid.x + gid.y * groups.x * 64u;
    let outputs = u[0].x;
    if j >= outputs * u[0].z {
        return;
    }
    let part = j / outputs;
    let o = j - part * outputs;
    let base = u[0].w + (o / u[1].x) * u[1].y + o % u[1].x;
    let first = part * PART;
    let end = min(first + PART, u[0].y);
    var best = candidate(o, first);
    var value = x[base + best * u[1].z];
    for (var k = first + 1u; k < end; k++) {
        let i = candidate(o, k);
        let v = x[base + i * u[1].z];
        if better(value, v) {
            best = i;
            value = v;
        }
    }
    y[j] = i32(best);
}
