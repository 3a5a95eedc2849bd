// Stochastic gradient descent with momentum over an arena: one invocation an element.
// u[0].x: elements; then two vec4 a group: (lr, weight_decay, decay of the buffer, weight of the gradient in it), (weights of gradient and buffer in the step, -, -)
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read_write> p: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read_write> s0: array<f32>;

// Elements of one entry of the table: slices begin at multiples of it.
const BLOCK: u32 = 64u;
const SKIP: u32 = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let group = table[i / BLOCK];
    if group == SKIP {
        return;
    }
    let h = bitcast<vec4<f32>>(u[1u + 2u * group]);
    let k = bitcast<vec4<f32>>(u[2u + 2u * group]);
    let d = g[i] + h.y * p[i];
    let b = h.z * s0[i] + h.w * d;
    s0[i] = b;
    p[i] = p[i] - h.x * (k.x * d + k.y * b);
}
