// Copy a contiguous value into its slice of an arena: one invocation an element.
// u[0]: (elements, offset of the value, offset of the slice, -)
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i < u[0].x {
        y[u[0].z + i] = x[u[0].y + i];
    }
}
