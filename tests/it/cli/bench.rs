//! `wgrad bench`: what it prints, what it refuses.

use super::{Place, Ran};
use serde_json::{Value, json};

/// Run workloads with blocks that take no time.
fn bench(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = place.command(&[&["bench"], arguments].concat());
    command.env("BENCH_BLOCK_MS", "1").env("BENCH_BLOCKS", "3").output().unwrap().into()
}

fn lines(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

#[track_caller]
fn has(line: &Value, numbers: &[&str]) {
    for name in numbers.iter().chain(&["median_ms", "min_ms"]) {
        assert!(line[name].as_f64().is_some_and(|v| v > 0.0), "{name} in {line}");
    }
    assert!(line["peer"].as_str().is_some_and(|p| p.starts_with("wgrad-")), "{line}");
    assert!(line["workload"].is_string());
}

#[test]
fn a_line_for_each_workload_has_the_fields_of_the_peers() {
    let place = Place::new();
    let ran = bench(&place, &["--jsonl", "matmul_64x784x128", "softmax", "conv_3_32_32_bwd", "mlp_train"]);
    let lines = lines(&ran);
    assert_eq!(lines.len(), 4);
    let timed = ["sync_ms", "iters", "warmup_s"];
    lines.iter().for_each(|l| has(l, &timed));
    for (line, rate) in lines.iter().zip(["gflops", "gb_s", "gflops", "steps_per_s"]) {
        has(line, &[rate]);
    }
    has(&lines[3], &["samples_per_s", "loss_first", "loss_last", "steps"]);
    if cfg!(target_os = "linux") {
        lines.iter().for_each(|l| has(l, &["peak_rss_mb"]));
    }
}

#[test]
fn a_start_counts_from_the_time_it_is_told() {
    let place = Place::new();
    let mut command = place.command(&["bench", "--jsonl", "startup_mlp"]);
    let t0 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() - 5_000_000_000;
    let ran: Ran = command.env("BENCH_T0_NS", t0.to_string()).output().unwrap().into();
    let line = &lines(&ran)[0];
    has(line, &["in_main_ms", "second_step_ms", "loss"]);
    assert!(line["median_ms"].as_f64().unwrap() >= 5000.0, "{line}");
    assert!(line["in_main_ms"].as_f64().unwrap() < 5000.0, "{line}");
}

#[test]
fn the_command_keeps_compiled_pipelines_where_it_is_told() {
    let place = Place::new();
    let Ok(adapter) = crate::common::gpu() else {
        assert!(crate::common::may_lack_gpu(), "the tests need an adapter");
        return;
    };
    let wgrad::Device::Gpu(gpu) = &adapter else { panic!("{adapter:?} is no GPU") };
    let gives = gpu.wgpu_device().features().contains(wgrad::device::gpu::wgpu::Features::PIPELINE_CACHE);
    let kept = |folder: &str| std::fs::read_dir(place.path(folder)).map_or(0, |files| files.count());
    let start = |set: &[(&str, &std::path::Path)]| {
        let mut command = place.command(&["bench", "--jsonl", "--device", "gpu", "startup_mlp"]);
        command.env_remove("WGRAD_CACHE").env("XDG_CACHE_HOME", place.path("user")).envs(set.iter().copied());
        lines(&command.output().unwrap().into());
    };
    start(&[("WGRAD_CACHE", "off".as_ref())]);
    assert!(!place.path("user").join("wgrad").exists());
    start(&[("WGRAD_CACHE", &place.path("told"))]);
    assert_eq!((kept("told"), kept("user/wgrad")), (usize::from(gives), 0));
    if cfg!(target_os = "linux") {
        start(&[]);
        assert_eq!(kept("user/wgrad"), usize::from(gives));
    }
}

#[test]
fn a_workload_that_is_not_there_is_refused_with_the_list() {
    let place = Place::new();
    place.fails(&["bench", "--jsonl", "matmul_64", "lenet_trian"], 1, &["there is no workload matmul_64", "elementwise, mlp_train", "startup_lenet"]);
    place.fails(&["bench", "--jsonl", "lenet_trian"], 1, &["did you mean lenet_train?"]);
    place.fails(&["bench", "--jsonl", "lstm_train"], 1, &["lstm_train: wgrad has no recurrent layers yet"]);
    place.fails(&["bench", "--jsonl"], 1, &["--jsonl takes the names of workloads"]);
}

/// A short run over probes, its results in a file.
fn measured(place: &Place, file: &str, arguments: &[&str]) -> Ran {
    place.run(&[&["bench", "--json", file, "--sample", "0.02", "--rounds", "2"], arguments].concat())
}

fn rows(place: &Place, file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(&place.read(file)).unwrap();
    file["devices"][0]["rows"].as_array().unwrap().clone()
}

#[test]
fn a_result_says_what_was_measured_on_what() {
    let place = Place::new();
    let ran = measured(&place, "a.json", &["peak/copy", "peak/fma", "matmul/64", "cost/replay", "--svg", "a.svg"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let file: Value = serde_json::from_str(&place.read("a.json")).unwrap();
    assert_eq!(file["schema"], "wgrad-bench/1");
    for text in ["version", "os", "cpu", "kernel_hash"] {
        assert!(file[text].as_str().is_some_and(|t| !t.is_empty()), "{text}: {file}");
    }
    assert_eq!(file["devices"][0]["device"], "cpu");
    let rows = rows(&place, "a.json");
    // In the order of the table.
    assert_eq!(rows.iter().map(|r| r["name"].as_str().unwrap()).collect::<Vec<_>>(), ["peak/fma", "peak/copy", "cost/replay", "matmul/64"]);
    assert!(rows[3]["gflops"].as_f64().unwrap() > 0.0 && rows[3]["share"].as_f64().unwrap() > 0.0);
    // Two processes that do not agree are asked again.
    assert!((2..=4).contains(&rows[3]["rounds"].as_array().unwrap().len()), "{}", rows[3]);
    assert!(rows[2]["median_ms"].is_null() && rows[2]["failed"].as_str().unwrap().starts_with("not run: "), "{}", rows[2]);
    assert!(ran.out.contains("GFLOP/s") && ran.out.contains("cost/replay  not run: "), "{}", ran.out);
    assert!(place.read("a.svg").contains("matmul/64: "));
}

#[test]
fn a_probe_that_hangs_aborts_or_fails_gives_its_reason_and_no_number() {
    let place = Place::new();
    for (plant, says) in [("hang:cost/step", "no answer within 1 s"), ("abort:cost/step", ""), ("fail:cost/step", "planted")] {
        let mut command =
            place.command(&["bench", "cost/step", "cost/record", "--json", "a.json", "--sample", "0.02", "--rounds", "1", "--limit", "1", "--strict"]);
        let ran: Ran = command.env("WGRAD_PLANT", plant).output().unwrap().into();
        assert_eq!(ran.code, Some(3), "{plant}: {}", ran.err);
        let rows = rows(&place, "a.json");
        let why = rows[0]["failed"].as_str().unwrap_or_else(|| panic!("{plant}: {}", rows[0]));
        assert!(why.contains(says) && !why.is_empty(), "{plant}: {why}");
        assert!(rows[0]["median_ms"].is_null() && ran.out.contains(why), "{plant}: {}", ran.out);
        // The others go on.
        assert!(rows[1]["median_ms"].as_f64().unwrap() > 0.0, "{}", rows[1]);
    }
}

#[test]
fn a_time_that_is_over_leaves_out_the_rest_and_says_so() {
    let place = Place::new();
    let ran = measured(&place, "a.json", &["cost/read", "matmul/64", "--seconds", "0.000001"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(rows(&place, "a.json").iter().all(|r| r["failed"].as_str().unwrap().starts_with("not run: the 0 s")), "{}", ran.out);
}

#[test]
fn comparing_sees_ten_percent_and_not_itself() {
    let place = Place::new();
    // A result by hand: what a machine measures while tests run is not steady.
    let row = |name: &str, factor: f64| {
        let rounds: Vec<Vec<f64>> = [0.99, 1.0, 1.01].iter().map(|m| vec![m * factor; 5]).collect();
        json!({"name": name, "about": "", "clock": "wall", "flops": 1e6, "bytes": 0.0, "rounds": rounds, "bits": "", "host_ms": null, "launches": 1.0, "median_ms": factor,
               "spread": 0.0, "gflops": 1.0, "gb_s": null, "share": null, "unstable": false, "failed": null})
    };
    let file = |factor: f64| {
        let rows = vec![row("matmul/64", 1.0), row("matmul/128", factor), row("cost/step", 1.0)];
        json!({"schema": "wgrad-bench/1", "version": "", "commit": null, "os": "", "cpu": "", "kernel_hash": "", "seconds": 1.0, "devices": [
            {"device": "cpu", "description": "cpu", "adapter": null, "backend": null, "driver": null, "kind": null, "features": [], "working_set": "", "rows": rows}]})
        .to_string()
    };
    place.write("a.json", &file(1.0));
    place.write("b.json", &file(1.1));
    let same = place.done(&["bench", "--compare", "a.json", "a.json"]);
    assert_eq!(same.out.matches("no difference").count(), 3 + 1, "{}", same.out);
    assert!(same.out.contains("no difference in 3, 0 faster, 0 slower"));
    let slower = place.done(&["bench", "--compare", "a.json", "b.json"]);
    assert!(slower.out.contains("no difference in 2, 0 faster, 1 slower"), "{}", slower.out);
    let line = slower.out.lines().find(|l| l.starts_with("matmul/128")).unwrap();
    assert!(line.contains("1.100") && line.contains("SLOWER"), "{line}");
    assert_eq!(place.run(&["bench", "--compare", "a.json", "b.json", "--strict"]).code, Some(3));
    place.fails(&["bench", "--compare", "a.json", "points.csv"], 1, &["points.csv: not a result of wgrad bench"]);
    place.fails(&["bench", "--compare", "a.json", "c.json"], 1, &["cannot read c.json"]);
    place.fails(&["bench", "--compare", "a.json"], 2, &["--compare"]);
}

#[test]
fn unknown_probes_are_refused_and_the_list_has_all() {
    let place = Place::new();
    place.fails(&["bench", "matmul/65"], 1, &["there is no probe matmul/65", "did you mean matmul/64?", "the families are: peak, cost, train"]);
    place.fails(&["bench", "--json", "absent/a.json"], 1, &["cannot write absent", "there is no folder absent"]);
    std::fs::create_dir(place.path("results")).unwrap();
    place.fails(&["bench", "--svg", "results"], 1, &["cannot write results"]);
    place.fails(&["bench", "--jsonl", "--json", "a.json", "softmax"], 2, &["--jsonl", "--json"]);
    place.fails(&["bench", "cost/step", "--sample", "60"], 1, &["--sample 60", "give --limit 360 or more"]);
    place.fails(&["bench", "cost/step", "--sample", "inf"], 1, &["--sample: must be seconds", "inf"]);
    let list = place.done(&["bench", "--list"]).out;
    assert!(list.contains("peak/fma") && list.contains("train/resnet") && list.lines().count() > 40);
    assert!(place.done(&["bench", "--list", "--jsonl"]).out.contains("startup_lenet"));
}

#[test]
fn an_adapter_is_measured_by_its_own_clock_through_each_of_its_apis() {
    let place = Place::new();
    if crate::common::may_lack_gpu() && crate::common::gpu().is_err() {
        println!("without an adapter nothing was measured here");
        return;
    }
    let ran = measured(&place, "a.json", &["matmul/64", "peak/fma", "--device", "gpu", "--backends", "all"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let file: Value = serde_json::from_str(&place.read("a.json")).unwrap();
    for device in file["devices"].as_array().unwrap() {
        assert!(device["backend"].is_string() && device["adapter"].is_string() && device["driver"].is_string(), "{device}");
        let has_clock = device["features"].as_array().unwrap().iter().any(|f| f == "timestamps");
        for row in device["rows"].as_array().unwrap() {
            assert!(row["median_ms"].as_f64().is_some_and(|v| v > 0.0), "{row}");
            // A clock that contradicts a watch is not believed, so this may be either where there is one.
            assert!(has_clock || row["clock"] == "wall", "{row}");
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_was_measured() {
    use std::io::{BufRead, BufReader, Read};
    let place = Place::new();
    let mut command = place.command(&["bench", "cost/step", "cost/record", "--json", "a.json", "--sample", "0.02", "--rounds", "1"]);
    let mut child = command.env("WGRAD_PLANT", "hang:cost/step").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("cost/step") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it came to cost/step");
    }
    // It hangs, and nothing else ends it before its limit of a minute.
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    said.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
    assert!(rows(&place, "a.json").iter().all(|r| r["failed"] == "not run: interrupted"), "{out}");
    assert_eq!(out.matches("not run: interrupted").count(), 2, "{out}");
}
