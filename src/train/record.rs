//! A callback that writes a line of JSON for each epoch.

use super::{Callback, Epoch, Event, Flow, Score};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes `metrics.jsonl`: each line is whole once its epoch is over.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: File,
}

impl Record {
    /// Begin the file anew.
    pub fn create(path: impl Into<PathBuf>) -> Result<Record> {
        let path = path.into();
        let file = File::create(&path).map_err(|e| cannot_write(&path, &e))?;
        Ok(Record { path, file })
    }
}

impl Callback for Record {
    fn on(&mut self, event: &Event<'_>) -> Result<Flow> {
        if let Event::EpochEnded(epoch) = event {
            writeln!(self.file, "{}", line(epoch)).and_then(|()| self.file.flush()).map_err(|e| cannot_write(&self.path, &e))?;
        }
        Ok(Flow::Continue)
    }
}

fn cannot_write(path: &Path, e: &std::io::Error) -> Error {
    Error::io(format!("cannot write {}: {e}", path.display()))
}

impl Score {
    /// `{"accuracy": ..., "loss": ...}`; no accuracy where there is none.
    pub fn to_json(&self) -> Value {
        match self.accuracy {
            Some(accuracy) => json!({ "accuracy": accuracy, "loss": self.loss }),
            None => json!({ "loss": self.loss }),
        }
    }
}

fn line(epoch: &Epoch) -> Value {
    let mut line = json!({
        "epoch": epoch.epoch + 1,
        "learning_rate": epoch.learning_rate,
        "seconds": epoch.elapsed.as_secs_f64(),
        "train": epoch.train.to_json(),
    });
    if let Some(scale) = epoch.loss_scale {
        line["loss_scale"] = scale.into();
        line["skipped_steps"] = epoch.skipped.into();
    }
    if let Some(validation) = &epoch.validation {
        line["validation"] = validation.to_json();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_epoch_is_a_line_of_json() {
        let score = |loss| Score { loss, accuracy: Some(0.5) };
        let elapsed = Duration::from_millis(1500);
        let mut epoch = Epoch { epoch: 0, train: score(2.0), validation: Some(score(1.0)), learning_rate: 0.1, loss_scale: None, skipped: 0, elapsed };
        let text = line(&epoch).to_string();
        assert_eq!(text, r#"{"epoch":1,"learning_rate":0.1,"seconds":1.5,"train":{"accuracy":0.5,"loss":2.0},"validation":{"accuracy":0.5,"loss":1.0}}"#);
        (epoch.loss_scale, epoch.skipped) = (Some(1024.0), 3);
        assert!(line(&epoch).to_string().contains(r#""loss_scale":1024.0,"seconds":1.5,"skipped_steps":3,"#));
    }
}
