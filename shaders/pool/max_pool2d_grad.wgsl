// Gradient of max_pool2d: each element of the input sums, in order, the gradients of the windows in which it was the largest. One invocation an element.
// u[0]: elements, height and width of the input, offset of g    u[1]: height and width of g, kernel height and width
// u[2]: stride, padding    u[3]: dilation (height, width), offset of index
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let size = u[0].y * u[0].z;
    let own = i % size;
    let plane = i / size * (u[1].x * u[1].y);
    var sum = 0.0;
    for (var ky = 0u; ky < u[1].z; ky++) {
        let ty = own / u[0].z + u[2].z - ky * u[3].x;
        let oy = ty / u[2].x;
        if ty >= 0x80000000u || ty % u[2].x > 0u || oy >= u[1].x {
            continue;
        }
        for (var kx = 0u; kx < u[1].w; kx++) {
            let tx = own % u[0].z + u[2].w - kx * u[3].y;
            let ox = tx / u[2].y;
            if tx >= 0x80000000u || tx % u[2].y > 0u || ox >= u[1].y {
                continue;
            }
            let o = plane + oy * u[1].y + ox;
            if u32(index[u[3].z + o]) == own {
                sum += g[u[0].w + o];
            }
        }
    }
    epilogue(i, sum);
}
