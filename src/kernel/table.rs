//! The table itself. A shader is added by one line here; a file that no op uses, and a line without a file, fail a test.

use super::Kernel;

macro_rules! kernels {
    ($($name:literal: $path:literal, $doc:literal;)*) => {
        /// Every hand-written shader.
        pub static KERNELS: &[Kernel] = &[$(Kernel { name: $name, doc: $doc, text: include_str!(concat!("../../shaders/", $path)) }),*];
    };
}

kernels! {
    "map": "elementwise/map.wgsl", "fused elementwise operations over one index space";
    "matmul": "matmul/matmul.wgsl", "matrix product of operands of any strides, in register blocks";
    "sum_splits": "matmul/sum_splits.wgsl", "the second pass of a split sum, in fixed order";
    "conv2d": "conv/conv2d.wgsl", "convolution and the gradient of its image, in register blocks, gathered as read";
    "pack_weight": "conv/pack_weight.wgsl", "a convolution's weight as the gradient of the image reads it";
    "conv2d_weight_grad": "conv/conv2d_weight_grad.wgsl", "the gradient of a convolution's weight, split over positions";
    "max_pool2d": "pool/max_pool2d.wgsl", "the largest element of each window, and its place";
    "max_pool2d_grad": "pool/max_pool2d_grad.wgsl", "gradient of max_pool2d, gathered";
    "pool_gather": "pool/pool_gather.wgsl", "elements at the places that max_pool2d found";
    "avg_pool2d": "pool/avg_pool2d.wgsl", "the mean of each window";
    "avg_pool2d_grad": "pool/avg_pool2d_grad.wgsl", "gradient of avg_pool2d, gathered";
}

/// Files that others join by `// use name`.
pub(super) static LIBRARIES: &[(&str, &str)] = &[
    ("math", include_str!("../../shaders/math.wgsl")),
    ("philox", include_str!("../../shaders/philox.wgsl")),
];
