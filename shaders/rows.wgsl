// How kernels read rows of x, V by V, for their softmax. The kernel has the binding x.

alias V = f32;
// Elements of a V.
const WIDTH: u32 = 1u;
const LOWEST: f32 = -3.40282347e38;

// Hooks: a V (where softmax.wgsl has its words); and what is made of one.
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

// Hooks: the largest of what the invocations of a row have, and its sum. `index`: the invocation's place in its workgroup.
fn largest(v: f32, index: u32) -> f32 {
    return v;
}

fn total(v: f32, index: u32) -> f32 {
    return v;
}
