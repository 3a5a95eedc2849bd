// Fused elementwise operations: one invocation per element, in row-major order of the index space.
// u[0].x: number of elements
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
// bindings

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i < u[0].x {
        epilogue(i, 0.0);
    }
}
