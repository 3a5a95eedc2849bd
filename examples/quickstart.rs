//! Training in about fifteen lines: a small network learns the handwritten digits of digits.csv.
//!
//! Run: `cargo run --release --example quickstart`
//! Prints: the device, the loss of the last epoch, and the accuracy on digits that were not learned from.

use std::sync::Arc;
use wgrad::data::{Dataset, Split, Table, Task};
use wgrad::nn::{Linear, ReLU, Sequential};
use wgrad::train::{Resident, TrainOptions, evaluate, fit};
use wgrad::{Device, Generator, rng::philox};

fn main() -> anyhow::Result<()> {
    let (device, why) = Device::best()?;
    println!("{why}");
    let table = Table::read_csv(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits.csv"))?;
    let digits = Dataset::from_table(&table, None, Some(("digit", Task::Classes(Some(10)))))?.scale(1.0 / 16.0);
    let split = Split::random(digits.len(), 0.2, 0.0, 0, philox)?;

    let generator = Arc::new(Generator::new(0));
    let model = Sequential::new().then(Linear::new(64, 128, &generator, &device)?).then(ReLU).then(Linear::new(128, 10, &generator, &device)?);
    let report = fit(&model, &digits.select(&split.train), &device, &TrainOptions { epochs: 15, learning_rate: 3e-3, ..TrainOptions::default() })?;

    let score = evaluate(&model, &Resident::new(&digits.select(&split.test), &device)?, 256, "test")?;
    let accuracy = score.accuracy.unwrap_or(0.0);
    println!("loss {:.4}, accuracy {accuracy:.4} on {} digits never seen", report.epochs.last().map_or(f64::NAN, |e| e.train.loss), split.test.len());
    anyhow::ensure!(accuracy > 0.95, "the accuracy {accuracy} is lower than it should be");
    Ok(())
}
