// How kernels read rows of x for softmax: V by V.
// The kernel has the words of softmax.wgsl, and the binding x.

alias V = f32;
// Elements of a V.
const WIDTH: u32 = 1u;
// How many dimensions count the rows.
const OUTER: u32 = 4u;
const LOWEST: f32 = -3.40282347e38;

// Hooks: a V; and what is made of one.
fn load(i: u32) -> V {
    return x[u[0].z + i];
}

fn most(v: V) -> f32 {
    return v;
}

fn power(v: V) -> V {
    return exp_below(v);
}

// Hook: sums in four chains; a single one is added to each in turn.
fn add(sums: vec4<f32>, v: V) -> vec4<f32> {
    return vec4<f32>(sums.yzw, sums.x + v);
}
