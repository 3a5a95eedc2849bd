//! Captured steps: what they compute is what uncaptured ones compute, to the bit, and what they cannot know is recorded.

use super::{bits, counted, devices, tensor, values};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use wgrad::nn::{BatchNorm1d, Dropout, Linear, Module, Param, ReLU, Sequential};
use wgrad::ops::CrossEntropy;
use wgrad::optim::{Adam, AdamOptions, Optimizer};
use wgrad::train::capture;
use wgrad::{Device, Generator, Result, Tensor};

const INPUTS: usize = 12;
const CLASSES: usize = 3;
const SAMPLES: usize = 64;

/// A classifier with all that makes a step depend on more than its inputs: masks, running statistics, moments.
struct Job {
    model: Rc<Sequential>,
    masks: Arc<Generator>,
    optimizer: Adam,
    x: Tensor,
    y: Tensor,
    device: Device,
}

type Losses = Vec<u32>;

impl Job {
    fn new(device: &Device) -> Job {
        let (initial, masks) = (Generator::new(3), Arc::new(Generator::new(5)));
        let model = Sequential::new()
            .then(Linear::new(INPUTS, 16, &initial, device).unwrap())
            .then(BatchNorm1d::new(16, device).unwrap())
            .then(ReLU)
            .then(Dropout::new(0.25, &masks).unwrap())
            .then(Linear::new(16, CLASSES, &initial, device).unwrap());
        let labels: Vec<i32> = values(9, SAMPLES).iter().map(|v| ((v + 1.0) * 1.49) as i32).collect();
        Job {
            optimizer: Adam::new(model.parameters(), AdamOptions { weight_decay: 0.01, ..AdamOptions::default() }).unwrap(),
            model: Rc::new(model),
            masks,
            x: tensor(8, &[SAMPLES, INPUTS], device),
            y: Tensor::new(labels, [SAMPLES], device).unwrap(),
            device: device.clone(),
        }
    }

    /// A window of the data, as views: whole batches, and a smaller one every fifth step.
    fn batch(&self, step: usize) -> (Tensor, Tensor) {
        let (start, length) = if step % 5 == 4 { (48, 7) } else { (step * 13 % 48, 16) };
        (self.x.narrow(0, start, length), self.y.narrow(0, start, length))
    }

    fn forward(model: &Sequential, inputs: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let logits = model.try_forward(&inputs[0])?;
        let loss = logits.cross_entropy_with(&inputs[1], &CrossEntropy::default())?;
        Ok((loss.clone(), vec![loss, logits]))
    }

    fn rate(step: usize) -> f64 {
        0.02 / (1.0 + step as f64)
    }

    /// The steps without a capture.
    fn plain(&mut self, steps: std::ops::Range<usize>) -> Losses {
        steps
            .flat_map(|step| {
                let (x, y) = self.batch(step);
                self.optimizer.set_lr(Job::rate(step));
                self.optimizer.zero_grad();
                let (loss, outputs) = Job::forward(&self.model, &[x, y]).unwrap();
                loss.backward().unwrap();
                self.optimizer.step().unwrap();
                self.optimizer.zero_grad();
                outputs.iter().flat_map(bits).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The same with one, and how many steps were recorded.
    fn captured(&mut self, steps: std::ops::Range<usize>) -> (Losses, u64) {
        let model = self.model.clone();
        let mut captured = capture(move |inputs| Job::forward(&model, inputs));
        let losses = steps
            .flat_map(|step| {
                let (x, y) = self.batch(step);
                self.optimizer.set_lr(Job::rate(step));
                captured.run(&mut self.optimizer, &[&x, &y]).unwrap().iter().flat_map(bits).collect::<Vec<_>>()
            })
            .collect();
        (losses, captured.recordings())
    }

    /// All that a checkpoint has, as bits.
    fn state(&self) -> Vec<(String, Vec<u32>)> {
        let optimizer = self.optimizer.state_dict().unwrap();
        let own = optimizer.iter().filter(|(n, _)| n != "step").map(|(n, t)| (n.clone(), bits(t)));
        let draws = vec![("draws".to_string(), vec![self.masks.state().1 as u32]), ("steps".to_string(), vec![self.optimizer.steps() as u32])];
        self.model.state_dict().iter().map(|(n, t)| (n.clone(), bits(t))).chain(own).chain(draws).collect()
    }

    /// A new job that goes on where this one is.
    fn resumed(&self) -> Job {
        let mut next = Job::new(&self.device);
        next.model.load_state_dict(&self.model.state_dict(), true).unwrap();
        next.optimizer.load_state_dict(&self.optimizer.state_dict().unwrap()).unwrap();
        // Masks come from a generator that goes on, too.
        while next.masks.state().1 < self.masks.state().1 {
            let _ = Tensor::rand([1], &next.masks, &self.device).unwrap();
        }
        next
    }
}

#[test]
fn captured_steps_have_the_bits_of_uncaptured_ones() {
    for device in devices() {
        let (mut plain, mut captured) = (Job::new(&device), Job::new(&device));
        let want = plain.plain(0..20);
        let (got, recordings) = captured.captured(0..20);
        assert_eq!(got, want, "{device:?}");
        assert_eq!(captured.state(), plain.state(), "{device:?}");
        // Windows that begin at a multiple of four elements and others are two plans, there is the smaller batch, and the first step reads running statistics
        // that no step has made.
        assert!(recordings <= 7, "{device:?}: {recordings} recordings in 20 steps");
    }
}

#[test]
fn captured_steps_go_on_from_a_checkpoint() {
    for device in devices() {
        let mut plain = Job::new(&device);
        let want = plain.plain(0..20);
        let mut captured = Job::new(&device);
        let (mut got, _) = captured.captured(0..9);
        let mut next = captured.resumed();
        got.extend(next.captured(9..20).0);
        assert_eq!(got, want, "{device:?}");
        assert_eq!(next.state(), plain.state(), "{device:?}");
    }
}

#[test]
fn a_replayed_step_records_at_most_views_and_submits_once() {
    for device in devices() {
        let mut job = Job::new(&device);
        let model = job.model.clone();
        let mut step = capture(move |inputs| Job::forward(&model, inputs));
        let (x, y) = job.batch(0);
        for n in 0..7 {
            let (_, did) = counted(&device, || step.run(&mut job.optimizer, &[&x, &y]).unwrap());
            // The first step reads running statistics that no step has made: the second one's plan is another, and the third one's the same.
            if n >= 3 {
                assert_eq!((did.plans_built, did.plans_replayed, did.submits, did.pipelines), (0, 1, 1, 0), "{device:?}: {did:?}");
                // Of the loss and the two running statistics, which have other shapes than what the kernels make.
                assert!(did.nodes <= 3, "{device:?}: {did:?}");
            }
            assert!(n < 5 || did.create_buffer == 0, "{device:?}: step {n}: {did:?}");
        }
        assert_eq!((step.recordings() + step.replays(), job.optimizer.steps()), (7, 7), "{device:?}");
        assert!(step.recordings() <= 3, "{device:?}: {} recordings", step.recordings());
    }
}

/// Losses of ten steps on one batch, `between` each, captured or not.
fn ten(device: &Device, captured: bool, between: impl Fn(usize, &mut Job)) -> (Losses, u64) {
    let mut job = Job::new(device);
    let model = job.model.clone();
    let mut step = capture(move |inputs| Job::forward(&model, inputs));
    let mut losses = Vec::new();
    for n in 0..10 {
        between(n, &mut job);
        if captured {
            let (x, y) = job.batch(0);
            losses.extend(bits(&step.run(&mut job.optimizer, &[&x, &y]).unwrap()[0]));
        } else {
            let (x, y) = job.batch(0);
            job.optimizer.zero_grad();
            let (loss, outputs) = Job::forward(&job.model, &[x, y]).unwrap();
            loss.backward().unwrap();
            drop(loss);
            job.optimizer.step().unwrap();
            job.optimizer.zero_grad();
            losses.extend(bits(&outputs[0]));
        }
    }
    (losses, step.recordings())
}

#[test]
fn a_module_in_evaluation_is_another_step() {
    for device in devices() {
        let between = |n: usize, job: &mut Job| {
            if n == 4 {
                job.model.eval();
            }
            if n == 7 {
                job.model.train();
            }
        };
        let (want, _) = ten(&device, false, between);
        let (got, recordings) = ten(&device, true, between);
        assert_eq!(got, want, "{device:?}");
        assert!(recordings <= 7, "{device:?}: {recordings}");
    }
}

#[test]
fn a_parameter_or_buffer_that_is_set_is_taken_up() {
    for device in devices() {
        let between = |n: usize, job: &mut Job| {
            let (params, buffers) = (job.model.parameters(), job.model.named_buffers());
            if n == 4 {
                params[0].set(&tensor(77, &[16, INPUTS], &device)).unwrap();
            }
            if n == 6 {
                buffers[0].1.assign(&tensor(78, &[16], &device)).unwrap();
            }
        };
        let (want, _) = ten(&device, false, between);
        let (got, recordings) = ten(&device, true, between);
        assert_eq!(got, want, "{device:?}");
        // What was set lies elsewhere for a step, which is then another one.
        assert!(recordings <= 8, "{device:?}: {recordings}");
    }
}

#[test]
fn values_taken_before_a_replayed_step_stay() {
    for device in devices() {
        let held = RefCell::new(Vec::new());
        let between = |n: usize, job: &mut Job| {
            if n == 5 {
                let p = job.model.parameters()[0].tensor();
                held.borrow_mut().push((bits(&p), p));
            }
        };
        let (want, _) = ten(&device, false, between);
        let (got, recordings) = ten(&device, true, between);
        assert_eq!(got, want, "{device:?}");
        assert!((4..=5).contains(&recordings), "{device:?}: {recordings}");
        for (before, p) in held.take() {
            assert_eq!(bits(&p), before, "{device:?}");
        }
    }
}

#[test]
fn an_undeclared_number_is_noticed_and_recorded_each_time() {
    for device in devices() {
        let mut job = Job::new(&device);
        let (model, calls) = (job.model.clone(), Rc::new(Cell::new(0.0)));
        let mut step = capture(move |inputs| {
            calls.set(calls.get() + 1.0);
            let (loss, _) = Job::forward(&model, inputs)?;
            let scaled = &loss * calls.get();
            Ok((scaled, vec![loss]))
        });
        let (x, y) = job.batch(0);
        for _ in 0..4 {
            step.run(&mut job.optimizer, &[&x, &y]).unwrap();
        }
        assert_eq!((step.recordings(), step.replays()), (4, 0));
        assert_eq!(step.why_recorded(), Some("the step computes with other numbers that are no tensors from one call to the next"));
    }
}

#[test]
fn a_read_inside_a_step_is_recorded_each_time() {
    for device in devices() {
        let mut job = Job::new(&device);
        let model = job.model.clone();
        let mut step = capture(move |inputs| {
            let (loss, _) = Job::forward(&model, inputs)?;
            assert!(loss.item()?.is_finite());
            Ok((loss.clone(), vec![loss]))
        });
        let (x, y) = job.batch(0);
        for _ in 0..3 {
            step.run(&mut job.optimizer, &[&x, &y]).unwrap();
        }
        assert_eq!((step.recordings(), step.why_recorded()), (3, Some("a value is read inside the step")));
    }
}

#[test]
fn a_tensor_of_the_closure_that_is_replaced_is_noticed() {
    for device in devices() {
        let losses = |captured: bool| {
            let w = Param::new(&tensor(1, &[5], &device)).unwrap();
            let mut adam = Adam::new(vec![w.clone()], AdamOptions::default()).unwrap();
            let target = Rc::new(RefCell::new(tensor(2, &[5], &device)));
            let (weight, goal) = (w.clone(), target.clone());
            let forward = move |_: &[Tensor]| -> Result<(Tensor, Vec<Tensor>)> {
                let loss = (&weight.tensor() - &*goal.borrow()).square().sum_all();
                Ok((loss.clone(), vec![loss]))
            };
            let mut step = capture(forward.clone());
            (0..8)
                .map(|n| {
                    if n == 5 {
                        *target.borrow_mut() = tensor(3, &[5], &device);
                    }
                    if captured {
                        return bits(&step.run(&mut adam, &[]).unwrap()[0]);
                    }
                    let (loss, outputs) = forward(&[]).unwrap();
                    loss.backward().unwrap();
                    adam.step().unwrap();
                    adam.zero_grad();
                    bits(&outputs[0])
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(losses(true), losses(false), "{device:?}");
    }
}

#[test]
fn a_parameter_that_is_not_trained_may_be_set() {
    for device in devices() {
        let (w, frozen) = (Param::new(&tensor(1, &[5], &device)).unwrap(), Param::new(&tensor(2, &[5], &device)).unwrap());
        let mut adam = Adam::new(vec![w.clone()], AdamOptions { lr: 0.0, ..AdamOptions::default() }).unwrap();
        let (weight, other) = (w.clone(), frozen.clone());
        let mut step = capture(move |_: &[Tensor]| {
            let loss = (&weight.tensor() * &other.tensor().detach()).sum_all();
            Ok((loss.clone(), vec![loss]))
        });
        for n in 0..6u64 {
            frozen.set(&tensor(10 + n, &[5], &device)).unwrap();
            let got = step.run(&mut adam, &[]).unwrap()[0].item().unwrap();
            let want = (&tensor(1, &[5], &device) * &tensor(10 + n, &[5], &device)).sum_all().item().unwrap();
            assert_eq!(got, want, "{device:?}: step {n}");
        }
        assert_eq!(step.replays(), 4, "{device:?}: {:?}", step.why_recorded());
    }
}

#[test]
fn what_a_step_cannot_do_is_said() {
    for device in devices() {
        let mut job = Job::new(&device);
        let (x, y) = job.batch(0);
        let model = job.model.clone();
        let mut step = capture(move |inputs| Job::forward(&model, inputs));
        for _ in 0..3 {
            step.run(&mut job.optimizer, &[&x, &y]).unwrap();
        }
        let e = wgrad::no_grad(|| step.run(&mut job.optimizer, &[&x, &y])).unwrap_err();
        assert!(e.to_string().contains("does not depend on anything that requires a gradient"), "{e}");
        assert!(step.run(&mut job.optimizer, &[&x, &y]).is_ok());

        let kept = Rc::new(RefCell::new(Vec::new()));
        let (model, keep) = (job.model.clone(), kept.clone());
        let mut step = capture(move |inputs| {
            let (loss, _) = Job::forward(&model, inputs)?;
            keep.borrow_mut().push(loss.clone());
            Ok((loss, vec![]))
        });
        for _ in 0..3 {
            step.run(&mut job.optimizer, &[&x, &y]).unwrap();
        }
        assert_eq!(step.replays(), 0);
        assert!(step.why_recorded().is_some_and(|w| w.ends_with("is kept outside of it")), "{:?}", step.why_recorded());
        assert_eq!(kept.borrow().len(), 3);
    }
}
