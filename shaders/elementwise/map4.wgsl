// Fused elementwise operations, four neighbours at a time in row-major order of the index space.
// u[0]: number of fours; where an invocation takes a run of them, how long; else how many all invocations take at once
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
// bindings

// Whether an invocation takes a run of fours, or every so-manieth.
const RUNS: bool = true;

fn epilogue(i: u32, v: vec4<f32>) {
    y[i >> 2u] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let first = select(gid.x, gid.x * u[0].y, RUNS);
    let end = select(u[0].x, min(u[0].x, first + u[0].y), RUNS);
    for (var q = first; q < end; q += select(u[0].y, 1u, RUNS)) {
        epilogue(q * 4u, vec4<f32>());
    }
}
