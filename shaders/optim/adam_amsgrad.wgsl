// Adam and AdamW with the largest second moment so far (AMSGrad) over an arena: one invocation an element.
// u[0].x: elements; then two vec4 a group: (lr / (1 - beta1^t), weight decay as L2, factor of decoupled decay, eps), (beta1, beta2, -, sqrt(1 - beta2^t)),
// and one more: (1 - beta1, 1 - beta2, -, -)
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read_write> p: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read_write> s0: array<f32>;
@group(0) @binding(5) var<storage, read_write> s1: array<f32>;
@group(0) @binding(6) var<storage, read_write> s2: array<f32>;

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
    let h = bitcast<vec4<f32>>(u[1u + 3u * group]);
    let k = bitcast<vec4<f32>>(u[2u + 3u * group]);
    let c = bitcast<vec4<f32>>(u[3u + 3u * group]);
    let x = p[i] * h.z;
    let d = g[i] + h.y * p[i];
    let m = k.x * s0[i] + c.x * d;
    let v = k.y * s1[i] + c.y * d * d;
    s0[i] = m;
    s1[i] = v;
    let most = max(s2[i], v);
    s2[i] = most;
    let denom = sqrt(most) / k.w + h.w;
    p[i] = x - h.x * m / denom;
}
