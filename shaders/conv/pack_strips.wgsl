// A convolution's weight as strips.wgsl reads it: [model and group][block of y's channels][channels of x, CHANNELS together][row of the kernel], and there
// the steps (channel of x, column of the kernel) in fours, of ROWS channels of y side by side; zeros where there is none. One invocation a channel of y.
// u[0]: number of invocations, offset of w, channels of a group of y and of x   u[1]: their strides in w, elements of a group in w, height of the kernel
// u[2]: width of the kernel, blocks, vectors of a step and channel
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f32>>;

// Channels of y in a block; room for them; channels of x in a step.
const ROWS: u32 = 8u;
const ROOM: u32 = 8u;
const CHANNELS: u32 = 1u;

fn tap(base: u32, channel: u32, n: u32) -> f32 {
    let c = channel + n / u[2].x;
    if n / u[2].x >= CHANNELS || c >= u[0].w {
        return 0.0;
    }
    return w[base + c * u[1].y + n % u[2].x];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let r = i % ROOM;
    let step = i / ROOM;
    let k = step % u[1].w;
    let rest = step / u[1].w;
    let steps = (u[0].w + CHANNELS - 1u) / CHANNELS;
    let channel = (rest % steps) * CHANNELS;
    let block = rest / steps;
    let row = (block % u[2].y) * ROWS + r;
    let there = r < ROWS && row < u[0].z;
    let base = u[0].y + (block / u[2].y) * u[1].z + row * u[1].x + k * u[2].x;
    for (var q = 0u; q < u[2].z; q++) {
        var v = vec4<f32>();
        if there {
            v = vec4<f32>(tap(base, channel, q * 4u), tap(base, channel, q * 4u + 1u), tap(base, channel, q * 4u + 2u), tap(base, channel, q * 4u + 3u));
        }
        packed[(step * u[2].z + q) * ROOM + r] = v;
    }
}
