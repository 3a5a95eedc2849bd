// use math, layout
// Normalises each channel of x [models, n, channels, inner] by its statistics [models, channels]: one invocation per STEPS
// neighbours of one channel.
// Elements of x are counted in V. u[0]: invocations, channels, offsets of x and of mean and the deviation's inverse
// u[1]: offsets of weight and bias, magic number and shift of inner    u[2]: magic numbers and shifts of channels and n
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> center: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

alias V = f32;
// Elements of a V, and Vs of an invocation.
const WIDTH: u32 = 1u;
const STEPS: u32 = 1u;

// Hook: where V is vec4<f32>, so is an element of x.
fn load(i: u32) -> V {
    return x[u[0].z + i];
}

// Hooks: without weight and bias, 1 and 0.
fn factor(c: u32) -> f32 {
    return weight[u[1].x + c];
}

fn shift(c: u32) -> f32 {
    return bias[u[1].y + c];
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
    let first = id * STEPS;
    let row = quotient(first * WIDTH, u[1].z, u[1].w);
    let image = quotient(row, u[2].x, u[2].y);
    let c = row - (image - quotient(image, u[2].z, u[2].w)) * u[0].y;
    let m = center[u[0].w + 2u * c];
    let d = center[u[0].w + 2u * c + 1u];
    let k = factor(c);
    let b = shift(c);
    for (var n = 0u; n < STEPS; n++) {
        epilogue((first + n) * WIDTH, (load(first + n) - m) * d * k + b);
    }
}
