//! `wgrad bench`: what it prints, what it refuses.

use super::{Place, Ran};
use serde_json::Value;

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
fn a_workload_that_is_not_there_is_refused_with_the_list() {
    let place = Place::new();
    place.fails(&["bench", "--jsonl", "matmul_64", "lenet_trian"], 1, &["there is no workload matmul_64", "elementwise, mlp_train", "startup_lenet"]);
    place.fails(&["bench", "--jsonl", "lenet_trian"], 1, &["did you mean lenet_train?"]);
    place.fails(&["bench", "--jsonl", "lstm_train"], 1, &["lstm_train: wgrad has no recurrent layers yet"]);
}
