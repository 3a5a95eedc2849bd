// Gradient of max_pool2d: each element of the input sums, in order, the gradients of the windows in which it was the largest. One invocation an element; where
// windows lie side by side, one a window.
// u[0]: invocations, height and width of the input, offset of g    u[1]: height and width of g, offset of index
// u[2]: where they lie side by side: windows down and across that cover the input, those beyond g among them
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> index: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const KERNEL: vec2<u32> = vec2<u32>(3u, 3u);
const STRIDE: vec2<u32> = vec2<u32>(2u, 2u);
const PADDING: vec2<u32> = vec2<u32>(1u, 1u);
const DILATION: vec2<u32> = vec2<u32>(1u, 1u);
// Whether windows lie side by side, without padding.
const APART: bool = false;

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

fn window(i: u32) {
    let row = i / u[2].y;
    let plane = row / u[2].x;
    let o = vec2<u32>(row - plane * u[2].x, i - row * u[2].y);
    let inside = all(o < u[1].xy);
    let source = select(0u, (plane * u[1].x + o.x) * u[1].y + o.y, inside);
    let at = select(0xffffffffu, u32(index[u[1].z + source]), inside);
    let v = g[u[0].w + source];
    for (var ky = 0u; ky < KERNEL.x; ky++) {
        for (var kx = 0u; kx < KERNEL.y; kx++) {
            let p = o * KERNEL + vec2<u32>(ky, kx);
            if all(p < u[0].yz) {
                let own = p.x * u[0].z + p.y;
                epilogue(plane * (u[0].y * u[0].z) + own, select(0.0, v, own == at));
            }
        }
    }
}

fn element(i: u32) {
    let row = i / u[0].z;
    let plane = row / u[0].y;
    let p = vec2<u32>(row - plane * u[0].y, i - row * u[0].z);
    let own = p.x * u[0].z + p.y;
    var sum = 0.0;
    for (var ky = 0u; ky < KERNEL.x; ky++) {
        for (var kx = 0u; kx < KERNEL.y; kx++) {
            let t = p + PADDING - vec2<u32>(ky, kx) * DILATION;
            let o = t / STRIDE;
            if all(t < vec2<u32>(0x80000000u)) && all(o * STRIDE == t) && all(o < u[1].xy) {
                let source = (plane * u[1].x + o.x) * u[1].y + o.y;
                if u32(index[u[1].z + source]) == own {
                    sum += g[u[0].w + source];
                }
            }
        }
    }
    epilogue(i, sum);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    if APART {
        window(i);
    } else {
        element(i);
    }
}
