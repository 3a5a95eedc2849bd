// use math, layout
// softmax, or its logarithm, along rows: one invocation per row.
// u[0]: rows, elements of a row, offset of x, stride along the row
// u[1], u[2]: sizes and strides of the dimensions that count the rows, innermost first
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const LOG: bool = false;
const OUTER: u32 = 4u;
const LOWEST: f32 = -3.40282347e38;

fn load(i: u32) -> f32 {
    return x[u[0].z + i];
}

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = gid.x + gid.y * groups.x * 64u;
    if row >= u[0].x {
        return;
    }
    let n = u[0].y;
    let step = u[0].w;
    let base = place(row, u[1], u[2], OUTER);
    var m = LOWEST;
    for (var k = 0u; k < n; k++) {
        m = max(m, load(base + k * step));
    }
    // NaN and infinity make the whole row NaN: max may lose them, but the differences below don't.
    var s = vec4<f32>(0.0);
    let whole = n & 0xfffffffcu;
    for (var k = 0u; k < whole; k += 4u) {
        let at = base + k * step;
        s.x += exp_(load(at) - m);
        s.y += exp_(load(at + step) - m);
        s.z += exp_(load(at + 2u * step) - m);
        s.w += exp_(load(at + 3u * step) - m);
    }
    for (var k = whole; k < n; k++) {
        s.x += exp_(load(base + k * step) - m);
    }
    let sum = (s.x + s.y) + (s.z + s.w);
    let offset = log_(sum);
    let factor = 1.0 / sum;
    for (var k = 0u; k < n; k++) {
        let v = load(base + k * step) - m;
        if LOG {
            epilogue(row * n + k, v - offset);
        } else {
            epilogue(row * n + k, exp_(v) * factor);
        }
    }
}
