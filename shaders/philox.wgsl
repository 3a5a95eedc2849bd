// Philox 4x32-10, the counter-based generator of all randomness: same bits as src/rng.rs. Joined after math.
// (`mul_hi_`, `log_`, `sin_core` and `cos_core` are there.)

const PHILOX_M0: u32 = 0xD2511F53u;
const PHILOX_M1: u32 = 0xCD9E8D57u;
const PHILOX_W0: u32 = 0x9E3779B9u;
const PHILOX_W1: u32 = 0xBB67AE85u;

fn philox_round(key: vec2<u32>, c: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(mul_hi_(PHILOX_M1, c.z) ^ c.y ^ key.x, PHILOX_M1 * c.z, mul_hi_(PHILOX_M0, c.x) ^ c.w ^ key.y, PHILOX_M0 * c.x);
}

// Four random words.
fn philox(key: vec2<u32>, counter: vec4<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0; round < 10; round++) {
        c = philox_round(k, c);
        k += vec2<u32>(PHILOX_W0, PHILOX_W1);
    }
    return c;
}

// The word of element i: four elements share a call.
fn philox_word(key: vec2<u32>, i: u32, offset: vec2<u32>) -> u32 {
    let w = philox(key, vec4<u32>(i >> 2u, 0u, offset));
    return select(select(w.x, w.y, (i & 1u) == 1u), select(w.z, w.w, (i & 1u) == 1u), (i & 2u) == 2u);
}

// The two words of element i: two elements share a call.
fn philox_pair(key: vec2<u32>, i: u32, offset: vec2<u32>) -> vec2<u32> {
    let w = philox(key, vec4<u32>(i >> 1u, 0u, offset));
    return select(w.xy, w.zw, (i & 1u) == 1u);
}

// A float in [0, 1) from the word's upper 24 bits. Exact.
fn uniform01(word: u32) -> f32 {
    return f32(word >> 8u) * 5.9604644775390625e-08;
}

// A standard normal by Box and Muller: sqrt(-2 log u) cos(2 pi v) with u in (0, 1], v in [0, 1), each of 24 bits. 8 ulp.
fn normal01(words: vec2<u32>) -> f32 {
    let u = f32((words.x >> 8u) + 1u) * 5.9604644775390625e-08;
    // The angle is reduced in integers: q quarter turns and a rest of at most an eighth turn.
    let a = words.y >> 8u;
    let q = (a + 0x200000u) >> 22u;
    let r = f32(i32(a) - i32(q << 22u)) * 3.7450704e-07;
    let y = select(cos_core(r), sin_core(r), (q & 1u) == 1u);
    return sqrt(-2.0 * log_(u)) * select(y, -y, ((q + 1u) & 2u) == 2u);
}
