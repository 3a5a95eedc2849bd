// Stable radix sort, second launch of a digit: sums over the chunks before, in place, and the total of each digit, [lines, digits].
// One invocation per digit of a line.
// u[0].xy: lines, chunks of a line
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> totals: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x * 16u {
        return;
    }
    var sum = 0u;
    for (var c = 0u; c < u[0].y; c++) {
        let n = counts[i * u[0].y + c];
        counts[i * u[0].y + c] = sum;
        sum += n;
    }
    totals[i] = sum;
}
