// use math, layout
// The gradient of batch_norm by x [models, n, channels, inner], from that of the result and what batch_sums.wgsl made of both: one invocation per STEPS
// neighbours of one channel.
// Elements are counted in V. u[0]: invocations, channels, offsets of x and g    u[1]: offset of the scale, magic number and shift of inner, magic number of channels
// u[2]: shift of channels, magic number and shift of n
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read> scale: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

alias V = f32;
// Elements of a V, and Vs of an invocation.
const WIDTH: u32 = 1u;
const STEPS: u32 = 1u;

// Hooks: where V is vec4<f32>, so is an element of x and g.
fn load(i: u32) -> V {
    return x[u[0].z + i];
}

fn load_g(i: u32) -> V {
    return g[u[0].w + i];
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
    let row = quotient(first * WIDTH, u[1].y, u[1].z);
    let image = quotient(row, u[1].w, u[2].x);
    let c = u[1].x + 4u * (row - (image - quotient(image, u[2].y, u[2].z)) * u[0].y);
    let factor = scale[c];
    let taken = scale[c + 1u];
    let slope = scale[c + 2u];
    let mean = scale[c + 3u];
    for (var k = 0u; k < STEPS; k++) {
        let i = first + k;
        epilogue(i * WIDTH, factor * ((load_g(i) - taken) - (load(i) - mean) * slope));
    }
}
