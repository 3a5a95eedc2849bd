// Where elements lie: row-major indices to places in a buffer. Strides may be negative, as wrapping u32. Joined after math (`mul_hi_` is there).

// The three indices of element i of [outer, size, inner].
fn unravel(i: u32, size: u32, inner: u32) -> vec3<u32> {
    let line = i / inner;
    let outer = line / size;
    return vec3<u32>(outer, line - outer * size, i - line * inner);
}

// Where index i over up to four dimensions lies; sizes and strides innermost first.
fn place(i: u32, sizes: vec4<u32>, strides: vec4<u32>, rank: u32) -> u32 {
    if rank <= 1u {
        return i * strides.x;
    }
    let a = i / sizes.x;
    let at = (i - a * sizes.x) * strides.x;
    if rank == 2u {
        return at + a * strides.y;
    }
    let b = a / sizes.y;
    let at2 = at + (a - b * sizes.y) * strides.y;
    if rank == 3u {
        return at2 + b * strides.z;
    }
    let c = b / sizes.z;
    return at2 + (b - c * sizes.z) * strides.z + c * strides.w;
}

// i / d for i below 2^31, by the words that kernel::divisor gives for d.
fn quotient(i: u32, magic: u32, shift: u32) -> u32 {
    return select(mul_hi_(i, magic), i, magic == 0u) >> shift;
}
