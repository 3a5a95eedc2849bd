// Gradient of avg_pool2d: each element of the input sums, in order, its share of the gradients of the windows that it lies in. One invocation an element.
// u[0]: elements, height and width of the input, offset of g    u[1]: height and width of g, kernel height and width
// u[2]: stride, padding    u[3]: 1 where the padding counts
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

// How many elements the window of output (oy, ox) is divided by.
fn divisor(o: vec2<u32>) -> f32 {
    let start = o * u[2].xy;
    let end = min(start + u[1].zw, u[0].yz + 2u * u[2].zw);
    let part = min(end, u[0].yz + u[2].zw) - max(start, u[2].zw);
    let count = select(part, end - start, u[3].x == 1u);
    return f32(count.x * count.y);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let size = u[0].y * u[0].z;
    let own = i % size;
    let plane = u[0].w + i / size * (u[1].x * u[1].y);
    // The windows that reach this element are a run of outputs in each direction.
    let at = vec2<u32>(own / u[0].z, own % u[0].z) + u[2].zw;
    let first = (max(at + 1u, u[1].zw) - u[1].zw + u[2].xy - 1u) / u[2].xy;
    let last = min(at / u[2].xy + 1u, u[1].xy);
    var sum = 0.0;
    for (var oy = first.x; oy < last.x; oy++) {
        var row = 0.0;
        for (var ox = first.y; ox < last.y; ox++) {
            row += g[plane + oy * u[1].y + ox] / divisor(vec2<u32>(oy, ox));
        }
        sum += row;
    }
    epilogue(i, sum);
}
