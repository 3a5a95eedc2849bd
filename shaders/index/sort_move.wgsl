// Stable radix sort, third launch of a digit: moves the (key, place) pairs of each chunk, in order, to where their digit's run has come.
// One invocation per chunk of a line.
// u[0]: lines, places of a line, chunks of a line, shift of the digit
// u[1]: strides of the index over outer, places and inner, its offset
// u[2].xy: lines that follow each other over inner, size that the index must be below
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 3>;
@group(0) @binding(1) var<storage, read> index: array<i32>;
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read> totals: array<u32>;
@group(0) @binding(5) var<storage, read_write> sorted: array<vec2<u32>>;

const CHUNK: u32 = 256u;

// Element k of a line as (key, place).
fn pair(line: u32, k: u32) -> vec2<u32> {
    return pairs[line * u[0].y + k];
}

// The same from the index itself, clamped.
fn fresh(line: u32, k: u32) -> vec2<u32> {
    let a = line / u[2].x;
    let b = line - a * u[2].x;
    return vec2<u32>(min(u32(index[u[1].w + a * u[1].x + k * u[1].y + b * u[1].z]), u[2].y - 1u), k);
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
    var next: array<u32, 16>;
    var before = line * u[0].y;
    for (var d = 0u; d < 16u; d++) {
        next[d] = before + counts[(line * 16u + d) * chunks + chunk];
        before += totals[line * 16u + d];
    }
    let end = min((chunk + 1u) * CHUNK, u[0].y);
    for (var k = chunk * CHUNK; k < end; k++) {
        let p = pair(line, k);
        let digit = (p.x >> u[0].w) & 15u;
        sorted[next[digit]] = p;
        next[digit] += 1u;
    }
}
