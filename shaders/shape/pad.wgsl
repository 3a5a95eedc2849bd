// Puts x into a larger tensor filled with one value: one invocation per output element.
// u[0]: number of output elements, offset of x, the value's bits
// u[1 + d]: of dimension d, innermost first: size of the output, size of x, where x begins, stride of x
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 9>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

alias T = f32;
const RANK: u32 = 8u;

fn value() -> T {
    return bitcast<f32>(u[0].z);
}

fn source(at: u32) -> T {
    return x[at];
}

fn epilogue(i: u32, v: T) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    var rest = i;
    var at = u[0].y;
    var inside = true;
    for (var d = 0u; d < RANK; d++) {
        let w = u[1u + d];
        let next = rest / w.x;
        // Before the beginning the difference wraps around, so one comparison finds both ends.
        let k = rest - next * w.x - w.z;
        inside = inside && k < w.y;
        at += k * w.w;
        rest = next;
    }
    var v = value();
    if inside {
        v = source(at);
    }
    epilogue(i, v);
}
