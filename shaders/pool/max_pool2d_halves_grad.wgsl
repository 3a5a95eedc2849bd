// Gradient of max_pool2d of 2 x 2 windows side by side, where rows are whole fours: one invocation per two windows, whose four columns of two rows it stores.
// u[0]: invocations, height and width of the input, offset of g    u[1]: height and half the width of g, offset of index, windows down that cover the input
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> g: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> index: array<vec2<i32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

fn epilogue(i: u32, v: vec4<f32>) {
    y[i >> 2u] = v;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    if i >= u[0].x {
        return;
    }
    let row = i / u[1].y;
    let plane = row / u[1].w;
    let down = row - plane * u[1].w;
    let across = i - row * u[1].y;
    // A last row that no window covers has no gradient.
    let inside = down < u[1].x;
    let source = select(0u, (plane * u[1].x + down) * u[1].y + across, inside);
    let v = g[(u[0].w >> 1u) + source].xxyy;
    let places = vec2<u32>(index[(u[1].z >> 1u) + source]).xxyy;
    let at = select(vec4<u32>(0xffffffffu), places, inside);
    let own = down * 2u * u[0].z + across * 4u;
    let top = vec4<u32>(own) + vec4<u32>(0u, 1u, 2u, 3u);
    let first = plane * (u[0].y * u[0].z) + own;
    epilogue(first, select(vec4<f32>(0.0), v, at == top));
    if down * 2u + 1u < u[0].y {
        epilogue(first + u[0].z, select(vec4<f32>(0.0), v, at == top + u[0].z));
    }
}
