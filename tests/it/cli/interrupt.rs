//! Ctrl-C: the last epoch's model is kept, or it is said that none was.
#![cfg(unix)]

use super::{Place, points};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// Train, send the signal of Ctrl-C after the first line that begins so, and give the exit code and all that was said.
fn interrupt(place: &Place, set: &str, after: &str) -> (Option<i32>, String) {
    let mut child = place.command(&["train", "points.toml", "--set", set]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before it said {after:?}: {said}");
        said += &line;
        if line.starts_with(after) {
            break;
        }
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    lines.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn the_last_epochs_model_is_kept() {
    let place = Place::new();
    let (code, said) = interrupt(&place, "train.epochs=1000000", "epoch ");
    assert_eq!(code, Some(130), "{said}");
    let epochs = place.read("runs/points/metrics.jsonl").lines().count();
    assert!(epochs > 0 && said.contains(&format!("the model of epoch {epochs} is kept in runs/points/model.safetensors")), "{epochs}: {said}");
    // It is whole: it can be evaluated.
    place.done(&["evaluate", "points"]);
}

#[test]
fn it_is_said_that_nothing_was_kept() {
    let place = Place::new();
    // An epoch that takes long.
    place.write("points.csv", &points(150_000));
    let (code, said) = interrupt(&place, "train.batch_size=1", "run: ");
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("no model was kept"), "{said}");
    assert!(!place.path("runs/points/model.safetensors").exists());
}
