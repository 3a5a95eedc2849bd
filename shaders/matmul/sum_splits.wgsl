// The second pass of a split sum: y[i] = part[0][i] + part[1][i] + ..., in order. One invocation an element.
// u[0]: number of elements, number of parts, elements of the result proper
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> part: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

// Hook: where the last elements are something else.
fn put(i: u32, v: f32) {
    epilogue(i, v);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    let count = u[0].x;
    if i >= count {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < u[0].y; s++) {
        sum += part[s * count + i];
    }
    put(i, sum);
}
