// Where each key's run begins in a sorted line, [lines, size + 1]; the last is the end: one invocation per entry, by bisection.
// u[0].xyz: lines, places of a line, size
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> starts: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    let entries = u[0].z + 1u;
    if i >= u[0].x * entries {
        return;
    }
    let line = i / entries;
    let key = i - line * entries;
    var low = 0u;
    var high = u[0].y;
    while low < high {
        let middle = (low + high) / 2u;
        if pairs[line * u[0].y + middle].x < key {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    starts[i] = low;
}
