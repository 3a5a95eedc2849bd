// use math
// The largest element of each window, and where it lies in its plane: the first of equals, the last NaN where there is one. One invocation an output.
// u[0]: outputs, height and width of x, offset of x    u[1]: height and width of y
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> index: array<i32>;

// The windows, height and width each: known as text, so that loops unroll.
const KERNEL: vec2<u32> = vec2<u32>(3u, 3u);
const STRIDE: vec2<u32> = vec2<u32>(2u, 2u);
const PADDING: vec2<u32> = vec2<u32>(1u, 1u);
const DILATION: vec2<u32> = vec2<u32>(1u, 1u);
// Whether no window reaches beyond its plane.
const INSIDE: bool = false;

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
    let row = i / u[1].y;
    let plane = row / u[1].x;
    let first = vec2<u32>(row - plane * u[1].x, i - row * u[1].y) * STRIDE - PADDING;
    let base = u[0].w + plane * (u[0].y * u[0].z);
    var best = 0.0;
    var at = 0xffffffffu;
    for (var ky = 0u; ky < KERNEL.x; ky++) {
        for (var kx = 0u; kx < KERNEL.y; kx++) {
            let p = first + vec2<u32>(ky, kx) * DILATION;
            if INSIDE || all(p < u[0].yz) {
                let own = p.x * u[0].z + p.y;
                let v = x[base + own];
                let larger = at == 0xffffffffu || v > best || is_nan(v);
                best = select(best, v, larger);
                at = select(at, own, larger);
            }
        }
    }
    store_value(i, best);
    store_index(i, at);
}
