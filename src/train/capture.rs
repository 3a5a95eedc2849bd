//! Captured steps: a training step that is recorded twice, and from then on only run.

use crate::error::Result;
use crate::graph::{Engine, Recorded, Session, Tensor, flush};
use crate::nn::{Buffer, Param};
use crate::optim::{GradScaler, Optimizer};
use std::sync::Arc;

/// How many steps of different inputs are kept: the step of a whole batch, that of an epoch's last one, and a few more.
const KEPT: usize = 8;

/// A training step that is run again without being recorded: see [`capture`].
pub struct Capture<F> {
    step: F,
    kept: Vec<Kept>,
    recordings: u64,
    replays: u64,
    why: Option<String>,
}

/// A step of inputs of some shapes.
struct Kept {
    recorded: Recorded,
    of: Of,
    /// Whether a second recording was foretold by the one before.
    sure: bool,
}

/// Whose step it is: the first parameter of the optimizer, the state of the scaler where the loss is scaled, and how the device plans.
struct Of(Option<Param>, Option<Buffer>, Option<u64>);

impl Of {
    fn new(optimizer: &dyn Optimizer, scaler: Option<&GradScaler>) -> Of {
        let first = optimizer.params().first().cloned();
        let planning = first.as_ref().map(|p| p.tensor().engine().planning());
        Of(first, scaler.map(|s| s.state().clone()), planning)
    }

    fn same(&self, other: &Of) -> bool {
        fn both<T>(a: &Option<T>, b: &Option<T>, same: impl Fn(&T, &T) -> bool) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => same(a, b),
                (None, None) => true,
                _ => false,
            }
        }
        self.2 == other.2 && both(&self.0, &other.0, Param::same) && both(&self.1, &other.1, Buffer::same)
    }
}

impl Kept {
    fn takes(&self, of: &Of, inputs: &[&Tensor]) -> bool {
        self.of.same(of) && self.recorded.takes(inputs)
    }
}

impl<F> std::fmt::Debug for Capture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Capture({} recordings, {} replays)", self.recordings, self.replays)
    }
}

/// Capture a training step: what `step` gives for its inputs is a loss, and values to give back.
///
/// [`Capture::run`] takes a step with an optimizer: it forgets the gradients, calls `step`, goes backward from the loss, lets the optimizer update, and forgets the
/// gradients again. Once two calls recorded the same operations (the first and the second; where running statistics are fresh, the second and the third), later
/// ones call `step` no more: they run its plan on what changed, which costs the host
/// next to nothing. The values are those of uncaptured steps, to the bit.
///
/// ```
/// use wgrad::optim::{Sgd, SgdOptions};
/// use wgrad::{Device, Tensor, nn::Param, train::capture};
/// let device = Device::cpu()?;
/// let w = Param::new(&Tensor::new([0.0f32], [1], &device)?)?;
/// let mut sgd = Sgd::new(vec![w.clone()], SgdOptions { lr: 0.25, ..Default::default() })?;
/// let weight = w.clone();
/// let mut step = capture(move |inputs| {
///     let loss = (&weight.tensor() - &inputs[0]).square().sum_all();
///     Ok((loss.clone(), vec![loss]))
/// });
/// let target = Tensor::new([1.0f32], [1], &device)?;
/// let losses = (0..4).map(|_| step.run(&mut sgd, &[&target])?[0].item()).collect::<Result<Vec<f64>, _>>()?;
/// assert_eq!(losses, [1.0, 0.25, 0.0625, 0.015625]);
/// assert_eq!((step.recordings(), step.replays()), (2, 2));
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # What may change from call to call
/// The inputs, for others of the same types, shapes and strides (a view may look elsewhere: offsets of one alignment are one step). The learning rate and
/// whatever else the optimizer computes for a step. Random numbers: generators advance as if the step was recorded. Parameters and buffers, by whatever sets
/// them: loading a checkpoint needs no care.
///
/// # What may not
/// All else that `step` looks at is taken for a constant once two calls agree: a number that it reads from a variable, a tensor that it holds. A number that
/// changes belongs into an input. A tensor of the closure's that is dropped or replaced is noticed; a number that two recordings found equal and that changes
/// later is not.
///
/// # When it is recorded again
/// Wherever the plan cannot be known to fit: inputs of other shapes (several are kept), a module that went into training or out of it, a parameter that was set or
/// whose present value is still in use, `no_grad`. A step that reads a value inside, or computes with other numbers at each call, is recorded each time:
/// [`Capture::why_recorded`] says why.
pub fn capture<F>(step: F) -> Capture<F>
where
    F: FnMut(&[Tensor]) -> Result<(Tensor, Vec<Tensor>)>,
{
    Capture { step, kept: Vec::new(), recordings: 0, replays: 0, why: None }
}

impl<F> Capture<F>
where
    F: FnMut(&[Tensor]) -> Result<(Tensor, Vec<Tensor>)>,
{
    /// Take a step on these inputs. Gives what the closure gives beside the loss, without history. What the calling thread recorded before is computed first;
    /// the parameters have no gradients afterwards.
    ///
    /// # Errors
    /// Those of the closure, of `backward` and of [`Optimizer::step`].
    pub fn run(&mut self, optimizer: &mut dyn Optimizer, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.take(optimizer, None, inputs)
    }

    /// The same with a scaled loss: goes backward from [`GradScaler::scale`] of it, and takes [`GradScaler::step`]. The closure records what is to be in another
    /// element type inside [`autocast`](crate::autocast).
    ///
    /// # Errors
    /// Those of the closure, of `backward` and of [`GradScaler::step`].
    pub fn run_scaled(&mut self, optimizer: &mut dyn Optimizer, scaler: &mut GradScaler, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        scaler.forget();
        self.take(optimizer, Some(scaler), inputs)
    }

    fn take(&mut self, optimizer: &mut dyn Optimizer, scaler: Option<&mut GradScaler>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let first = optimizer.params().first().map(|p| p.tensor());
        let Some(engine) = first.as_ref().or(inputs.first().copied()).map(|t| t.engine().clone()) else { return self.record(optimizer, scaler, inputs) };
        drop(first);
        settle(&engine, inputs)?;
        let of = Of::new(optimizer, scaler.as_deref());
        let kept = self.kept.iter().find(|k| k.sure && k.takes(&of, inputs));
        if let (Some(kept), Some(floats)) = (kept, optimizer.next_floats()) {
            optimizer.zero_grad();
            if let Some(returned) = kept.recorded.replay(&engine, inputs, &floats)? {
                optimizer.stepped();
                self.replays += 1;
                return Ok(returned);
            }
        }
        self.record(optimizer, scaler, inputs)
    }

    /// How many calls recorded the step.
    pub fn recordings(&self) -> u64 {
        self.recordings
    }

    /// How many did not.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// Why the last recording cannot be run again as it is; none where the next call with its inputs, or the second next, will.
    pub fn why_recorded(&self) -> Option<&str> {
        self.why.as_deref()
    }

    fn record(&mut self, optimizer: &mut dyn Optimizer, scaler: Option<&mut GradScaler>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let of = Of::new(optimizer, scaler.as_deref());
        let floats = optimizer.next_floats();
        self.recordings += 1;
        let (returned, session) = Session::record(inputs, |stand_ins| {
            optimizer.zero_grad();
            let (loss, outputs) = (self.step)(stand_ins)?;
            match &scaler {
                Some(scaler) => scaler.scale(&loss)?.backward()?,
                None => loss.backward()?,
            }
            let outputs: Vec<Tensor> = outputs.into_iter().map(|t| t.detach()).collect();
            // What no handle names is never stored.
            drop(loss);
            match scaler {
                Some(scaler) => scaler.step(optimizer)?,
                None => optimizer.step()?,
            }
            optimizer.zero_grad();
            Ok(outputs)
        })?;
        let floats = floats.ok_or_else(|| "the optimizer does not say what its steps compute with".to_string());
        let new = floats.and_then(|f| Ok((Recorded::of(session, inputs, &returned, &f)?, f)));
        let place = self.kept.iter().position(|k| k.takes(&of, inputs));
        self.why = None;
        match (new, place) {
            (Ok((new, floats)), Some(n)) => {
                let kept = &mut self.kept[n];
                self.why = kept.recorded.foretells(&new, inputs, &floats).err();
                *kept = Kept { recorded: new, of, sure: self.why.is_none() };
            }
            (Ok((new, _)), None) => {
                if self.kept.len() == KEPT {
                    self.kept.remove(0);
                }
                self.kept.push(Kept { recorded: new, of, sure: false });
            }
            (Err(why), place) => {
                place.into_iter().for_each(|n| self.kept[n].sure = false);
                self.why = Some(why);
            }
        }
        Ok(returned)
    }
}

/// Compute what is pending: the inputs, and what handles name. So a step's plan is the step alone.
fn settle(engine: &Arc<Engine>, inputs: &[&Tensor]) -> Result<()> {
    flush(&engine.device)?;
    // A constant that nobody computed yet is no leaf.
    inputs.iter().filter(|t| t.value().base().node.is_pending()).try_for_each(|t| t.compute())
}
