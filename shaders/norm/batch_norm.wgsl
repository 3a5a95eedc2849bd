// use math, layout
// Normalises each channel of x [models, n, channels, inner] by its statistics [models, channels]: one invocation per element, or per four of one channel.
// u[0]: invocations, channels, offsets of x and mean    u[1]: offsets of the deviation's inverse, weight and bias, magic number of inner
// u[2]: shift of inner, magic number and shift of channels, magic number of n    u[3].x: shift of n
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> inverse: array<f32>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

alias V = f32;
// Elements of an invocation: 1, or 4 where V is vec4<f32>.
const WIDTH: u32 = 1u;

// Hook: where V is vec4<f32>, so is an element of x.
fn load(i: u32) -> V {
    return x[i];
}

// Hook: without weight and bias, the value itself.
fn affine(v: V, c: u32) -> V {
    return v * weight[u[1].y + c] + bias[u[1].z + c];
}

fn epilogue(i: u32, v: V) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let id = gid.x + gid.y * groups.x * 64u;
    if id >= u[0].x {
        return;
    }
    let i = id * WIDTH;
    let row = quotient(i, u[1].w, u[2].x);
    let image = quotient(row, u[2].y, u[2].z);
    let c = row - (image - quotient(image, u[2].w, u[3].x)) * u[0].y;
    epilogue(i, affine((load(u[0].z + i) - mean[u[0].w + c]) * inverse[u[1].x + c], c));
}
