//! Activations as modules, from one table.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::nn::module::{output, single_float};
use crate::nn::table::{KeyDefault::*, Spec, key};
use crate::nn::{LayerEntry, Module, Param, Visitor, init};
use crate::tensor::{DType, Meta};

/// Elementwise activations. Each entry: `doc; Module "layer name" = "row" { its numbers, in the order of the row's slots }`.
macro_rules! activations {
    ($($doc:literal $layer:ident $name:literal = $row:literal $({ $($p:ident = $default:literal),+ })?;)*) => {
        $(activations!(@layer $doc $layer $name $row $({ $($p = $default),+ })?);)*

        /// The elementwise activations' rows of the LAYERS table.
        pub(super) static ELEMENTWISE: &[LayerEntry] = &[$(LayerEntry {
            name: $name,
            doc: $doc,
            keys: &[$($(key(stringify!($p), Number($default))),+)?],
            build: activations!(@build $layer $({ $($p),+ })?),
        }),*];
    };
    (@layer $doc:literal $layer:ident $name:literal $row:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $layer;

        impl Module for $layer {
            fn name(&self) -> &'static str {
                $name
            }
            fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
                Tensor::apply_row($row, &[], &[x])
            }
            fn check(&self, inputs: &[Meta]) -> Result<Meta> {
                single_float($name, inputs).copied()
            }
        }
    };
    (@layer $doc:literal $layer:ident $name:literal $row:literal { $($p:ident = $default:literal),+ }) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $layer {
            $(#[doc = concat!("Default: ", stringify!($default), ".")] pub $p: f64),+
        }

        impl Default for $layer {
            fn default() -> $layer {
                $layer { $($p: $default),+ }
            }
        }

        impl Module for $layer {
            fn name(&self) -> &'static str {
                $name
            }
            fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
                Tensor::apply_row($row, &[$(self.$p),+], &[x])
            }
            fn check(&self, inputs: &[Meta]) -> Result<Meta> {
                single_float($name, inputs).copied()
            }
            fn extra(&self) -> String {
                [$(format!("{}={}", stringify!($p), self.$p)),+].join(", ")
            }
        }
    };
    (@build $layer:ident) => { |_| Ok(Box::new($layer)) };
    (@build $layer:ident { $($p:ident),+ }) => { |spec: &Spec<'_>| Ok(Box::new($layer { $($p: spec.float(stringify!($p))?),+ })) };
}

activations! {
    "`max(x, 0)`" ReLU "relu" = "relu";
    "`min(max(x, 0), 6)`" ReLU6 "relu6" = "relu6";
    "`x` where `x > 0`, else `negative_slope x`" LeakyReLU "leaky_relu" = "leaky_relu" { negative_slope = 0.01 };
    "`x` where `x > 0`, else `alpha (e^x - 1)`" ELU "elu" = "elu" { alpha = 1.0 };
    "`x` where `x > 0`, else `alpha (e^(x / alpha) - 1)`" CELU "celu" = "celu" { alpha = 1.0 };
    "`1.0507 (x where x > 0, else 1.6733 (e^x - 1))`" SELU "selu" = "selu";
    "`x / (1 + e^-x)`, also called swish" SiLU "silu" = "silu";
    "`x tanh(log(1 + e^x))`" Mish "mish" = "mish";
    "`1 / (1 + e^-x)`" Sigmoid "sigmoid" = "sigmoid";
    "`log(1 / (1 + e^-x))`" LogSigmoid "log_sigmoid" = "logsigmoid";
    "`tanh x`" Tanh "tanh" = "tanh";
    "`log(1 + e^(beta x)) / beta`, and `x` itself where `beta x > threshold`" Softplus "softplus" = "softplus" { beta = 1.0, threshold = 20.0 };
    "`x / (1 + |x|)`" Softsign "softsign" = "softsign";
    "`min(max(x, min_val), max_val)`" Hardtanh "hardtanh" = "hardtanh" { min_val = -1.0, max_val = 1.0 };
    "`min(max(x + 3, 0), 6) / 6`" Hardsigmoid "hardsigmoid" = "hardsigmoid";
    "`x min(max(x + 3, 0), 6) / 6`" Hardswish "hardswish" = "hardswish";
}

/// `x Φ(x)` with `Φ` the normal distribution function, or its formula with a tanh.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GELU {
    /// Whether to take the formula: PyTorch's `approximate="tanh"`.
    pub tanh: bool,
}

impl Module for GELU {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        Tensor::apply_row(if self.tanh { "gelu_tanh" } else { "gelu" }, &[], &[x])
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        single_float("gelu", inputs).copied()
    }

    fn extra(&self) -> String {
        if self.tanh { "approximate=tanh".into() } else { String::new() }
    }
}

/// `x` where `x > 0`, else `weight x` with a trained slope for all channels or one for each (dimension 1).
#[derive(Debug)]
pub struct PReLU {
    /// `[1]` or `[c]`.
    pub weight: Param,
}

impl PReLU {
    /// `num_parameters` slopes (1, or the number of channels) that begin with `init`; PyTorch's is 0.25.
    pub fn new(num_parameters: usize, init: f64, device: &Device) -> Result<PReLU> {
        output("prelu", DType::F32, &[num_parameters])?;
        Ok(PReLU { weight: Param::new(&init::constant([num_parameters], init, device)?)? })
    }
}

impl Module for PReLU {
    fn name(&self) -> &'static str {
        "prelu"
    }

    fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
        // Against the channels, dimension 1, the slopes need a dimension of size 1 for each that follows.
        let mut shape = vec![self.weight.numel()];
        shape.resize(x.rank().saturating_sub(1).max(1), 1);
        Tensor::apply_row("prelu", &[], &[x, &self.weight.tensor().try_reshape(shape)?])
    }

    fn check(&self, inputs: &[Meta]) -> Result<Meta> {
        let input = single_float("prelu", inputs)?;
        let slopes = self.weight.numel();
        if slopes != 1 && input.shape.get(1) != Some(&slopes) {
            return Err(Error::shape(format!("prelu: the layer has slopes for {slopes} channels, the input has shape {}", input.shape)));
        }
        Ok(*input)
    }

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        visitor.param("weight", &self.weight);
    }

    fn extra(&self) -> String {
        self.weight.numel().to_string()
    }
}

/// Activations along a dimension.
macro_rules! softmaxes {
    ($($doc:literal $layer:ident $name:literal $method:ident;)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $layer {
            /// The dimension; negative counts from the back.
            pub dim: isize,
        }

        impl $layer {
            /// Along `dim`.
            pub fn new(dim: isize) -> $layer {
                $layer { dim }
            }
        }

        impl Module for $layer {
            fn name(&self) -> &'static str {
                $name
            }
            fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
                x.$method(self.dim)
            }
            fn check(&self, inputs: &[Meta]) -> Result<Meta> {
                let input = single_float($name, inputs)?;
                input.shape.dim(self.dim).map_err(|e| e.context($name))?;
                Ok(*input)
            }
            fn extra(&self) -> String {
                format!("dim={}", self.dim)
            }
        }
    )*};
}

softmaxes! {
    "`e^x / sum e^x` along a dimension." Softmax "softmax" try_softmax;
    "`x - log sum e^x` along a dimension." LogSoftmax "log_softmax" try_log_softmax;
}

/// The others' rows of the LAYERS table.
pub(super) static OTHERS: &[LayerEntry] = &[
    LayerEntry {
        name: "gelu",
        doc: "x Φ(x), or its formula with a tanh",
        keys: &[key("approximate", Text("none"))],
        build: |spec: &Spec<'_>| Ok(Box::new(GELU { tanh: spec.choice("approximate", &["none", "tanh"])? == "tanh" })),
    },
    LayerEntry {
        name: "prelu",
        doc: "x where x > 0, else a trained slope times x",
        keys: &[key("num_parameters", Number(1.0)), key("init", Number(0.25))],
        build: |spec: &Spec<'_>| Ok(Box::new(PReLU::new(spec.size("num_parameters", 1)?, spec.float("init")?, spec.device)?)),
    },
    LayerEntry {
        name: "softmax",
        doc: "e^x / sum e^x along a dimension",
        keys: &[key("dim", Number(-1.0))],
        build: |spec: &Spec<'_>| Ok(Box::new(Softmax::new(spec.dim("dim")?))),
    },
    LayerEntry {
        name: "log_softmax",
        doc: "x - log sum e^x along a dimension",
        keys: &[key("dim", Number(-1.0))],
        build: |spec: &Spec<'_>| Ok(Box::new(LogSoftmax::new(spec.dim("dim")?))),
    },
];
