//! Which call of the library each golden operation is: one table, by PyTorch's names of operations, inputs and attributes.

use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use wgrad::nn::Param;
use wgrad::ops::{AvgPool2dOptions, BatchNorm, Conv2dOptions, CrossEntropy, MaxPool2dOptions, PadMode, Reduction};
use wgrad::optim::{Adam, AdamOptions, AdamW, Optimizer, Sgd, SgdOptions};
use wgrad::tensor::DType;
use wgrad::{Error, Result, Tensor};

/// An operation whose f32 results need more than the tolerance.
pub struct Loose {
    /// Its name.
    pub op: &'static str,
    /// By how much its tolerance is multiplied.
    pub factor: f64,
    /// The largest error seen, as a share of the tolerance that all others have.
    pub measured: f64,
    /// Why.
    pub cause: &'static str,
}

/// At most five.
pub const LOOSE: &[Loose] = &[];

/// The attributes of a case. Each must be asked for: one that the call does not know is a failure, not a default.
pub struct Attrs {
    map: Map<String, Value>,
    asked: RefCell<BTreeSet<String>>,
}

impl Attrs {
    pub fn parse(json: &str) -> Result<Attrs> {
        let map = serde_json::from_str(json).map_err(|e| Error::invalid(format!("attrs: {e}")))?;
        Ok(Attrs { map, asked: RefCell::default() })
    }

    /// The attribute, if it is there and not null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(name.into());
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// Its value by `read`, or the default; without one it must be there.
    fn value<T>(&self, name: &str, default: Option<T>, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
        match self.get(name) {
            Some(v) => read(v).ok_or_else(|| Error::invalid(format!("attribute {name}: {v}"))),
            None => default.ok_or_else(|| Error::invalid(format!("no attribute {name}"))),
        }
    }

    pub fn float(&self, name: &str, default: impl Into<Option<f64>>) -> Result<f64> {
        self.value(name, default.into(), Value::as_f64)
    }

    pub fn int(&self, name: &str, default: impl Into<Option<i64>>) -> Result<i64> {
        self.value(name, default.into(), Value::as_i64)
    }

    pub fn size(&self, name: &str) -> Result<usize> {
        self.value(name, None, |v| v.as_u64().map(|n| n as usize))
    }

    pub fn flag(&self, name: &str, default: impl Into<Option<bool>>) -> Result<bool> {
        self.value(name, default.into(), Value::as_bool)
    }

    pub fn text(&self, name: &str, default: &str) -> Result<String> {
        self.value(name, Some(default.to_string()), |v| v.as_str().map(str::to_string))
    }

    /// A list, or one number that stands for a list of one.
    pub fn ints(&self, name: &str) -> Result<Vec<isize>> {
        let one = |v: &Value| v.as_i64().map(|n| n as isize);
        self.value(name, None, |v| match v {
            Value::Array(list) => list.iter().map(one).collect(),
            v => one(v).map(|n| vec![n]),
        })
    }

    /// Two numbers, or one that stands for both.
    pub fn pair(&self, name: &str, default: impl Into<Option<[usize; 2]>>) -> Result<[usize; 2]> {
        let one = |v: &Value| v.as_u64().map(|n| n as usize);
        self.value(name, default.into(), |v| match v {
            Value::Array(list) if list.len() == 2 => Some([one(&list[0])?, one(&list[1])?]),
            v => one(v).map(|n| [n, n]),
        })
    }

    /// An error for an attribute that the call did not ask for.
    pub fn all_asked(&self) -> Result<()> {
        match self.map.keys().find(|k| !self.asked.borrow().contains(*k)) {
            Some(k) => Err(Error::invalid(format!("attribute {k} is not known here"))),
            None => Ok(()),
        }
    }
}

/// A case as a call sees it.
pub struct Case<'a> {
    pub attrs: &'a Attrs,
    /// By name, in order.
    pub inputs: Vec<(String, Tensor)>,
}

impl Case<'_> {
    fn opt(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.opt(name).ok_or_else(|| Error::invalid(format!("no input {name}")))
    }

    fn x(&self) -> Result<&Tensor> {
        self.get("input")
    }

    /// Matrices and their transposes.
    fn turned(&self, name: &str) -> Result<Tensor> {
        let t = self.get(name)?;
        Ok(if self.attrs.flag(&format!("transpose_{name}"), false)? { t.t() } else { t.clone() })
    }
}

/// A call of the library.
pub type Call = fn(&Case) -> Result<Vec<Tensor>>;

/// The call of an operation; `None` where the library lacks it.
pub fn find(op: &str) -> Option<Call> {
    TABLE.iter().find(|(name, _)| *name == op).map(|(_, call)| *call)
}

fn one(t: Result<Tensor>) -> Result<Vec<Tensor>> {
    Ok(vec![t?])
}

/// A row over all inputs of the case, with its floats by name and default.
fn row(c: &Case, name: &str, floats: &[(&str, f64)]) -> Result<Vec<Tensor>> {
    let floats = floats.iter().map(|(name, default)| c.attrs.float(name, *default)).collect::<Result<Vec<_>>>()?;
    let inputs: Vec<&Tensor> = c.inputs.iter().map(|(_, t)| t).collect();
    one(Tensor::apply_row(name, &floats, &inputs))
}

/// Rows of the same name here and there, with their floats.
macro_rules! rows {
    ($($name:ident ( $($p:ident = $default:expr),* )),* $(,)?) => {
        &[$((stringify!($name), |c| row(c, stringify!($name), &[$((stringify!($p), $default)),*]))),*]
    };
}

const ROWS: &[(&str, Call)] = rows![
    abs(),
    add(),
    celu(alpha = 1.0),
    cos(),
    div(),
    elu(alpha = 1.0),
    erf(),
    exp(),
    floor(),
    hardsigmoid(),
    hardswish(),
    hardtanh(min_val = -1.0, max_val = 1.0),
    leaky_relu(negative_slope = 0.01),
    log(),
    logsigmoid(),
    maximum(),
    minimum(),
    mish(),
    mul(),
    neg(),
    pow(),
    reciprocal(),
    relu(),
    relu6(),
    round(),
    rsqrt(),
    selu(),
    sigmoid(),
    sign(),
    silu(),
    sin(),
    softplus(beta = 1.0, threshold = 20.0),
    softsign(),
    sqrt(),
    square(),
    sub(),
    tanh(),
];

/// A reduction over several dimensions.
fn reduced(c: &Case, f: fn(&Tensor, &[isize], bool) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    one(f(c.x()?, &c.attrs.ints("dim")?, c.attrs.flag("keepdim", false)?))
}

/// How the losses of elements are put together.
fn reduction(c: &Case) -> Result<Reduction> {
    match c.attrs.text("reduction", "mean")?.as_str() {
        "none" => Ok(Reduction::None),
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        other => Err(Error::invalid(format!("reduction: {other}"))),
    }
}

/// How a loss of labels counts them.
fn classes(c: &Case, smoothing: bool) -> Result<CrossEntropy> {
    let ignored = c.attrs.int("ignore_index", -100)?;
    Ok(CrossEntropy {
        weight: c.opt("weight").cloned(),
        ignore_index: i32::try_from(ignored).map_err(|e| Error::invalid(format!("ignore_index {ignored}: {e}")))?,
        reduction: reduction(c)?,
        label_smoothing: if smoothing { c.attrs.float("label_smoothing", 0.0)? } else { 0.0 },
    })
}

/// The parameter after an optimizer saw all gradients.
fn trained(c: &Case, optimizer: impl FnOnce(Vec<Param>) -> Result<Box<dyn Optimizer>>) -> Result<Vec<Tensor>> {
    let param = Param::new(c.get("param")?)?;
    let mut optimizer = optimizer(vec![param.clone()])?;
    let grads = c.get("grads")?;
    for i in 0..c.attrs.size("steps")? {
        param.set_grad(Some(grads.select(0, i)));
        optimizer.step()?;
    }
    Ok(vec![param.tensor()])
}

fn adam_options(c: &Case, weight_decay: f64) -> Result<AdamOptions> {
    let betas = match c.attrs.get("betas") {
        None => (0.9, 0.999),
        Some(v) => serde_json::from_value(v.clone()).map_err(|e| Error::invalid(format!("betas: {e}")))?,
    };
    Ok(AdamOptions {
        lr: c.attrs.float("lr", 1e-3)?,
        betas,
        eps: c.attrs.float("eps", 1e-8)?,
        weight_decay: c.attrs.float("weight_decay", weight_decay)?,
        amsgrad: c.attrs.flag("amsgrad", false)?,
    })
}

/// Everything else.
const CALLS: &[(&str, Call)] = &[
    ("gelu", |c| match c.attrs.text("approximate", "none")?.as_str() {
        "none" => row(c, "gelu", &[]),
        "tanh" => row(c, "gelu_tanh", &[]),
        other => Err(Error::invalid(format!("gelu: approximate {other}"))),
    }),
    ("clamp", |c| {
        let (min, max) = (c.attrs.float("min", f64::NEG_INFINITY)?, c.attrs.float("max", f64::INFINITY)?);
        Ok(vec![c.x()?.clamp(min, max)])
    }),
    ("pow_scalar", |c| Ok(vec![c.x()?.pow_scalar(c.attrs.float("exponent", None)?)])),
    ("prelu", |c| {
        // One weight a channel, which is dimension 1.
        let (x, weight) = (c.x()?, c.get("weight")?);
        let mut shape = vec![1; x.rank().saturating_sub(1).max(1)];
        shape[0] = weight.numel();
        Ok(vec![x.prelu(&weight.try_reshape(shape)?)])
    }),
    ("where", |c| Ok(vec![c.get("condition")?.to_dtype(DType::Bool).where_(c.x()?, c.get("other")?)])),
    ("matmul", |c| one(c.x()?.try_matmul(c.get("other")?))),
    ("matmul_transposed", |c| one(c.turned("input")?.try_matmul(&c.turned("other")?))),
    ("linear", |c| one(c.x()?.try_linear(c.get("weight")?, c.opt("bias")))),
    ("sum", |c| reduced(c, Tensor::try_sum)),
    ("mean", |c| reduced(c, Tensor::try_mean)),
    ("amax", |c| reduced(c, Tensor::try_amax)),
    ("amin", |c| reduced(c, Tensor::try_amin)),
    ("logsumexp", |c| reduced(c, Tensor::try_logsumexp)),
    ("var", |c| {
        let correction = usize::try_from(c.attrs.int("correction", 1)?).map_err(|e| Error::invalid(format!("correction: {e}")))?;
        one(c.x()?.try_var(&c.attrs.ints("dim")?, correction, c.attrs.flag("keepdim", false)?))
    }),
    ("argmax", |c| one(c.x()?.try_argmax(c.attrs.int("dim", None)? as isize, c.attrs.flag("keepdim", false)?))),
    ("argmin", |c| one(c.x()?.try_argmin(c.attrs.int("dim", None)? as isize, c.attrs.flag("keepdim", false)?))),
    ("permute", |c| {
        let dims: Vec<usize> = c.attrs.ints("dims")?.iter().map(|&d| d.rem_euclid(c.inputs[0].1.rank() as isize) as usize).collect();
        one(c.x()?.try_permute(&dims))
    }),
    ("expand", |c| {
        let size: Vec<usize> = c.attrs.ints("size")?.iter().map(|&n| n as usize).collect();
        one(c.x()?.try_expand(size))
    }),
    ("flip", |c| one(c.x()?.try_flip(&c.attrs.ints("dim")?))),
    ("narrow", |c| one(c.x()?.try_narrow(c.attrs.int("dim", None)? as isize, c.attrs.size("start")?, c.attrs.size("length")?))),
    ("cat", |c| {
        let inputs: Vec<Tensor> = c.inputs.iter().map(|(_, t)| t.clone()).collect();
        one(Tensor::try_cat(&inputs, c.attrs.int("dim", 0)? as isize))
    }),
    ("pad", |c| {
        let value = c.attrs.float("value", 0.0)?;
        let mode = match c.attrs.text("mode", "constant")?.as_str() {
            "constant" => PadMode::Constant(value),
            "reflect" => PadMode::Reflect,
            "replicate" => PadMode::Replicate,
            other => return Err(Error::invalid(format!("pad: mode {other}"))),
        };
        one(c.x()?.try_pad(&c.attrs.ints("pad")?, mode))
    }),
    ("conv2d", |c| {
        let options = Conv2dOptions {
            stride: c.attrs.pair("stride", [1, 1])?,
            padding: c.attrs.pair("padding", [0, 0])?,
            dilation: c.attrs.pair("dilation", [1, 1])?,
            groups: c.attrs.int("groups", 1)? as usize,
        };
        one(c.x()?.try_conv2d(c.get("weight")?, c.opt("bias"), options))
    }),
    ("max_pool2d", |c| {
        let kernel = c.attrs.pair("kernel_size", None)?;
        let options = MaxPool2dOptions {
            stride: Some(c.attrs.pair("stride", kernel)?),
            padding: c.attrs.pair("padding", [0, 0])?,
            dilation: c.attrs.pair("dilation", [1, 1])?,
            ceil_mode: c.attrs.flag("ceil_mode", false)?,
        };
        one(c.x()?.try_max_pool2d(kernel, options))
    }),
    ("avg_pool2d", |c| {
        let kernel = c.attrs.pair("kernel_size", None)?;
        let options = AvgPool2dOptions {
            stride: Some(c.attrs.pair("stride", kernel)?),
            padding: c.attrs.pair("padding", [0, 0])?,
            ceil_mode: c.attrs.flag("ceil_mode", false)?,
            count_include_pad: c.attrs.flag("count_include_pad", true)?,
        };
        one(c.x()?.try_avg_pool2d(kernel, options))
    }),
    ("batch_norm", |c| {
        let pair = |a, b| c.opt(a).zip(c.opt(b)).map(|(a, b)| [a, b]);
        let options = BatchNorm { training: c.attrs.flag("training", false)?, momentum: c.attrs.float("momentum", 0.1)?, eps: c.attrs.float("eps", 1e-5)? };
        let (y, running) = c.x()?.try_batch_norm(pair("running_mean", "running_var"), pair("weight", "bias"), &options)?;
        Ok(std::iter::once(y).chain(running.into_iter().flatten()).collect())
    }),
    ("softmax", |c| one(c.x()?.try_softmax(c.attrs.int("dim", None)? as isize))),
    ("log_softmax", |c| one(c.x()?.try_log_softmax(c.attrs.int("dim", None)? as isize))),
    ("mse_loss", |c| one(c.x()?.try_mse_loss(c.get("target")?, reduction(c)?))),
    ("cross_entropy", |c| one(c.x()?.cross_entropy_with(c.get("target")?, &classes(c, true)?))),
    ("nll_loss", |c| one(c.x()?.nll_loss_with(c.get("target")?, &classes(c, false)?))),
    ("gather", |c| one(c.x()?.try_gather(c.attrs.int("dim", None)? as isize, c.get("index")?))),
    ("index_select", |c| one(c.x()?.try_index_select(c.attrs.int("dim", None)? as isize, c.get("index")?))),
    ("embedding", |c| one(Tensor::try_embedding(c.get("weight")?, c.get("indices")?))),
    ("scatter_add", |c| one(c.x()?.try_scatter_add(c.attrs.int("dim", None)? as isize, c.get("index")?, c.get("src")?))),
    ("optim.sgd", |c| {
        let options = SgdOptions {
            lr: c.attrs.float("lr", 1e-3)?,
            momentum: c.attrs.float("momentum", 0.0)?,
            dampening: c.attrs.float("dampening", 0.0)?,
            weight_decay: c.attrs.float("weight_decay", 0.0)?,
            nesterov: c.attrs.flag("nesterov", false)?,
        };
        trained(c, |p| Ok(Box::new(Sgd::new(p, options)?)))
    }),
    ("optim.adam", |c| trained(c, |p| Ok(Box::new(Adam::new(p, adam_options(c, 0.0)?)?)))),
    ("optim.adamw", |c| trained(c, |p| Ok(Box::new(AdamW::new(p, adam_options(c, 0.01)?)?)))),
];

/// All of it.
static TABLE: std::sync::LazyLock<Vec<(&'static str, Call)>> = std::sync::LazyLock::new(|| ROWS.iter().chain(CALLS).copied().collect());
