// The mean of each window. One invocation an output; rows of a window are summed one by one, then together.
// u[0]: outputs, height and width of x, offset of x    u[1]: height and width of y, kernel height and width
// u[2]: stride, padding    u[3]: 1 where the padding counts
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let o = vec2<u32>((i / u[1].y) % u[1].x, i % u[1].y);
    let plane = u[0].w + i / (u[1].y * u[1].x) * (u[0].y * u[0].z);
    let size = u[0].yz;
    let padding = u[2].zw;
    // In coordinates that count from the corner of the padding.
    let start = o * u[2].xy;
    let end = min(start + u[1].zw, size + 2u * padding);
    let first = max(start, padding) - padding;
    let last = max(min(end, size + padding), padding) - padding;
    let whole = end - start;
    let part = max(last, first) - first;
    let divisor = select(part.x * part.y, whole.x * whole.y, u[3].x == 1u);
    var sum = 0.0;
    for (var iy = first.x; iy < last.x; iy++) {
        var row = 0.0;
        for (var ix = first.y; ix < last.y; ix++) {
            row += x[plane + iy * size.y + ix];
        }
        sum += row;
    }
    epilogue(i, sum / f32(max(divisor, 1u)));
}
