// Normalises each channel of x [models, n, channels, inner] by its statistics [models, channels]: one invocation per element.
// u[0]: elements, elements of one model, channels, inner size
// u[1]: offsets of x, mean, the deviation's inverse, weight
// u[2].x: offset of bias
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> inverse: array<f32>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn affine(v: f32, c: u32) -> f32 {
    return v * weight[u[1].w + c] + bias[u[2].x + c];
}

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let c = (i / u[0].w) % u[0].z + (i / u[0].y) * u[0].z;
    epilogue(i, affine((x[u[1].x + i] - mean[u[1].y + c]) * inverse[u[1].z + c], c));
}
