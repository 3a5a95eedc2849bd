// Stable radix sort of lines of an index, first of three launches a digit: how often each digit occurs in each chunk, [lines, digits, chunks].
// One invocation per chunk of a line; no atomics but for the error word.
// u[0]: lines, places of a line, chunks of a line, shift of the digit
// u[1]: strides of the index over outer, places and inner, its offset
// u[2].xyz: lines that follow each other over inner, size that the index must be below, which error word
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> index: array<i32>;
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> errors: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> counts: array<u32>;

const CHUNK: u32 = 256u;

// Element k of a line as (key, place).
fn pair(line: u32, k: u32) -> vec2<u32> {
    return pairs[line * u[0].y + k];
}

// The same from the index itself; what is out of range is reported and clamped.
fn fresh(line: u32, k: u32) -> vec2<u32> {
    let a = line / u[2].x;
    let b = line - a * u[2].x;
    let key = u32(index[u[1].w + a * u[1].x + k * u[1].y + b * u[1].z]);
    if key >= u[2].y {
        atomicOr(&errors[u[2].z], 1u);
    }
    return vec2<u32>(min(key, u[2].y - 1u), k);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = gid.x + gid.y * groups.x * 64u;
    let chunks = u[0].z;
    if i >= u[0].x * chunks {
        return;
    }
    let line = i / chunks;
    let chunk = i - line * chunks;
    var found: array<u32, 16>;
    let end = min((chunk + 1u) * CHUNK, u[0].y);
    for (var k = chunk * CHUNK; k < end; k++) {
        found[(pair(line, k).x >> u[0].w) & 15u] += 1u;
    }
    for (var d = 0u; d < 16u; d++) {
        counts[(line * 16u + d) * chunks + chunk] = found[d];
    }
}
