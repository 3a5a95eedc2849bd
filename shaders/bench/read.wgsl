// The sum of count vectors for each invocation, of the n-th from base + n * first on, step apart: side by side (first 1, step all) or in a row (first count,
// step 1).
// u[0]: count (a multiple of 4), first, step, base    u[1]: where the first sum goes, -, -, -
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let step = u[0].z;
    var at = u[0].w + gid.x * u[0].y;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var i = 0u; i < u[0].x; i += 4u) {
        a0 += x[at];
        a1 += x[at + step];
        a2 += x[at + 2u * step];
        a3 += x[at + 3u * step];
        at += 4u * step;
    }
    let a = (a0 + a1) + (a2 + a3);
    y[u[1].x + gid.x] = (a.x + a.y) + (a.z + a.w);
}
