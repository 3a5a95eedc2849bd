// Whether gradients in an arena are finite: each invocation looks at every so-manieth quad, and says whether it found one that is not.
// u[0].xy: quads of the arena, how many all invocations take at once
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> grads: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read_write> part: array<u32>;

// Quads of one entry of the table, and the entry of a slice that takes no part: what lies there is of an earlier step.
const BLOCK: u32 = 16u;
const SKIP: u32 = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    var found = 0u;
    for (var q = gid.x; q < u[0].x; q += u[0].y) {
        let bits = bitcast<vec4<u32>>(grads[q]) & vec4<u32>(0x7fffffffu);
        let bad = any(bits >= vec4<u32>(0x7f800000u)) && table[q / BLOCK] < SKIP;
        found |= select(0u, 1u, bad);
    }
    part[gid.x] = found;
}
