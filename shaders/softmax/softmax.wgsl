// use rows, math, layout
// softmax, or its logarithm, along rows: LANES invocations a row, which take every LANES-th V of it.
// u[0]: rows, Vs of a row, offset of x, stride of a V along the row
// u[1], u[2]: sizes and strides of the dimensions that count the rows, innermost first
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// How many dimensions count the rows.
const OUTER: u32 = 4u;
const LANES: u32 = 1u;
const LOG: bool = false;

var<workgroup> values: array<f32, 64>;

fn epilogue(i: u32, v: V) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = (gid.x + gid.y * groups.x * 64u) / LANES;
    let lane = index % LANES;
    // What is past the last row has nothing of it, and joins in.
    let row = min(id, u[0].x - 1u);
    let n = select(0u, u[0].y, id < u[0].x);
    let step = u[0].w;
    let base = place(row, u[1], u[2], OUTER);
    var m = LOWEST;
    for (var k = lane; k < n; k += LANES) {
        m = max(m, most(load(base + k * step)));
    }
    // NaN and infinity make the whole row NaN: max may lose them, but the differences below don't.
    m = largest(m, index);
    var s = vec4<f32>(0.0);
    for (var k = lane; k < n; k += LANES) {
        s = add(s, power(load(base + k * step) - m));
    }
    let sum = total((s.x + s.y) + (s.z + s.w), index);
    let offset = log_(sum);
    let factor = 1.0 / sum;
    for (var k = lane; k < n; k += LANES) {
        let v = load(base + k * step) - m;
        let i = (row * n + k) * WIDTH;
        if LOG {
            epilogue(i, v - offset);
        } else {
            epilogue(i, power(v) * factor);
        }
    }
}
