// count vectors of one value for each invocation, placed as in read.wgsl.
// u[0]: count (a multiple of 4), first, step, base    u[1]: -, the value, -, -
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let step = u[0].z;
    let v = vec4<f32>(bitcast<f32>(u[1].y));
    var at = u[0].w + gid.x * u[0].y;
    for (var i = 0u; i < u[0].x; i += 4u) {
        y[at] = v;
        y[at + step] = v;
        y[at + 2u * step] = v;
        y[at + 3u * step] = v;
        at += 4u * step;
    }
}
