//! Rows as operations: inference, broadcasting, gradients.

use super::rows::{Row, RowArgs, RowGrad, Sig, Slope, row};
use crate::device::cpu::{CpuView, CpuViewMut};
use crate::error::{Error, Result};
use crate::graph::{Autocast, Batched, Key, LaunchCtx, Op, Saved, Saves, Slots, Tensor};
use crate::tensor::{DType, Meta, Shape, broadcast};

/// An elementwise operation.
#[derive(Debug)]
pub(crate) struct RowOp {
    pub row: &'static Row,
    /// For sources: what to make.
    pub source: Option<Meta>,
}

impl Op for RowOp {
    fn name(&self) -> &'static str {
        self.row.name
    }

    fn key(&self, key: &mut Key) {
        key.text(self.row.name);
    }

    fn row(&self) -> Option<&'static Row> {
        Some(self.row)
    }

    fn autocast(&self) -> Autocast {
        self.row.autocast()
    }

    fn infer(&self, slots: &Slots, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let row = self.row;
        if inputs.len() != row.arity || slots.floats.len() != row.floats || slots.ints.len() != row.ints {
            let want = format!("{} inputs, {} floats and {} integers", row.arity, row.floats, row.ints);
            return Err(Error::shape(format!("{}: takes {want}, got {}, {} and {}", row.name, inputs.len(), slots.floats.len(), slots.ints.len())));
        }
        if let Some(meta) = self.source {
            return Ok(vec![meta]);
        }
        if inputs.iter().any(|m| m.shape != inputs[0].shape) {
            return Err(Error::internal(format!("{}: inputs were not broadcast", row.name)));
        }
        let last = inputs[inputs.len() - 1].dtype;
        if let (Sig::Number | Sig::Compare, false, Some(p)) = (row.sig, last.is_float(), slots.floats.iter().find(|p| p.fract() != 0.0)) {
            return Err(Error::shape(format!("{}: {p} is not a whole number, the input is {last}", row.name)).help("convert with to_dtype"));
        }
        Ok(vec![Meta::new(out_dtype(row, inputs)?, inputs[0].shape)])
    }

    fn differentiable(&self) -> bool {
        matches!(self.row.sig, Sig::Float | Sig::Number | Sig::Select) || matches!(self.row.sig, Sig::Cast(d) if d.is_float())
    }

    // Reached only where a row is run outside a fused kernel; the runner of rows does the same in blocks.
    fn cpu(&self, slots: &Slots, inputs: &[CpuView<'_>], outputs: &mut [CpuViewMut<'_>]) -> Result<()> {
        let xs: Vec<Vec<f64>> = inputs.iter().map(CpuView::to_f64).collect();
        let n = outputs[0].meta.numel();
        let values: Vec<f64> = (0..n)
            .map(|i| {
                let x: Vec<f64> = xs.iter().map(|v| v[i]).collect();
                (self.row.value)(&RowArgs { x: &x, p: &slots.floats, q: &slots.ints, i })
            })
            .collect();
        outputs[0].set_f64(&values);
        Ok(())
    }

    fn gpu(&self, ctx: &mut LaunchCtx<'_>) -> Result<()> {
        Err(Error::internal(format!("{}: rows are lowered by the planner", ctx.label)))
    }

    fn saves(&self) -> Saves {
        let mut saves = Saves::NONE;
        for slope in self.row.slopes {
            match slope {
                Slope::Row(name) => saves.inputs |= (1 << row(name).arity.min(self.row.arity)) - 1,
                Slope::Grad(uses, _) => {
                    for c in uses.chars() {
                        match c {
                            'x' => saves.inputs |= 1,
                            'y' => saves.inputs |= 2,
                            'z' => saves.inputs |= 4,
                            _ => saves.outputs |= 1,
                        }
                    }
                }
                Slope::Zero | Slope::One | Slope::None => {}
            }
        }
        saves
    }

    fn backward(&self, ctx: &Saved<'_>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = &grads[0] else { return Ok(vec![None; self.row.arity]) };
        let mut out = Vec::with_capacity(self.row.arity);
        for (n, slope) in self.row.slopes.iter().enumerate() {
            // Only float inputs carry gradients: a condition or a cast integer has none.
            if !ctx.needs(n) || !ctx.input_meta(n).dtype.is_float() {
                out.push(None);
                continue;
            }
            out.push(match slope {
                Slope::Zero => None,
                // A cast's gradient comes back in the input's type.
                Slope::One => Some(grad.try_to_dtype(ctx.input_meta(n).dtype)?),
                Slope::Row(name) => {
                    let slope_row = row(name);
                    let inputs: Vec<&Tensor> = (0..slope_row.arity).map(|i| ctx.input(i)).collect();
                    let slope = Tensor::apply_row(slope_row, &ctx.slots().floats, &inputs)?;
                    Some(Tensor::apply_row(row("mul"), &[], &[grad, &slope])?)
                }
                Slope::Grad(_, f) => Some(f(&RowGrad { grad, inputs: &ctx.inputs, output: ctx.outputs[0].as_ref(), floats: &ctx.slots().floats })),
                Slope::None => {
                    return Err(Error::gradient(format!("{}: is first-order only, it has no gradient of its own", self.row.name)));
                }
            });
        }
        Ok(out)
    }

    fn batch(&self, ctx: &Batched<'_>) -> Result<Vec<Tensor>> {
        if self.source.is_some() {
            return super::create::batch_source(self.row, ctx);
        }
        Ok(Tensor::try_apply(RowOp { row: self.row, source: None }, ctx.slots.clone(), &ctx.inputs.iter().collect::<Vec<_>>())?.into_vec())
    }
}

/// The type of a row's result, or why it does not take these.
fn out_dtype(row: &Row, inputs: &[Meta]) -> Result<DType> {
    let refuse = |want: &str| {
        let got: Vec<&str> = inputs.iter().map(|m| m.dtype.name()).collect();
        Err(Error::shape(format!("{}: takes {want}, got {}", row.name, got.join(" and "))).help("convert with to_dtype"))
    };
    let first = inputs[0].dtype;
    let same = inputs.iter().all(|m| m.dtype == first);
    match row.sig {
        Sig::Float if same && first.is_float() => Ok(first),
        Sig::Float => refuse("floats of one type"),
        Sig::Number if same && first != DType::Bool => Ok(first),
        Sig::Number => refuse("numbers of one type"),
        Sig::Compare if same => Ok(DType::Bool),
        Sig::Compare => refuse("values of one type"),
        Sig::Logic if same && first == DType::Bool => Ok(DType::Bool),
        Sig::Logic => refuse("bools"),
        Sig::Select => match inputs {
            [c, a] if c.dtype == DType::Bool => Ok(a.dtype),
            [c, a, b] if c.dtype == DType::Bool && a.dtype == b.dtype => Ok(a.dtype),
            _ => refuse("a bool, then values of one type"),
        },
        Sig::Cast(dtype) => Ok(dtype),
        Sig::Source(_) => Err(Error::internal(format!("{}: a source has no inputs", row.name))),
    }
}

impl Tensor {
    /// Record a row over inputs that are broadcast to one shape.
    ///
    /// # Errors
    /// Shapes that do not broadcast, element types that the row does not take.
    pub fn apply_row(row: impl IntoRow, floats: &[f64], inputs: &[&Tensor]) -> Result<Tensor> {
        let row = row.into_row();
        let mut shape: Shape = *inputs[0].shape();
        for t in &inputs[1..] {
            shape = broadcast(&shape, t.shape()).ok_or_else(|| {
                let shapes: Vec<String> = inputs.iter().map(|t| t.shape().to_string()).collect();
                Error::shape(format!("{}: shapes do not broadcast: {}", row.name, shapes.join(" and ")))
            })?;
        }
        let wide: Vec<Tensor> = inputs.iter().map(|t| if *t.shape() == shape { Ok((*t).clone()) } else { t.try_expand(shape) }).collect::<Result<_>>()?;
        Tensor::try_apply1(RowOp { row, source: None }, Slots::floats(floats), &wide.iter().collect::<Vec<_>>())
    }
}

/// A row, or the name of one.
pub trait IntoRow {
    /// The row.
    fn into_row(self) -> &'static Row;
}

impl IntoRow for &'static Row {
    fn into_row(self) -> &'static Row {
        self
    }
}

impl IntoRow for &str {
    fn into_row(self) -> &'static Row {
        row(self)
    }
}
