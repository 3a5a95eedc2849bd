//! Operations that users bring: name, shapes, definition, WGSL and gradient, recorded and differentiated like any other.

use crate::device::cpu::{CpuView, CpuViewMut};
use crate::error::{Error, Result};
use crate::graph::{Batched, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor};
use crate::tensor::Meta;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

type Shapes = Box<dyn Fn(&[Meta]) -> Result<Vec<Meta>> + Send + Sync>;
type Definition = Box<dyn Fn(&[f64], &[CpuView<'_>], &mut [CpuViewMut<'_>]) -> Result<()> + Send + Sync>;
type Gradient = Box<dyn Fn(&Saved<'_>, &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> + Send + Sync>;
type Words = Box<dyn Fn(&[Meta], &[Meta]) -> Vec<u32> + Send + Sync>;
type Groups = Box<dyn Fn(&[Meta], &[Meta]) -> usize + Send + Sync>;

/// A user's operation. Made once, used as often as wanted; clones are the same operation.
///
/// Its WGSL is a whole module with the entry point `main`. What it may bind, all in `@group(0)`:
///
/// - `@binding(0) var<uniform> u: array<vec4<u32>, N>`: the number of elements of output 0, then the floats (read each by `bitcast<f32>`), then the words
///   of [`CustomOp::words`]; four in each vector, `u[0].x`, `u[0].y` and so on;
/// - `@binding(1)` and on: the inputs, `var<storage, read>`, then the outputs, `var<storage, read_write>`, each the whole of a contiguous value; bools are
///   `u32`.
///
/// It is validated when it is given, and runs with all checks of indices and loops.
///
/// ```
/// use wgrad::{Device, Tensor, ops::CustomOp};
/// let double = CustomOp::new("double", |x| Ok(vec![x[0]]), |_, x, y| {
///     y[0].set_f64(&x[0].to_f64().iter().map(|v| 2.0 * v).collect::<Vec<_>>());
///     Ok(())
/// })
/// .gradient(|_, g| Ok(vec![g[0].as_ref().map(|g| g * 2.0)]));
/// let x = Tensor::new([1.0f32, 2.0], [2], &Device::cpu()?)?.requires_grad()?;
/// double.apply(&[&x], &[])?.sum_all().backward()?;
/// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 2.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct CustomOp(Arc<Definitions>);

struct Definitions {
    /// Tells operations of one name apart in the keys of plans.
    id: u64,
    name: &'static str,
    shapes: Shapes,
    cpu: Definition,
    wgsl: Option<Arc<str>>,
    words: Words,
    groups: Groups,
    gradient: Option<Gradient>,
    on_host: bool,
}

impl fmt::Debug for CustomOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomOp({})", self.0.name)
    }
}

impl CustomOp {
    /// An operation: its name, what it makes of its inputs' types and shapes (or why it refuses them), and what it computes, from the floats and the inputs
    /// into the outputs. That is what the CPU runs, and what every other implementation is compared with.
    pub fn new(
        name: &'static str,
        shapes: impl Fn(&[Meta]) -> Result<Vec<Meta>> + Send + Sync + 'static,
        cpu: impl Fn(&[f64], &[CpuView<'_>], &mut [CpuViewMut<'_>]) -> Result<()> + Send + Sync + 'static,
    ) -> CustomOp {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        CustomOp(Arc::new(Definitions {
            id: NEXT.fetch_add(1, Relaxed),
            name,
            shapes: Box::new(shapes),
            cpu: Box::new(cpu),
            wgsl: None,
            words: Box::new(|_, _| Vec::new()),
            groups: Box::new(|_, outputs| outputs.first().map_or(0, Meta::numel).div_ceil(64)),
            gradient: None,
            on_host: false,
        }))
    }

    /// Change a definition that is being built.
    ///
    /// # Panics
    /// Where it was cloned or used already: plans may know it as it is.
    fn with(self, f: impl FnOnce(&mut Definitions)) -> CustomOp {
        let name = self.0.name;
        let mut own = Arc::into_inner(self.0).unwrap_or_else(|| panic!("{name}: finish a custom op before it is cloned or used"));
        f(&mut own);
        CustomOp(Arc::new(own))
    }

    /// Its kernel. `file` names the text in errors.
    ///
    /// Lavapipe (Mesa 22) compiles a kernel of more than a hundred values anew at every dispatch, and keeps each, where branches or loops end by words and the
    /// first word is read: for that driver, let the first four floats be some that the kernel does not read.
    ///
    /// # Errors
    /// Where the text does not parse or validate: with file, line and a caret.
    pub fn wgsl(self, file: &str, text: &str) -> Result<CustomOp> {
        #[cfg(feature = "gpu")]
        crate::device::gpu::validate_wgsl(text, file).map_err(|e| e.context(self.0.name))?;
        #[cfg(not(feature = "gpu"))]
        let _ = file;
        Ok(self.with(|d| d.wgsl = Some(text.into())))
    }

    /// Words that the kernel reads behind the floats: sizes and strides, from the types and shapes of inputs and outputs.
    pub fn words(self, words: impl Fn(&[Meta], &[Meta]) -> Vec<u32> + Send + Sync + 'static) -> CustomOp {
        self.with(|d| d.words = Box::new(words))
    }

    /// How many workgroups are dispatched, from the types and shapes of inputs and outputs: else one for every 64 elements of output 0. Above the device's
    /// limit in one dimension (65535) they are folded into two: a workgroup's number is `wid.x + wid.y * groups.x`, with `@builtin(num_workgroups)`.
    pub fn workgroups(self, groups: impl Fn(&[Meta], &[Meta]) -> usize + Send + Sync + 'static) -> CustomOp {
        self.with(|d| d.groups = Box::new(groups))
    }

    /// Its gradient, in tensor operations, so that it can be differentiated again: from the inputs, outputs and floats (in [`Saved`]) and the gradient of
    /// each output, the gradient of each input. [`gradcheck`](crate::autograd::gradcheck) compares it with finite differences.
    pub fn gradient(self, gradient: impl Fn(&Saved<'_>, &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static) -> CustomOp {
        self.with(|d| d.gradient = Some(Box::new(gradient)))
    }

    /// Let the host compute it where the device is a GPU and it has no kernel: every use reads its inputs back and is counted as a
    /// [`host_fallbacks`](crate::device::CounterValues::host_fallbacks). Without this, such a use is an error.
    pub fn on_host(self) -> CustomOp {
        self.with(|d| d.on_host = true)
    }

    /// Record it: the one output.
    ///
    /// # Errors
    /// Where the inputs are refused, or it has several outputs, or no kernel for the device.
    pub fn apply(&self, inputs: &[&Tensor], floats: &[f64]) -> Result<Tensor> {
        let mut outs = self.apply_all(inputs, floats)?;
        match outs.len() {
            1 => Ok(outs.remove(0)),
            n => Err(Error::invalid(format!("{}: has {n} outputs", self.0.name)).help("use apply_all")),
        }
    }

    /// Record it: all outputs.
    pub fn apply_all(&self, inputs: &[&Tensor], floats: &[f64]) -> Result<Vec<Tensor>> {
        let d = &self.0;
        let Some(first) = inputs.first() else {
            return Err(Error::invalid(format!("{}: an operation needs an input", d.name)));
        };
        if first.device().is_gpu() && d.wgsl.is_none() && !d.on_host {
            return Err(
                Error::kernel(format!("{}: has no kernel for {}", d.name, first.device().short_name())).help("give it one with wgsl(), or allow on_host()")
            );
        }
        // Its kernel knows whole contiguous values only.
        let whole = |t: &&Tensor| {
            let layout = t.layout();
            if layout.is_contiguous() && layout.offset == 0 { Ok((*t).clone()) } else { super::contiguous_copy(t) }
        };
        let inputs = inputs.iter().map(whole).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::try_apply(Custom(self.clone()), Slots::floats(floats), &inputs.iter().collect::<Vec<_>>())?.into_vec())
    }
}

/// The node.
#[derive(Debug)]
struct Custom(CustomOp);

impl Custom {
    fn definitions(&self) -> &Definitions {
        &self.0.0
    }
}

impl Op for Custom {
    fn name(&self) -> &'static str {
        self.definitions().name
    }

    fn key(&self, key: &mut Key) {
        key.0.push(self.definitions().id);
    }

    fn infer(&self, _: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let d = self.definitions();
        let outs = (d.shapes)(inputs).map_err(|e| e.context(d.name))?;
        if outs.is_empty() { Err(Error::invalid(format!("{}: has no output", d.name))) } else { Ok(outs) }
    }

    fn keeps_bindings(&self) -> bool {
        true
    }

    fn host_only(&self) -> bool {
        self.definitions().wgsl.is_none()
    }

    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let d = self.definitions();
        (d.cpu)(&slots.floats, inputs, outputs).map_err(|e| e.context(d.name))
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        let d = self.definitions();
        let text = d.wgsl.clone().ok_or_else(|| Error::kernel(format!("{}: has no kernel", d.name)))?;
        let inputs: Vec<Meta> = ctx.inputs.iter().map(|o| o.meta).collect();
        let outputs: Vec<Meta> = ctx.outputs.iter().map(|(_, m)| *m).collect();
        if outputs.iter().chain(&inputs).any(|m| m.numel() == 0) {
            return if outputs.iter().all(|m| m.numel() == 0) { Ok(()) } else { Err(Error::shape(format!("{}: a kernel cannot bind an empty input", d.name))) };
        }
        // An output that nobody wants still needs a place to be written to.
        let places: Vec<_> = (0..outputs.len()).map(|n| ctx.outputs[n].0.unwrap_or_else(|| ctx.scratch(outputs[n].bytes()))).collect();
        let floats: Vec<_> = (0..ctx.float_count()).map(|n| ctx.float(n)).collect();
        let mut call = ctx.call_text(&text);
        for n in 0..inputs.len() {
            call = call.input("", n);
        }
        for (slot, meta) in places.into_iter().zip(&outputs) {
            call = call.write("", slot, meta.dtype.wgsl());
        }
        call = call.u32(outputs[0].numel());
        for f in floats {
            call = call.word(f);
        }
        for w in (d.words)(&inputs, &outputs) {
            call = call.u32(w as usize);
        }
        call.grid_linear((d.groups)(&inputs, &outputs))
    }

    fn saves(&self) -> Saves {
        // What the closure reads is not known.
        Saves { inputs: u64::MAX, outputs: u64::MAX }
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let d = self.definitions();
        let Some(gradient) = &d.gradient else {
            return Err(Error::gradient(format!("{}: has no gradient", d.name)).help("give it one with gradient(), or detach the input"));
        };
        let given = gradient(ctx, grads).map_err(|e| e.context(d.name))?;
        if given.len() == ctx.input_count() {
            Ok(given)
        } else {
            Err(Error::gradient(format!("{}: gradient() gave {} gradients for {} inputs", d.name, given.len(), ctx.input_count())))
        }
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        // Nothing is known of its shapes, so each model runs alone.
        let mut each: Vec<Vec<Tensor>> = Vec::new();
        for model in 0..ctx.k {
            let inputs: Vec<Tensor> = ctx.inputs.iter().map(|t| t.select(0, model)).collect();
            let outs = self.0.apply_all(&inputs.iter().collect::<Vec<_>>(), &ctx.slots.floats)?;
            each.resize(outs.len(), Vec::new());
            outs.into_iter().zip(&mut each).for_each(|(o, list)| list.push(o));
        }
        each.iter().map(|list| Tensor::try_stack(list, 0)).collect()
    }
}
