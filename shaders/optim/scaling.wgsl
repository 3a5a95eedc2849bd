// What a step with a scaled loss does: from what was found among the gradients, what to multiply them with and whether to skip it; then the next scale. One
// workgroup: each invocation reads every 256th four of parts; one then joins what all have found.
// u[0]: fours of parts, offsets of state, skipped and earlier; u[1]: growth, backoff, interval, whether gradients are as they should be already (floats)
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> part: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> state: array<f32>;
@group(0) @binding(3) var<storage, read> skipped: array<f32>;
@group(0) @binding(4) var<storage, read_write> control: array<f32>;
@group(0) @binding(5) var<storage, read_write> next: array<f32>;
@group(0) @binding(6) var<storage, read_write> skipped_next: array<f32>;

var<workgroup> all_found: array<u32, 256>;

// Hook: above 0 where something was found in an earlier arena.
fn earlier_found() -> f32 {
    return 0.0;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) index: u32) {
    var mine = vec4<u32>();
    for (var q = index; q < u[0].x; q += 256u) {
        mine |= part[q];
    }
    all_found[index] = mine.x | mine.y | mine.z | mine.w;
    // Every invocation's word is there before one reads them all.
    workgroupBarrier();
    if index > 0u {
        return;
    }
    var any_found = select(0u, 1u, earlier_found() > 0.0);
    for (var n = 0u; n < 256u; n++) {
        any_found |= all_found[n];
    }
    let found = any_found > 0u;
    let rule = bitcast<vec4<f32>>(u[1]);
    let scale = state[u[0].y];
    let since = state[u[0].y + 1u] + 1.0;
    let grows = since >= rule.z;
    let count = select(0.0, 1.0, found);
    control[0] = select(1.0 / scale, 1.0, rule.w > 0.0);
    control[1] = count;
    control[2] = skipped[u[0].z];
    control[3] = 0.0;
    // Powers of two near the ends of f32: the scale itself and its inverse stay finite.
    next[0] = clamp(scale * select(select(1.0, rule.x, grows), rule.y, found), 7.8886091e-31, 1.7014118e38);
    next[1] = select(since, 0.0, found || grows);
    next[2] = state[u[0].y + 2u] + count;
    next[3] = 0.0;
    skipped_next[0] = skipped[u[0].z] + count;
}
