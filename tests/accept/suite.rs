//! Lines that the test suite measures: each runs the tests by name, and a test that did not run is a line that does not hold.

use super::{Line, Outcome, State};
use anyhow::{Context, ensure};
use std::process::Command;
use std::time::Instant;

macro_rules! probes {
    ($($letter:literal $limit:literal => $run:ident: $($test:literal),+;)*) => {
        $(fn $run(_: &mut State) -> anyhow::Result<Outcome> { named(&[$(concat!("promises::", $test)),+]) })*
        const PROBES: &[Line] = &[$(Line { name: concat!("probe (", $letter, ")"), limit: $limit, quick: false, run: $run }),*];
    };
}

// A probe is one test or several; each runs on the CPU and on the adapter.
probes! {
    "a" "eight vmapped MLPs: one plan, dispatches of one, each curve its own" => probe_a: "models::eight_models_train_as_one_program_each_as_alone";
    "b" "10,000 running sums: same nodes, bytes, dispatches; two plans" => probe_b:
        "plans::a_running_sum_in_training_costs_the_same_at_step_100_and_10_000",
        "plans::a_running_sum_in_evaluation_costs_the_same_at_batch_100_and_10_000";
    "c" "devices and models in two threads give what each gives alone" => probe_c:
        "threads::a_cpu_and_a_gpu_in_two_threads_give_what_each_gives_alone",
        "threads::two_threads_training_two_models_on_one_device_give_what_each_gives_alone";
    "d" "a last batch: one more plan, no new pipeline; one sample: counted, bounded" => probe_d:
        "plans::a_last_batch_of_another_size_costs_one_plan_and_no_pipeline",
        "plans::a_last_batch_of_images_costs_one_plan_and_no_pipeline";
    "e" "values taken before a step stay" => probe_e: "history::a_copy_and_a_pending_reader_see_the_parameter_before_the_step";
    "f" "changing floats and positions: at most two plans each" => probe_f:
        "plans::a_rate_that_changes_every_step_is_data",
        "plans::a_factor_that_changes_every_pass_is_data",
        "plans::a_thousand_windows_of_one_tensor_take_two_plans";
    "g" "a loss read before backward changes nothing" => probe_g: "history::a_loss_read_before_backward_changes_no_gradient_and_adds_no_dispatch";
    "h" "100,000 additions: no overflow, at most 3 pipelines, 20 s" => probe_h: "plans::a_chain_of_100_000_additions_runs_and_is_dropped";
    "i" "checkpointing: same bits, 40 % less at the peak, more dispatches" => probe_i:
        "history::checkpointing_gives_the_same_bits_for_less_memory_and_more_work";
    "j" "failures are errors that name the op, and the process goes on" => probe_j:
        "custom::a_kernel_that_does_not_validate_is_refused_with_file_line_and_caret",
        "custom::a_kernel_whose_pipeline_fails_is_an_error_of_the_read_and_yields_nothing",
        "failure::a_destroyed_device_is_an_error_of_every_read",
        "failure::a_label_out_of_range_is_an_error_that_names_the_operation_and_the_limit",
        "failure::a_label_out_of_range_in_training_is_the_next_reads_error",
        "failure::out_of_memory_at_the_cap_is_an_error_and_the_device_goes_on",
        "failure::out_of_memory_in_the_system_is_an_error_and_the_process_goes_on";
    "k" "100 dropout masks; uniform bits equal on CPU and GPU" => probe_k:
        "random::a_hundred_draws_are_a_hundred_masks_and_reads_change_none",
        "random::uniforms_have_the_same_bits_everywhere_and_normals_agree";
    "l" "1 and 2 threads: same bits" => probe_l: "threads::one_thread_and_two_give_the_same_bits";
    "m" "fused chains and epilogues are one dispatch; three activations; no im2col" => probe_m:
        "fusion::a_scaled_and_shifted_relu_times_its_input_is_one_dispatch",
        "fusion::a_hundred_random_chains_are_one_dispatch_each",
        "fusion::matmul_and_any_two_rows_are_one_dispatch",
        "fusion::linear_and_any_two_rows_are_one_dispatch",
        "fusion::conv2d_and_any_two_rows_are_one_dispatch",
        "fusion::sum_and_any_two_rows_are_one_dispatch",
        "memory::a_forward_pass_without_gradients_holds_three_activations",
        "memory::a_convolution_and_its_gradients_reserve_nothing_of_the_size_of_all_windows";
    "n" "split submits: same bits; clipping by hand equals clipping in the graph" => probe_n:
        "segments::a_long_step_on_hardware_is_several_submits_with_the_same_bits",
        "segments::clipping_by_hand_equals_clipping_in_the_graph",
        "segments::clipping_by_hand_in_gradients_ready_equals_clipping_in_the_graph";
}

const REST: &[Line] = &[
    Line {
        name: "random graphs, 2000",
        limit: "fused, unfused and definition agree; features each at least 10 %; every op; mean 15 nodes",
        quick: false,
        run: fuzz,
    },
    Line { name: "planted planner faults", limit: "each of five found within 200 graphs", quick: false, run: faults },
    Line { name: "the suite under WGRAD_POISON", limit: "passes", quick: false, run: poison },
    Line { name: "golden, cpu and llvmpipe", limit: "every case of the list passes", quick: true, run: golden },
    Line { name: "op table", limit: "CPU, llvmpipe and a floor device, under 6 minutes", quick: false, run: op_table },
    Line { name: "bad input", limit: "each case: its exit code, and what it names", quick: true, run: bad_input },
];

const COUNT: usize = PROBES.len() + REST.len();
static ALL: [&Line; COUNT] = {
    let mut all = [&PROBES[0]; COUNT];
    let mut i = 0;
    while i < COUNT {
        all[i] = if i < PROBES.len() { &PROBES[i] } else { &REST[i - PROBES.len()] };
        i += 1;
    }
    all
};
pub static LINES: &[&Line] = &ALL;

/// Tests that ran.
struct Ran {
    ok: bool,
    passed: usize,
    failed: usize,
    text: String,
    seconds: f64,
}

/// Run the integration tests whose names contain one of `filters`; all, where there is none. At least one must run.
fn run(filters: &[&str], options: &[&str], envs: &[(&str, &str)]) -> anyhow::Result<Ran> {
    let began = Instant::now();
    let out = Command::new(env!("CARGO"))
        .args(["test", "--release", "--test", "it", "--"])
        .args(filters)
        .arg("--nocapture")
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .envs(envs.iter().copied())
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().rev().find(|l| l.starts_with("test result:")).with_context(|| {
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        format!("the tests gave no result: {}", errors.lines().last().unwrap_or_default())
    })?;
    let number = |word: &str| -> anyhow::Result<usize> {
        let before = line.split(word).next().unwrap_or_default().trim_end();
        Ok(before.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    let (passed, failed) = (number(" passed")?, number(" failed")?);
    ensure!(passed + failed > 0, "no test is named {}", filters.join(" or "));
    Ok(Ran { ok: out.status.success(), passed, failed, text, seconds: began.elapsed().as_secs_f64() })
}

impl Ran {
    /// The printed lines that start with `start`, without it.
    fn lines(&self, start: &str) -> Vec<&str> {
        self.text.lines().filter_map(|l| l.strip_prefix(start)).collect()
    }

    fn outcome(&self, and: bool, got: Vec<&str>) -> Outcome {
        let counts = format!("{} tests passed, {} failed", self.passed, self.failed);
        let all = std::iter::once(counts.as_str()).chain(got).collect::<Vec<_>>();
        Outcome::of(self.ok && self.failed == 0 && and, all.join("; "))
    }
}

/// Tests by their whole names: each must be there and pass.
fn named(names: &[&str]) -> anyhow::Result<Outcome> {
    let ran = run(names, &["--exact"], &[])?;
    ensure!(ran.passed + ran.failed == names.len(), "{} of {} tests ran", ran.passed + ran.failed, names.len());
    Ok(ran.outcome(true, ran.lines("measured ")))
}

fn fuzz(_: &mut State) -> anyhow::Result<Outcome> {
    let ran = run(&["fuzz::random_graphs_agree"], &["--exact"], &[("WGRAD_FUZZ_N", "2000"), ("WGRAD_FUZZ_SEED", "1")])?;
    Ok(ran.outcome(true, ran.lines("graphs ")))
}

fn faults(_: &mut State) -> anyhow::Result<Outcome> {
    let ran = run(&["fuzz::planted_faults_are_found"], &["--exact"], &[])?;
    let found = ran.lines("planted ");
    Ok(ran.outcome(found.len() >= 5, found))
}

fn poison(_: &mut State) -> anyhow::Result<Outcome> {
    let ran = run(&[], &[], &[("WGRAD_POISON", "1")])?;
    Ok(ran.outcome(true, Vec::new()))
}

fn golden(_: &mut State) -> anyhow::Result<Outcome> {
    let ran = run(&["golden::"], &[], &[])?;
    let lines = ran.lines("golden ");
    ensure!(lines.len() >= 2, "golden cases ran on {} devices", lines.len());
    Ok(ran.outcome(lines.iter().all(|l| l.contains("failed=0 ")), lines))
}

fn op_table(_: &mut State) -> anyhow::Result<Outcome> {
    let ran = run(&["ops::", "dry::", "edges::"], &[], &[])?;
    let seconds = format!("{:.0} s", ran.seconds);
    Ok(ran.outcome(ran.seconds < 360.0, vec![&seconds]))
}

fn bad_input(_: &mut State) -> anyhow::Result<Outcome> {
    Ok(run(&["cli::"], &[], &[])?.outcome(true, Vec::new()))
}
