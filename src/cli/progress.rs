//! What a training run shows on standard error: a bar where that is a terminal, and a line for each epoch.

use crate::error::Result;
use crate::train::{Callback, Epoch, Event, Flow, Score};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Shows progress.
#[derive(Debug, Default)]
pub struct Progress {
    bar: Option<ProgressBar>,
    epochs: usize,
    samples: u64,
}

impl Callback for Progress {
    fn on(&mut self, event: &Event<'_>) -> Result<Flow> {
        match event {
            Event::Started { epochs, samples, .. } => {
                self.epochs = *epochs;
                if std::io::stderr().is_terminal() {
                    let bar = ProgressBar::with_draw_target(Some((epochs * samples) as u64), ProgressDrawTarget::stderr());
                    // A template that does not parse is a fault of this file; the bar then has its plain style.
                    if let Ok(style) = ProgressStyle::with_template("{msg:12} {bar:32} {percent:>3} %  {per_sec} samples  {eta} left") {
                        bar.set_style(style);
                    }
                    self.bar = Some(bar);
                }
            }
            Event::EpochStarted { epoch } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("epoch {}/{}", epoch + 1, self.epochs));
                }
            }
            Event::StepEnded { samples, .. } => {
                self.samples += *samples as u64;
                if let Some(bar) = &self.bar {
                    bar.set_position(self.samples);
                }
            }
            Event::EpochEnded(epoch) => {
                let line = line(epoch, self.epochs);
                match &self.bar {
                    Some(bar) => bar.suspend(|| say!("{line}")),
                    None => say!("{line}"),
                }
            }
            Event::Ended { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::GradientsReady { .. } => {}
        }
        Ok(Flow::Continue)
    }
}

/// `loss 0.1234  accuracy 0.9876`
pub fn score(score: &Score) -> String {
    let accuracy = score.accuracy.map_or(String::new(), |a| format!("  accuracy {a:.4}"));
    format!("loss {:.4}{accuracy}", score.loss)
}

fn line(epoch: &Epoch, epochs: usize) -> String {
    let width = epochs.to_string().len();
    let validation = epoch.validation.as_ref().map_or(String::new(), |v| format!("   validation {}", score(v)));
    let skipped = match (epoch.skipped, epoch.loss_scale) {
        (1.., Some(scale)) => format!("   {} steps overflowed, loss scale {scale}", epoch.skipped),
        _ => String::new(),
    };
    format!("epoch {:>width$}/{epochs}   train {}{validation}   {:.1} s{skipped}", epoch.epoch + 1, score(&epoch.train), epoch.elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_epoch_is_one_line() {
        let s = |loss, accuracy| Score { loss, accuracy };
        let elapsed = Duration::from_millis(1540);
        let (train, validation) = (s(0.5, Some(0.75)), Some(s(0.25, Some(1.0))));
        let mut epoch = Epoch { epoch: 2, train, validation, learning_rate: 0.1, loss_scale: None, skipped: 0, elapsed };
        assert_eq!(line(&epoch, 40), "epoch  3/40   train loss 0.5000  accuracy 0.7500   validation loss 0.2500  accuracy 1.0000   1.5 s");
        epoch.validation = None;
        epoch.train.accuracy = None;
        assert_eq!(line(&epoch, 9), "epoch 3/9   train loss 0.5000   1.5 s");
        (epoch.loss_scale, epoch.skipped) = (Some(512.0), 2);
        assert_eq!(line(&epoch, 9), "epoch 3/9   train loss 0.5000   1.5 s   2 steps overflowed, loss scale 512");
    }
}
