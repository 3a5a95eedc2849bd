// Copy a contiguous value into its slice of an arena, RUN elements an invocation.
// Elements are counted in V. u[0]: elements, offset of the value, offset of the slice
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

alias V = f32;
const RUN: u32 = 1u;

// Hook: where V is vec4<f32>, so is an element of x.
fn load(i: u32) -> V {
    return x[u[0].y + i];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let first = (gid.x + gid.y * groups.x * 64u) * RUN;
    for (var i = first; i < min(u[0].x, first + RUN); i++) {
        y[u[0].z + i] = load(i);
    }
}
