//! The trait of all layers and models, and the walk over what they are made of.

use super::{Buffer, Param};
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::tensor::{DType, Meta, Shape};
use std::fmt::Debug;
use std::sync::Arc;

/// A layer or a model: a function with parameters.
///
/// A module of one's own says what it computes, which shapes it takes, and what it is made of; the rest comes with the trait:
///
/// ```
/// use wgrad::nn::{Linear, Module, Visitor};
/// use wgrad::{tensor::Meta, Device, Generator, Result, Tensor};
///
/// /// Two layers around a relu, and the input added again.
/// #[derive(Debug)]
/// struct Residual { up: Linear, down: Linear }
///
/// impl Module for Residual {
///     fn name(&self) -> &'static str { "residual" }
///     fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
///         Ok(self.down.try_forward(&self.up.try_forward(x)?.relu())? + x)
///     }
///     fn check(&self, inputs: &[Meta]) -> Result<Meta> {
///         self.down.check(&[self.up.check(inputs)?])
///     }
///     fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
///         visitor.child("up", &self.up);
///         visitor.child("down", &self.down);
///     }
/// }
///
/// let (generator, device) = (Generator::new(0), Device::cpu()?);
/// let block = Residual { up: Linear::new(4, 16, &generator, &device)?, down: Linear::new(16, 4, &generator, &device)? };
/// let names: Vec<String> = block.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["up.weight", "up.bias", "down.weight", "down.bias"]);
/// assert_eq!(block.num_parameters(), 4 * 16 + 16 + 16 * 4 + 4);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Module: Debug + Send + Sync {
    /// Its kind, in lower snake case: `conv2d`.
    fn name(&self) -> &'static str;

    /// The output for the input `x`.
    ///
    /// # Errors
    /// Where `x` does not fit: see [`Module::check`].
    fn try_forward(&self, x: &Tensor) -> Result<Tensor>;

    /// What it gives for inputs of these types and shapes. Nothing runs: a model that comes from a config or a file is checked by this before anything does.
    ///
    /// # Errors
    /// Where the inputs do not fit. The message begins with what refuses, `linear: ` or `layers[2] (linear): `, and has the shapes.
    fn check(&self, inputs: &[Meta]) -> Result<Meta>;

    /// Show the parameters, buffers and modules it is made of, each once, in the order in which they are saved.
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
        let _ = visitor; // made of nothing
    }

    /// Called when this module (its children are told on their own) goes into training or out of it. A [`Mode`](super::Mode) keeps that.
    fn on_training(&self, on: bool) {
        let _ = on; // the same in both
    }

    /// Its settings as they stand in a summary: `1, 32, kernel_size=3`.
    fn extra(&self) -> String {
        String::new()
    }

    /// The lines of its summary: one, or one for each layer of a container. Gives what [`Module::check`] does.
    fn summarize(&self, path: &str, input: &Meta, lines: &mut Vec<SummaryLine>) -> Result<Meta> {
        let output = self.check(std::slice::from_ref(input))?;
        lines.push(SummaryLine { path: path.into(), kind: self.name(), extra: self.extra(), output: output.shape, parameters: self.num_parameters() });
        Ok(output)
    }

    /// The output for the input `x`.
    ///
    /// # Panics
    /// Where `x` does not fit; [`Module::try_forward`] is the fallible form.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        match self.try_forward(x) {
            Ok(y) => y,
            Err(e) => panic!("{e}"),
        }
    }

    /// Switch this module and all within it to training or to evaluation.
    fn set_training(&self, on: bool) {
        self.on_training(on);
        self.visit(&mut Visitor::new(&mut |_, part| {
            if let Part::Module(m) = part {
                m.on_training(on);
            }
        }));
    }

    /// Switch to training: dropout drops, batch norm uses the batch's statistics. New modules are in training.
    fn train(&self) {
        self.set_training(true);
    }

    /// Switch to evaluation.
    fn eval(&self) {
        self.set_training(false);
    }

    /// The parameters with their names, `0.weight`. One that is used in several places comes once, under its first name.
    fn named_parameters(&self) -> Vec<(String, Param)> {
        let mut found: Vec<(String, Param)> = Vec::new();
        self.visit(&mut Visitor::new(&mut |path, part| match part {
            Part::Param(p) if found.iter().all(|(_, q)| !p.same(q)) => found.push((path.into(), p.clone())),
            _ => {}
        }));
        found
    }

    /// The parameters: what an optimizer takes.
    fn parameters(&self) -> Vec<Param> {
        self.named_parameters().into_iter().map(|(_, p)| p).collect()
    }

    /// The buffers with their names, `1.running_mean`.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        let mut found: Vec<(String, Buffer)> = Vec::new();
        self.visit(&mut Visitor::new(&mut |path, part| match part {
            Part::Buffer(b) if found.iter().all(|(_, c)| !b.same(c)) => found.push((path.into(), b.clone())),
            _ => {}
        }));
        found
    }

    /// The number of trained values.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(Param::numel).sum()
    }

    /// Forget the gradients of all parameters.
    fn zero_grad(&self) {
        self.parameters().iter().for_each(|p| p.set_grad(None));
    }

    /// The values of all parameters and buffers as they are now, in order, under PyTorch's names.
    fn state_dict(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        self.visit(&mut Visitor::new(&mut |path, part| match part {
            Part::Param(p) => state.push((path.into(), p.tensor())),
            Part::Buffer(b) => state.push((path.into(), b.tensor())),
            Part::Module(_) | Part::Foreign => {}
        }));
        state
    }

    /// Take over the values of a [`state_dict`](Module::state_dict). Where `strict`, every name must be on both sides; where not, what is missing or unexpected is
    /// reported and left. Nothing changes unless everything fits.
    ///
    /// # Errors
    /// One that lists all names that are missing, unexpected or of another shape.
    fn load_state_dict(&self, state: &[(String, Tensor)], strict: bool) -> Result<super::Loaded> {
        let mut places = super::state::Places::default();
        self.visit(&mut Visitor::new(&mut |path, part| places.add(path, &part)));
        places.load(state, strict)
    }

    /// What it is made of, for an input of this type and shape: each layer's output shape and parameters.
    ///
    /// # Errors
    /// Where the input does not fit.
    fn summary(&self, input: &Meta) -> Result<super::Summary> {
        let mut lines = Vec::new();
        self.summarize("", input, &mut lines)?;
        Ok(super::Summary { lines, parameters: self.num_parameters() })
    }
}

/// One line of a [`Summary`](super::Summary).
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryLine {
    /// Where it is in the model: `0`, `encoder.1`; empty for the model itself.
    pub path: String,
    /// Its kind: `conv2d`.
    pub kind: &'static str,
    /// Its settings: `1, 32, kernel_size=3`.
    pub extra: String,
    /// The shape of its output.
    pub output: Shape,
    /// The number of trained values.
    pub parameters: usize,
}

/// What a module is made of.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A trained tensor.
    Param(&'a Param),
    /// A tensor that is saved but not trained.
    Buffer(&'a Buffer),
    /// A module within; its parts follow.
    Module(&'a dyn Module),
    /// A name that PyTorch saves here and this module has no use for: loading passes over it.
    Foreign,
}

/// Takes down what a module shows of itself, with dotted paths: see [`Module::visit`].
pub struct Visitor<'v, 'a> {
    path: String,
    see: &'v mut dyn FnMut(&str, Part<'a>),
}

impl<'v, 'a> Visitor<'v, 'a> {
    /// A visitor that calls `see` with the path of each part.
    pub fn new(see: &'v mut dyn FnMut(&str, Part<'a>)) -> Self {
        Visitor { path: String::new(), see }
    }

    /// A parameter.
    pub fn param(&mut self, name: &str, param: &'a Param) {
        self.part(name, Part::Param(param));
    }

    /// A buffer.
    pub fn buffer(&mut self, name: &str, buffer: &'a Buffer) {
        self.part(name, Part::Buffer(buffer));
    }

    /// A name that PyTorch saves here and this module has no use for.
    pub fn foreign(&mut self, name: &str) {
        self.part(name, Part::Foreign);
    }

    /// A module, and all that it is made of.
    pub fn child(&mut self, name: &str, module: &'a dyn Module) {
        let length = self.enter(name);
        (self.see)(&self.path, Part::Module(module));
        module.visit(self);
        self.path.truncate(length);
    }

    fn part(&mut self, name: &str, part: Part<'a>) {
        let length = self.enter(name);
        (self.see)(&self.path, part);
        self.path.truncate(length);
    }

    /// Make the path that of `name`; gives the length to come back to.
    fn enter(&mut self, name: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        length
    }
}

/// A module behind a pointer is a module.
macro_rules! behind {
    ($($pointer:ident),*) => {$(
        impl<M: Module + ?Sized> Module for $pointer<M> {
            fn name(&self) -> &'static str {
                (**self).name()
            }
            fn try_forward(&self, x: &Tensor) -> Result<Tensor> {
                (**self).try_forward(x)
            }
            fn check(&self, inputs: &[Meta]) -> Result<Meta> {
                (**self).check(inputs)
            }
            fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a>) {
                (**self).visit(visitor);
            }
            fn on_training(&self, on: bool) {
                (**self).on_training(on);
            }
            fn extra(&self) -> String {
                (**self).extra()
            }
            fn summarize(&self, path: &str, input: &Meta, lines: &mut Vec<SummaryLine>) -> Result<Meta> {
                (**self).summarize(path, input, lines)
            }
        }
    )*};
}
behind!(Box, Arc);

/// The one input of a module that takes one.
pub(crate) fn single<'m>(name: &str, inputs: &'m [Meta]) -> Result<&'m Meta> {
    match inputs {
        [input] => Ok(input),
        _ => Err(Error::shape(format!("{name}: takes one input, got {}", inputs.len()))),
    }
}

/// The one input of a layer that computes with floats.
pub(crate) fn single_float<'m>(name: &str, inputs: &'m [Meta]) -> Result<&'m Meta> {
    let input = single(name, inputs)?;
    if !input.dtype.is_float() {
        return Err(Error::shape(format!("{name}: takes floats, the input is {input}")));
    }
    Ok(input)
}

/// The one input of a layer whose parameters are of type `dtype`.
pub(crate) fn single_of<'m>(name: &str, dtype: DType, inputs: &'m [Meta]) -> Result<&'m Meta> {
    let input = single(name, inputs)?;
    if input.dtype != dtype {
        return Err(Error::shape(format!("{name}: the layer's parameters are {dtype}, the input is {input}")));
    }
    Ok(input)
}

/// The output of a layer, if it is one that can be: kernels count elements in 32 bits.
pub(crate) fn output(name: &str, dtype: DType, dims: &[usize]) -> Result<Meta> {
    let numel = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if numel.is_none_or(|n| n > u32::MAX as usize) {
        return Err(Error::shape(format!("{name}: an output of shape {dims:?} has more elements than can be counted in 32 bits")));
    }
    Ok(Meta::new(dtype, Shape::try_new(dims).map_err(|e| e.context(name))?))
}
