// use math
// The largest element of each window, and where it lies in its plane: the first of equals, the last NaN where there is one. One invocation an output.
// u[0]: outputs, height and width of x, offset of x    u[1]: height and width of y, kernel height and width    u[2]: stride, padding    u[3]: dilation
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> index: array<i32>;

// Hooks: an output that nobody wants is not stored.
fn store_value(i: u32, v: f32) {
    y[i] = v;
}

fn store_index(i: u32, at: u32) {
    index[i] = i32(at);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let ox = i % u[1].y;
    let oy = (i / u[1].y) % u[1].x;
    let plane = u[0].w + i / (u[1].y * u[1].x) * (u[0].y * u[0].z);
    var best = 0.0;
    var at = 0xffffffffu;
    for (var ky = 0u; ky < u[1].z; ky++) {
        let iy = oy * u[2].x + ky * u[3].x - u[2].z;
        if iy >= u[0].y {
            continue;
        }
        for (var kx = 0u; kx < u[1].w; kx++) {
            let ix = ox * u[2].y + kx * u[3].y - u[2].w;
            if ix >= u[0].z {
                continue;
            }
            let v = x[plane + iy * u[0].z + ix];
            if at == 0xffffffffu || v > best || is_nan(v) {
                best = v;
                at = iy * u[0].z + ix;
            }
        }
    }
    store_value(i, best);
    store_index(i, at);
}
