// Fused elementwise operations, four neighbours at a time in row-major order of the index space: an invocation takes every so-manieth four.
// u[0]: number of fours, how many all invocations take at once
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
// bindings

fn epilogue(i: u32, v: vec4<f32>) {
    y[i >> 2u] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    for (var q = gid.x; q < u[0].x; q += u[0].y) {
        epilogue(q * 4u, vec4<f32>());
    }
}
