// Puts one input of a concatenation in its place: one invocation per element of the input.
// u[0]: number of elements, offset of x, elements of one run of x, elements of one run of y
// u[1].x: where x's run begins in y's
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let run = i / u[0].z;
    y[run * u[0].w + u[1].x + (i - run * u[0].z)] = x[u[0].y + i];
}
