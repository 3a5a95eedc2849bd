// Counts of x in equal bins from low to high; values outside and NaN are not counted. Integer atomics: exact, and the same in any order. y begins at what
// it holds. An invocation takes every stride-th element.
// u[0]: elements, bins, stride (invocations in all), -    u[1]: low, bins / (high - low), -, -
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<atomic<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
    let low = bitcast<f32>(u[1].x);
    let scale = bitcast<f32>(u[1].y);
    for (var i = gid.x; i < u[0].x; i += u[0].z) {
        let at = (x[i] - low) * scale;
        // NaN is told by its bits: comparisons with it say different things on different drivers.
        let number = (bitcast<u32>(at) & 0x7fffffffu) <= 0x7f800000u;
        if number && at >= 0.0 && at < f32(u[0].y) {
            atomicAdd(&y[u32(at)], 1u);
        }
    }
}
