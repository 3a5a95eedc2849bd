// Loss and weight of all rows from those of their parts: a workgroup owns one model.
// u[0].xy: parts of a model, models
@group(0) @binding(0) var<uniform> u: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> parts: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> total: array<f32>;

const MEAN: bool = true;

var<workgroup> sums: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let model = wid.x + wid.y * groups.x;
    if model >= u[0].y {
        return;
    }
    var sum = vec2<f32>(0.0);
    for (var p = lid.x; p < u[0].x; p += 64u) {
        sum += parts[model * u[0].x + p];
    }
    sums[lid.x] = sum;
    // All sums are there.
    workgroupBarrier();
    if lid.x == 0u {
        for (var j = 1u; j < 64u; j++) {
            sum += sums[j];
        }
        if MEAN {
            loss[model] = sum.x / sum.y;
        } else {
            loss[model] = sum.x;
        }
        total[model] = sum.y;
    }
}
