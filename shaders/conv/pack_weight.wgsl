// The weight [groups of all models][o][c][taps] as the gradient of the image reads it: [groups][c][o, taps], rows padded with zeros to a multiple of four.
// u[0]: number of elements, c, length of a padded row, length without padding    u[1]: taps, o of a group, offset of w
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let k = i % u[0].z;
    let row = i / u[0].z;
    let c = row % u[0].y;
    let group = row / u[0].y;
    var v = 0.0;
    if k < u[0].w {
        v = w[u[1].z + ((group * u[1].y + k / u[1].x) * u[0].y + c) * u[1].x + k % u[1].x];
    }
    packed[i] = v;
}
