//! The training loop: what it tells to whom, how it ends, and that what listens can step in.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use wgrad::data::{Augment, Dataset, Targets};
use wgrad::nn::{Linear, Module, ReLU, Sequential};
use wgrad::optim::{Sgd, SgdOptions};
use wgrad::train::{Event, Flow, Report, Resident, Schedule, TrainOptions, Trainer, evaluate, fit, gradients};
use wgrad::{Device, Generator};

/// 50 points in two classes, by the sign of x - y.
fn points() -> Dataset {
    let at = |i: usize| [(i * 37 % 50) as f32 / 25.0 - 1.0, (i * 11 % 50) as f32 / 25.0 - 0.99];
    let features: Vec<f32> = (0..50).flat_map(at).collect();
    let labels = features.chunks(2).map(|p| i32::from(p[0] > p[1])).collect();
    Dataset::new(features, &[2], Targets::Classes { labels, classes: 2 }).unwrap()
}

fn model(outputs: usize, device: &Device) -> Sequential {
    let generator = Arc::new(Generator::new(3));
    let layer = |from, to| Linear::new(from, to, &generator, device).unwrap();
    Sequential::new().then(layer(2, 8)).then(ReLU).then(layer(8, outputs))
}

fn sgd(model: &dyn Module, lr: f64) -> Sgd {
    Sgd::new(model.parameters(), SgdOptions { lr, ..SgdOptions::default() }).unwrap()
}

fn options() -> TrainOptions {
    TrainOptions { epochs: 3, batch_size: 16, learning_rate: 0.1, ..TrainOptions::default() }
}

fn weights(model: &dyn Module) -> Vec<Vec<f32>> {
    model.state_dict().into_iter().map(|(_, t)| t.to_vec::<f32>().unwrap()).collect()
}

#[test]
fn events_come_in_order() {
    let device = Device::cpu().unwrap();
    let model = model(2, &device);
    let told = Mutex::new(Vec::new());
    let listen = |event: &Event<'_>| {
        told.lock().unwrap().push(match event {
            Event::Started { epochs, steps, samples } => format!("start {epochs} {steps} {samples}"),
            Event::EpochStarted { epoch } => format!("epoch {epoch}"),
            Event::StepEnded { step, samples, .. } => format!("{step}:{samples}"),
            Event::EpochEnded(e) => format!("done {}", e.epoch),
            Event::Ended { epochs, cancelled } => format!("end {epochs} {cancelled}"),
            _ => "gradients".to_string(),
        });
        Ok(Flow::Continue)
    };
    let options = TrainOptions { epochs: 2, ..options() };
    Trainer::new(&model, sgd(&model, 0.1), options).unwrap().callback(listen).fit(&points(), None, &device).unwrap();
    let told = told.lock().unwrap().join(", ");
    assert_eq!(told, "start 2 4 50, epoch 0, 0:16, 1:16, 2:16, 3:2, done 0, epoch 1, 4:16, 5:16, 6:16, 7:2, done 1, end 2 false");
}

#[test]
fn a_loop_learns_and_its_validation_score_is_evaluates() {
    let device = Device::cpu().unwrap();
    let model = model(2, &device);
    let options = TrainOptions { epochs: 40, learning_rate: 0.5, schedule: Schedule::Cosine { warmup: 0.1 }, ..options() };
    let report = Trainer::new(&model, sgd(&model, 0.1), options.clone()).unwrap().fit(&points(), Some(&points()), &device).unwrap();
    let last = report.epochs.last().unwrap();
    assert!(last.train.loss < report.epochs[0].train.loss / 2.0, "{report:?}");
    let score = evaluate(&model, &Resident::new(&points(), &device).unwrap(), options.evaluation_batch_size(), "again").unwrap();
    assert_eq!(Some(score), last.validation);
    // In batches of another size, a smaller last one weighs by its samples.
    let small = evaluate(&model, &Resident::new(&points(), &device).unwrap(), 7, "small").unwrap();
    assert_eq!(small.accuracy, score.accuracy);
    assert!((small.loss - score.loss).abs() < 1e-6);
}

#[test]
fn numbers_are_learned_by_their_squared_error() {
    let device = Device::cpu().unwrap();
    let (set, model) = (points(), model(1, &device));
    let targets = set.features().chunks(2).map(|p| 2.0 * p[0] - p[1]).collect();
    let set = Dataset::new(set.features().to_vec(), &[2], Targets::Values(targets)).unwrap();
    let report = fit(&model, &set, &device, &TrainOptions { epochs: 100, learning_rate: 0.02, ..options() }).unwrap();
    let last = report.epochs.last().unwrap();
    assert!(last.train.loss < 0.02 && last.train.accuracy.is_none(), "{last:?}");
}

#[test]
fn a_run_ends_where_it_is_told_to() {
    let device = Device::cpu().unwrap();
    let run = |stop_at: usize, cancel_at: usize| -> Report {
        let model = model(2, &device);
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = cancel.clone();
        let watch = move |event: &Event<'_>| {
            let Event::StepEnded { step, .. } = event else { return Ok(Flow::Continue) };
            flag.store(*step >= cancel_at, Relaxed);
            Ok(if *step >= stop_at { Flow::Stop } else { Flow::Continue })
        };
        let options = TrainOptions { cancel: Some(cancel), ..options() };
        Trainer::new(&model, sgd(&model, 0.1), options).unwrap().callback(watch).fit(&points(), None, &device).unwrap()
    };
    let ended = |r: &Report| (r.epochs.len(), r.cancelled);
    assert_eq!(ended(&run(99, 99)), (3, false));
    assert_eq!(ended(&run(5, 99)), (1, false));
    assert_eq!(ended(&run(99, 5)), (1, true));
    assert_eq!(ended(&run(99, 0)), (0, true));
}

#[test]
fn gradients_can_be_changed_before_the_update() {
    for device in [Device::cpu().unwrap(), Device::open("gpu").unwrap().0] {
        let trained = |factor: Option<f64>, lr: f64| {
            let model = model(2, &device);
            let mut trainer = Trainer::new(&model, sgd(&model, lr), TrainOptions { learning_rate: lr, ..options() }).unwrap();
            if let Some(factor) = factor {
                trainer = trainer.callback(gradients(move |params| {
                    params.iter().for_each(|p| p.set_grad(p.grad().map(|g| &g * factor)));
                    Ok(())
                }));
            }
            trainer.fit(&points(), None, &device).unwrap();
            weights(&model)
        };
        let before = weights(&model(2, &device));
        assert_eq!(trained(Some(0.0), 0.1), before);
        // Half the gradient is half the rate; powers of two are exact.
        assert_eq!(trained(Some(0.5), 0.25), trained(None, 0.125));
        assert_eq!(trained(Some(1.0), 0.1), trained(None, 0.1));
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let device = Device::cpu().unwrap();
    let model = model(2, &device);
    let message = |options: TrainOptions, set: &Dataset| {
        let trainer = Trainer::new(&model, sgd(&model, 0.1), options);
        trainer.and_then(|mut t| t.fit(set, None, &device)).unwrap_err().message().lines().next().unwrap().to_string()
    };
    assert_eq!(message(TrainOptions { epochs: 0, ..options() }, &points()), "train: 0 epochs of batches of 16: both must be at least 1");
    let shifted = TrainOptions { augment: Augment { shift: 1, ..Augment::default() }, ..options() };
    assert_eq!(message(shifted, &points()), "augment: samples [2] are no images [channels, height, width]");
    let unlabelled = Dataset::new(vec![0.0; 4], &[2], Targets::None).unwrap();
    assert_eq!(message(options(), &unlabelled), "train: the data set has no targets to learn");
}
