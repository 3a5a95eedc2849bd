//! The table itself. A shader is added by one line here; a file that no op uses, and a line without a file, fail a test.

use super::Kernel;

macro_rules! kernels {
    ($($name:literal: $path:literal, $doc:literal;)*) => {
        /// Every hand-written shader.
        pub static KERNELS: &[Kernel] = &[$(Kernel { name: $name, doc: $doc, text: include_str!(concat!("../../shaders/", $path)) }),*];
    };
}

kernels! {
    "histogram": "histogram/histogram.wgsl", "counts of values in equal bins, by hand (see examples/kernel.rs)";
    "bench_fma": "bench/fma.wgsl", "fused multiply-adds on registers: what `wgrad bench` takes for the peak";
    "bench_read": "bench/read.wgsl", "sums of all elements of a large buffer: its bandwidth of reading";
    "bench_write": "bench/write.wgsl", "a large buffer filled: its bandwidth of writing";
    "bench_copy": "bench/copy.wgsl", "a large buffer copied: its bandwidth of both";
    "map": "elementwise/map.wgsl", "fused elementwise operations over one index space";
    "map4": "elementwise/map4.wgsl", "fused elementwise operations, four neighbours at a time";
    "halves": "elementwise/halves.wgsl", "a value as halves, two to a word";
    "reduce": "reduce/reduce.wgsl", "sum, maximum or minimum over some dimensions, in parts";
    "arg": "reduce/arg.wgsl", "index of the largest or smallest element along a dimension";
    "softmax": "softmax/softmax.wgsl", "softmax or its logarithm, rows each by one invocation or some";
    "softmax_part": "softmax/softmax_part.wgsl", "maximum and sum of exponentials of parts of long rows";
    "softmax_apply": "softmax/softmax_apply.wgsl", "softmax or its logarithm from each row's maximum and sum";
    "gather": "index/gather.wgsl", "elements at the places that an index names";
    "scatter": "index/scatter.wgsl", "sums at the places that an index names";
    "sort_count": "index/sort_count.wgsl", "stable sort of an index: how often each digit occurs";
    "sort_scan": "index/sort_scan.wgsl", "stable sort of an index: where each digit's run begins";
    "sort_move": "index/sort_move.wgsl", "stable sort of an index: every element to its place";
    "sort_starts": "index/sort_starts.wgsl", "where each key's run begins in a sorted index";
    "nll": "loss/nll.wgsl", "negative log likelihood of labels, loss and weight of each row";
    "nll_grad": "loss/nll_grad.wgsl", "its gradient";
    "cross_entropy": "loss/cross_entropy.wgsl", "cross entropy of all rows, and what its gradient needs of each";
    "cross_entropy_sum": "loss/cross_entropy_sum.wgsl", "cross entropy of all rows from that of parts of them";
    "cross_entropy_grad": "loss/cross_entropy_grad.wgsl", "its gradient";
    "batch_norm": "norm/batch_norm.wgsl", "each channel normalised by its statistics";
    "batch_stats": "norm/batch_stats.wgsl", "mean and deviation of each channel, and the running statistics";
    "batch_sums": "norm/batch_sums.wgsl", "the sums over each channel that batch_norm's gradient needs";
    "batch_norm_grad": "norm/batch_norm_grad.wgsl", "the gradient of batch_norm by its input";
    "pad": "shape/pad.wgsl", "a tensor put into a larger one of one value";
    "cat": "shape/cat.wgsl", "one input of a concatenation put in its place";
    "update": "optim/update.wgsl", "a step of any optimizer over an arena";
    "found_inf": "optim/found_inf.wgsl", "whether gradients in an arena are finite";
    "scaling": "optim/scaling.wgsl", "what a step with a scaled loss does, and the next scale";
    "place": "optim/place.wgsl", "copy of a value into its slice of an arena";
    "matmul": "matmul/matmul.wgsl", "matrix product of operands of any strides, in register blocks";
    "matmul_lanes": "matmul/matmul_lanes.wgsl", "matrix product in register blocks of lanes that read for each other";
    "matmul_tiles": "matmul/matmul_tiles.wgsl", "matrix product in tiles of workgroup memory";
    "matmul_coop": "matmul/matmul_coop.wgsl", "matrix product by a GPU's units for small matrices of f16";
    "operand_scales": "matmul/operand_scales.wgsl", "what fits the rows and columns of a product's operands to f16";
    "sum_splits": "matmul/sum_splits.wgsl", "the second pass of a split sum, in fixed order";
    "conv2d": "conv/conv2d.wgsl", "convolution and the gradient of its image, in register blocks, gathered as read";
    "strips": "conv/strips.wgsl", "convolution and the gradient of its image, strips of rows read once for all steps of the kernel";
    "strips_weight": "conv/strips_weight.wgsl", "gradient of a convolution's weight, strips of rows read once for all columns of the kernel";
    "pack_strips": "conv/pack_strips.wgsl", "a convolution's weight as strips reads it";
    "conv_tiles": "conv/conv_tiles.wgsl", "convolution and the gradient of its image in tiles of workgroup memory, gathered as read";
    "conv_weight_tiles": "conv/conv_weight_tiles.wgsl", "the gradient of a convolution's weight in tiles of workgroup memory";
    "pack_weight": "conv/pack_weight.wgsl", "a convolution's weight as the gradient of the image reads it";
    "conv2d_weight_grad": "conv/conv2d_weight_grad.wgsl", "the gradient of a convolution's weight, split over positions";
    "max_pool2d": "pool/max_pool2d.wgsl", "the largest element of each window, and its place";
    "max_pool2d_grad": "pool/max_pool2d_grad.wgsl", "gradient of max_pool2d, gathered";
    "max_pool2d_halves": "pool/max_pool2d_halves.wgsl", "max_pool2d of 2 x 2 windows side by side";
    "max_pool2d_halves_grad": "pool/max_pool2d_halves_grad.wgsl", "gradient of that, two windows at a time";
    "pool_gather": "pool/pool_gather.wgsl", "elements at the places that max_pool2d found";
    "avg_pool2d": "pool/avg_pool2d.wgsl", "the mean of each window";
    "avg_pool2d_grad": "pool/avg_pool2d_grad.wgsl", "gradient of avg_pool2d, gathered";
}

/// Files that others join by `// use name`: functions that fused rows may call in any kernel.
pub(super) static LIBRARIES: &[(&str, &str)] = &[
    ("half", include_str!("../../shaders/half.wgsl")),
    ("layout", include_str!("../../shaders/layout.wgsl")),
    ("math", include_str!("../../shaders/math.wgsl")),
    ("philox", include_str!("../../shaders/philox.wgsl")),
];

/// Parts of kernels that several have in common, joined by `// use name` alike. They are the kernel's own: they read its bindings, and hooks in them can be replaced.
pub(super) static PARTS: &[(&str, &str)] = &[
    ("channels", include_str!("../../shaders/channels.wgsl")),
    ("operands", include_str!("../../shaders/operands.wgsl")),
    ("quads", include_str!("../../shaders/quads.wgsl")),
    ("rows", include_str!("../../shaders/rows.wgsl")),
    ("store", include_str!("../../shaders/store.wgsl")),
    ("put", include_str!("../../shaders/put.wgsl")),
];
