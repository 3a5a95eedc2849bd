//! Training, evaluating and predicting: the files of a run, and what is written to standard output.

use super::{Place, points};
use serde_json::Value;
use std::process::Stdio;

fn result(place: &Place, run: &str) -> Value {
    serde_json::from_str(&place.read(&format!("runs/{run}/result.json"))).unwrap()
}

#[test]
fn a_run_leaves_config_metrics_model_and_result() {
    let place = Place::new();
    let ran = place.done(&["train", "points.toml"]);
    assert!(ran.err.starts_with("device: cpu"), "the first line says which device: {}", ran.err);
    assert_eq!(ran.err.lines().filter(|l| l.starts_with("epoch ")).count(), 6);
    assert_eq!(ran.out.lines().count(), 1, "results only: {}", ran.out);
    assert!(ran.out.starts_with("test loss "), "{}", ran.out);
    let result = result(&place, "points");
    let accuracy = result["test"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.9, "{result}");
    assert!(ran.out.contains(&format!("accuracy {accuracy:.4}")));
    assert_eq!(result["seed"], 1);
    assert!(result["seconds"].as_f64().unwrap() > 0.0 && result["device"].as_str().unwrap().starts_with("cpu"));
    let lines: Vec<Value> = place.read("runs/points/metrics.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[5]["train"]["loss"].as_f64().unwrap() < lines[0]["train"]["loss"].as_f64().unwrap());
    assert!(lines[5]["validation"]["accuracy"].as_f64().unwrap() > 0.9);
}

#[test]
fn a_run_goes_on_where_nobody_reads_its_messages() {
    let place = Place::new();
    let mut child = place.command(&["train", "points.toml"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stdout.starts_with(b"test loss "));
    // Nor does it fail where nobody reads its result: that lies in the run's folder.
    let mut child = place.command(&["train", "points.toml"]).stderr(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(result(&place, "points")["test"], result(&place, "points-2")["test"]);
}

#[test]
fn what_is_promised_of_a_training_loop_is_counted_in_every_run() {
    let place = Place::new();
    for (device, run) in [("cpu", "points"), ("gpu", "points-2")] {
        place.done(&["train", "points.toml", "--device", device]);
        let counters = &result(&place, run)["counters"];
        let plans: Vec<&str> = counters["plans"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        assert!(plans.len() <= 6, "{device}: {plans:?}");
        for (name, n) in counters["after_first_epoch"].as_object().unwrap() {
            assert_eq!(n, 0, "{device}: {name} after the first epoch");
        }
        assert_eq!(counters["most_in_a_step"]["submits"], 1, "{device}");
        assert_eq!(counters["most_in_a_step"]["param_writes"], 1, "{device}");
        assert_eq!(counters["host_fallbacks"], 0, "{device}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    let place = Place::new();
    for seed in ["1", "1", "2"] {
        place.done(&["train", "points.toml", "--set", &format!("train.seed={seed}")]);
    }
    let model = |run: &str| std::fs::read(place.path(&format!("runs/{run}/model.safetensors"))).unwrap();
    assert_eq!(model("points"), model("points-2"));
    assert_ne!(model("points"), model("points-3"));
}

#[test]
fn the_resolved_config_runs_again_from_the_run_folder() {
    let place = Place::new();
    place.done(&["train", "points.toml", "--set", "train.epochs=2", "--set", "name=first"]);
    place.done(&["train", "runs/first/config.toml", "--set", "name=second"]);
    let config = |run: &str| place.read(&format!("runs/{run}/config.toml"));
    assert_eq!(config("first").replace("first", "second"), config("second"));
    assert!(config("first").contains("path = \"../../points.csv\""), "{}", config("first"));
    assert_eq!(result(&place, "first")["test"], result(&place, "second")["test"]);
}

#[test]
fn evaluate_finds_the_runs_own_score() {
    let place = Place::new();
    let trained = place.done(&["train", "points.toml"]);
    assert_eq!(place.done(&["evaluate", "points"]).out, trained.out);
    let json: Value = serde_json::from_str(&place.done(&["evaluate", "runs/points", "--json"]).out).unwrap();
    assert_eq!(json, result(&place, "points")["test"]);
    assert_ne!(place.done(&["evaluate", "points", "--part", "train"]).out, trained.out);
    assert_eq!(place.run(&["evaluate", "points", "--min", "0.5"]).code, Some(0));
    let worse = place.run(&["evaluate", "points", "--min", "1.01"]);
    assert_eq!(worse.code, Some(3), "{}", worse.err);
    assert!(worse.err.contains("is below 1.01"), "{}", worse.err);
}

#[test]
fn predict_writes_a_row_a_sample_with_or_without_labels() {
    let place = Place::new();
    place.done(&["train", "points.toml"]);
    let with = place.done(&["predict", "points", "--input", "points.csv"]).out;
    let without: String =
        points(150).lines().map(|l| l.split(',').enumerate().filter(|(n, _)| *n != 1).map(|(_, c)| c).collect::<Vec<_>>().join(",") + "\n").collect();
    place.write("new.csv", &without);
    assert_eq!(place.done(&["predict", "points", "--input", "new.csv"]).out, with);
    let lines: Vec<&str> = with.lines().collect();
    assert_eq!(lines[0], "row,class,p_0,p_1,p_2");
    assert_eq!(lines.len(), 151);
    let mut right = 0;
    for (n, line) in lines[1..].iter().enumerate() {
        let cells: Vec<f64> = line.split(',').map(|c| c.parse().unwrap()).collect();
        assert_eq!(cells[0], n as f64);
        assert!((cells[2..].iter().sum::<f64>() - 1.0).abs() < 1e-5, "{line}");
        right += usize::from(cells[1] == (n % 3) as f64);
    }
    assert!(right > 135, "{right} of 150");
}

#[test]
fn a_softmax_at_the_end_changes_nothing() {
    let place = Place::new();
    let plain = place.done(&["train", "points.toml"]).out;
    place.config_with("out_features = 3 },", "out_features = 3 },\n    { kind = \"softmax\" },");
    assert_eq!(place.done(&["train", "points.toml"]).out, plain);
}

#[test]
fn help_has_examples_and_devices_and_ops_are_listed() {
    let place = Place::new();
    let out = |arguments: &[&str]| place.done(arguments).out;
    for command in ["train", "evaluate", "predict"] {
        assert!(out(&[command, "--help"]).contains("Examples:"), "{command}");
    }
    assert!(out(&["--help"]).contains("Exit codes: 0 done"));
    assert!(out(&["devices"]).starts_with("cpu "));
    assert!(out(&["ops"]).lines().any(|l| l.starts_with("matmul ")));
}
