// A step of an optimizer over an arena, RUN quads an invocation. The rules in src/optim/ replace `update`; as it lies, it is plain gradient descent.
// u[0].xy: quads of the arena, offset of the control of a scaled loss; then the floats of each group
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read_write> values: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> grads: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> table: array<u32>;

// Quads of one entry of the table: slices begin at multiples of it.
const BLOCK: u32 = 16u;
const SKIP: u32 = 0xffffffffu;
// Quads of an invocation, side by side: a part of BLOCK.
const RUN: u32 = 1u;

// vec4s of floats that a group has, and those of the invocation's group: read once, for a processor pays for each lane that reads.
const FLOATS: u32 = 1u;
var<private> f: array<vec4<f32>, FLOATS>;

// Hook: what gradients are multiplied with, above 0 to skip the step, how many steps were skipped before. As it lies, no loss is scaled.
fn scaling() -> vec3<f32> {
    return vec3<f32>(1.0, 0.0, 0.0);
}

// Hook: make the floats those of this step, where that many of the steps that they count were skipped.
fn correct(skipped: f32) {
}

// The new value of quad i, from its gradient and value, and the floats. Its state is in s0[i], s1[i] ...
fn update(g: vec4<f32>, p: vec4<f32>, i: u32) -> vec4<f32> {
    return p - f[0].x * (g + f[0].y * p);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let first = (gid.x + gid.y * groups.x * 64u) * RUN;
    if first >= u[0].x {
        return;
    }
    let group = table[first / BLOCK];
    let s = scaling();
    if group == SKIP || s.y > 0.0 {
        return;
    }
    for (var n = 0u; n < FLOATS; n++) {
        f[n] = bitcast<vec4<f32>>(u[1u + group * FLOATS + n]);
    }
    if s.z > 0.0 {
        correct(s.z);
    }
    for (var i = first; i < first + RUN; i++) {
        values[i] = update(grads[i] * s.x, values[i], i);
    }
}
