// use half
// A value as halves, where invocations that store one element could not: one invocation a word, which holds two.
// u[0].x: number of elements
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let word = gid.x + gid.y * groups.x * 64u;
    let i = word * 2u;
    if i >= u[0].x {
        return;
    }
    var second = 0.0;
    if i + 1u < u[0].x {
        second = x[i + 1u];
    }
    y[word] = half_words(vec4<f32>(x[i], second, 0.0, 0.0)).x;
}
