//! dropout: a product with a mask that is computed again wherever it is used, never stored.

use super::create::Generator;
use super::table::{Arg, Misuse, OpEntry, Order, Sample};
use super::view::ok;
use crate::error::{Error, Result};
use crate::graph::Tensor;

impl Tensor {
    /// Each element made 0 with probability `p`, the others divided by `1 - p`. Where not training, or for `p` 0, it records nothing.
    ///
    /// ```
    /// use wgrad::{Device, Generator, Tensor};
    /// let y = Tensor::ones([1000], &Device::cpu()?).dropout(0.25, true, &Generator::new(1));
    /// let kept = y.to_vec::<f32>()?.iter().filter(|v| **v > 0.0).count();
    /// assert!((700..800).contains(&kept));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn dropout(&self, p: f64, training: bool, generator: &Generator) -> Tensor {
        ok(self.try_dropout(p, training, generator))
    }

    /// [`Tensor::dropout`], or an error where `p` is not a probability.
    pub fn try_dropout(&self, p: f64, training: bool, generator: &Generator) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::invalid(format!("dropout: p must be in 0..=1, got {p}")));
        }
        if !training || p == 0.0 {
            return Ok(self.clone());
        }
        Tensor::apply_row("mul", &[], &[self, &self.keep_mask(p, generator)?])
    }
}

pub(super) static OPS: &[OpEntry] = &[OpEntry {
    name: "dropout",
    doc: "elements made 0 at random, the others scaled up",
    order: Order::Any,
    nodes: &[],
    samples: || {
        let case = |shape: &'static [usize], p: f64, training: bool| {
            Sample::new(format!("{shape:?}, p {p}, training {training}"), vec![Arg::float(shape)], 1, move |x| {
                Ok(vec![x[0].try_dropout(p, training, &Generator::new(7))?.square()])
            })
        };
        vec![case(&[7, 5], 0.3, true), case(&[1031], 0.5, true), case(&[3], 1.0, true), case(&[4, 2], 0.5, false)]
    },
    misuse: || {
        vec![Misuse::new(vec![Arg::float([3])], "dropout: p must be in 0..=1, got 1.5", |x| Ok(vec![x[0].try_dropout(1.5, true, &Generator::new(7))?]))]
    },
}];
