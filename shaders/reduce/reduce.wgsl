// use math, layout
// Sum, maximum or minimum over some dimensions: one invocation per part of an output. With one part an output that is the whole; otherwise
// the parts go to scratch, [parts, outputs], and a second launch of this shader reduces them. Part p owns a run of terms, or the terms p, p + parts, ...
// Where neighbours come in fours, V is vec4<f32>, and what is counted here (outputs, or terms) is fours of them, or sixteens.
// u[0]: outputs, terms of each, parts of each, offset of x
// u[1], u[2]: sizes and strides of the kept dimensions, innermost first; u[3], u[4]: those of the reduced ones
// u[5]: a step of a part's terms, as (outer, inner)
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 6>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

alias V = f32;
// How many dimensions there are of either kind.
const KEPT: u32 = 4u;
const REDUCED: u32 = 4u;
// Whether neighbours take neighbouring terms (the innermost dimension is reduced) or neighbouring outputs.
const ROWS: bool = true;
const RUNS: bool = true;
// Whether an invocation has four neighbouring fours of outputs.
const ACROSS: bool = false;

fn load(i: u32) -> V {
    return x[u[0].w + i];
}

fn epilogue(i: u32, v: f32) {
    y[i] = v;
}

// Hooks: what joining begins with, and how two values are joined.
fn start() -> f32 {
    return 0.0;
}

fn join(a: f32, b: f32) -> f32 {
    return a + b;
}

// Hooks for fours: each of the four with its own; and what a part gives.
fn join_all(a: V, b: V) -> V {
    return join(a, b);
}

fn finish(i: u32, v: V) {
    epilogue(i, v);
}

// Where the term (outer, inner) lies: `inner` counts the innermost reduced dimension, `outer` the others.
fn term(t: vec2<u32>) -> u32 {
    let inner = t.y * u[4].x;
    if REDUCED <= 1u {
        return inner;
    }
    return inner + place(t.x, vec4<u32>(u[3].yzw, 1u), vec4<u32>(u[4].yzw, 0u), REDUCED - 1u);
}

// The part's next term, without a division.
fn after(t: vec2<u32>) -> vec2<u32> {
    let next = t + u[5].xy;
    if REDUCED <= 1u {
        return next;
    }
    return select(next, vec2<u32>(next.x + 1u, next.y - u[3].x), next.y >= u[3].x);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let j = gid.x + gid.y * groups.x * 64u;
    let outputs = u[0].x;
    let terms = u[0].y;
    let parts = u[0].z;
    if j >= outputs * parts {
        return;
    }
    let part = select(j / outputs, j % parts, ROWS);
    let o = select(j % outputs, j / parts, ROWS);
    let base = place(o, u[1], u[2], KEPT);
    let run = (terms + parts - 1u) / parts;
    let first = select(part, part * run, RUNS);
    let count = select((terms + parts - 1u - part) / parts, min(max(terms, first) - first, run), RUNS);
    var t = vec2<u32>(first / u[3].x, first % u[3].x);
    // Four chains: each is short enough for its rounding, and none waits for another.
    var a = V(start());
    var b = a;
    var c = a;
    var d = a;
    if ACROSS {
        for (var k = 0u; k < count; k++) {
            let at = base + term(t);
            a = join_all(a, load(at));
            b = join_all(b, load(at + 4u));
            c = join_all(c, load(at + 8u));
            d = join_all(d, load(at + 12u));
            t = after(t);
        }
        let i = 4u * (part * outputs + o);
        finish(i, a);
        finish(i + 1u, b);
        finish(i + 2u, c);
        finish(i + 3u, d);
        return;
    }
    for (var k = 0u; k + 4u <= count; k += 4u) {
        let t1 = after(t);
        let t2 = after(t1);
        let t3 = after(t2);
        a = join_all(a, load(base + term(t)));
        b = join_all(b, load(base + term(t1)));
        c = join_all(c, load(base + term(t2)));
        d = join_all(d, load(base + term(t3)));
        t = after(t3);
    }
    for (var k = 0u; k < (count & 3u); k++) {
        a = join_all(a, load(base + term(t)));
        t = after(t);
    }
    finish(part * outputs + o, join_all(join_all(a, b), join_all(c, d)));
}
