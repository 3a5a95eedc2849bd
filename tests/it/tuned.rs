//! Tuned choices: every option computes what the definition says, files of them, and the tuner that makes them.

use crate::common;
use crate::op_table::{Case, Lay, op_cases};
use crate::ops::{adapter, none, walk};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use wgrad::bench::{self, Outcome, Rules, Told, Tuned};
use wgrad::device::choices::{CHOICES, Choice, Choices, MATMUL_LANES, MATMUL_PARTS};
use wgrad::device::gpu::{Gpu, GpuOptions, tuned_path, write_tuned};
use wgrad::graph::Alternative;
use wgrad::optim::{Sgd, SgdOptions};
use wgrad::train::capture;
use wgrad::{Device, Tensor, nn::Param};

/// The operations whose kernels make a choice, and samples of them by a part of their names: odd sizes, every form of strides, edges and groups.
fn samples(choice: &Choice) -> (&'static [&'static str], &'static [&'static str]) {
    match choice.name {
        "matmul_lanes" | "matmul_tile" | "matmul_parts" => (&["matmul"], &["[65, 130]", "[4, 2500]", "[29, 40]", "[37, 9]", "[70, 8]", "windows"]),
        "conv_tile" | "conv_strip" | "conv_rows" | "weight_strip" | "weight_parts" => {
            (&["conv2d"], &["[2, 3, 5, 7]", "[2, 4, 9, 8]", "[2, 1, 12, 11]", "[2, 1, 3, 44]", "by [35", "two models"])
        }
        "reduce_part" => (&["sum", "amax", "logsumexp"], &[""]),
        "norm_part" => (&["batch_norm"], &[""]),
        "map_groups" => (&[], &[]),
        other => panic!("{other}: name the operations that choose it"),
    }
}

/// Every option of every choice, wherever it fits, on the samples of the operations that make it. Forward and backward.
fn every_option(device: &Device) -> Vec<String> {
    let cases = op_cases();
    let mut found = Vec::new();
    for choice in CHOICES {
        let (ops, names) = samples(choice);
        let own: Vec<&Case> = cases.iter().filter(|c| ops.contains(&c.op) && names.iter().any(|n| c.name.contains(n))).collect();
        assert!(own.len() >= names.len(), "{}: few samples", choice.name);
        for (option, name) in choice.options.iter().enumerate() {
            let mut way = Alternative::new(device, Arc::new(Choices::everywhere(choice, option)));
            let wrong = way.during(|| own.iter().flat_map(|c| walk(std::slice::from_ref(*c), device, |_| vec![Lay::Contiguous])).collect::<Vec<_>>());
            let long = if ops.contains(&"conv2d") || ops.contains(&"batch_norm") { None } else { way.during(|| long_ones(device)) };
            found.extend(wrong.into_iter().chain(long).map(|e| format!("{} {name}: {e}", choice.name)));
        }
    }
    found
}

/// Sums and elementwise kernels that are long enough to be cut, on sizes that nothing divides; and their gradients.
fn long_ones(device: &Device) -> Option<String> {
    let values = |n: usize, seed: usize| (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5).collect::<Vec<f32>>();
    let run = |device: &Device| -> wgrad::Result<Vec<Vec<f64>>> {
        let x = Tensor::new(values(33 * 2052, 1), [33, 2052], device)?.requires_grad()?;
        let w = Tensor::new(values(36 * 2052, 2), [2052, 36], device)?;
        let y = x.try_matmul(&w)?;
        (&y * &y).sum(&[0], false).mean_all().backward()?;
        let grad = x.grad().expect("a gradient");
        let wide = (&grad * 1.5 + 0.25).relu();
        [y.detach(), grad, wide.clone(), wide.sum(&[1], false), wide.sum(&[0], false)].iter().map(|t| Ok(t.to_data()?.to_f64())).collect()
    };
    static WANT: OnceLock<Vec<Vec<f64>>> = OnceLock::new();
    let want = WANT.get_or_init(|| run(&common::definition()).expect("the definition computes"));
    let got = match run(device) {
        Ok(got) => got,
        Err(e) => return Some(e.to_string()),
    };
    got.iter().zip(want).enumerate().find_map(|(n, (g, w))| {
        let bound = (4.0 + 2.0 * 2052f64.sqrt()) * f64::from(f32::EPSILON) * common::scale(w);
        common::compare(g, w, |_| bound).err().map(|e| format!("long sums: result {n}: {e}"))
    })
}

#[test]
fn every_option_is_as_the_definition() {
    let Some(device) = adapter(common::gpu(), CHOICES.len()) else { return };
    none("options", &every_option(&device));
}

#[test]
fn every_option_for_hardware_is_as_the_definition() {
    let Some(device) = adapter(common::hardware(), CHOICES.len()) else { return };
    none("options", &every_option(&device));
}

#[test]
fn every_option_on_a_floor_device_is_as_the_definition() {
    let Some(device) = adapter(common::floor(), CHOICES.len()) else { return };
    none("options", &every_option(&device));
}

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tuned {name} {}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn gpu(device: &Device) -> &Arc<Gpu> {
    match device {
        Device::Gpu(gpu) => gpu,
        other => panic!("{other:?} is no GPU"),
    }
}

fn some_choices() -> Choices {
    Choices::default().with(&MATMUL_LANES, &[40], Some(0)).with(&MATMUL_PARTS, &[4, 2500, 40], Some(1))
}

#[test]
fn a_file_comes_back_where_it_is_named_and_where_it_lies() {
    let Some(device) = adapter(common::gpu(), 1) else { return };
    let (place, info) = (folder("files"), gpu(&device).info());
    let usual = GpuOptions::from_env().unwrap();
    let choices_of = |options: &GpuOptions| gpu(&Device::gpu(0, options).unwrap()).caps().choices.as_ref().clone();

    let beside = GpuOptions { pipeline_folder: Some(place.clone()), ..usual.clone() };
    assert_eq!(choices_of(&beside), Choices::default());
    write_tuned(&tuned_path(info, &place), info, &some_choices()).unwrap();
    assert_eq!(choices_of(&beside), some_choices());
    assert_eq!(choices_of(&GpuOptions { tuned: wgrad::device::gpu::Tuned::Off, ..beside.clone() }), Choices::default());
    // What only lies there is left alone where it is damaged.
    fs::write(tuned_path(info, &place), "{").unwrap();
    assert_eq!(choices_of(&beside), Choices::default());

    let named = place.join("mine.json");
    write_tuned(&named, info, &some_choices()).unwrap();
    let options = GpuOptions { tuned: wgrad::device::gpu::Tuned::File(named.clone()), ..usual };
    assert_eq!(choices_of(&options), some_choices());
    // The device plans with them: the sum of this product is cut in two.
    let device = Device::gpu(0, &options).unwrap();
    let launches = |device: &Device| {
        let (a, b) = (Tensor::ones([4, 2500], device), Tensor::ones([2500, 40], device));
        wgrad::graph::flush(device).unwrap();
        let before = device.counters().dispatches;
        assert_eq!(a.matmul(&b).to_vec::<f32>().unwrap(), vec![2500.0; 160]);
        device.counters().dispatches - before
    };
    let mut one = Alternative::new(&device, Arc::new(Choices::default().with(&MATMUL_PARTS, &[4, 2500, 40], Some(0))));
    let cut = launches(&device);
    assert_eq!(one.during(|| launches(&device)) + 1, cut);

    // A file that is named and is not for here says what it is for.
    let text = fs::read_to_string(&named).unwrap();
    let says = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(&named, text.replace(from, to)).unwrap();
        Device::gpu(0, &options).unwrap_err().to_string()
    };
    let quoted = |s: &str| serde_json::to_string(s).unwrap();
    let e = says(&quoted(&info.name), "\"another adapter\"");
    assert!(e.contains("tuned choices") && e.contains("for adapter another adapter") && e.contains(&info.name) && e.contains("mine.json"), "{e}");
    let e = says(&quoted(&info.driver), "\"driver 7\"");
    assert!(e.contains("for driver driver 7") && e.contains(&info.driver), "{e}");
    let e = says("wgrad-tuned-1", "wgrad-tuned-9");
    assert!(e.contains("for schema wgrad-tuned-9, and here it is wgrad-tuned-1"), "{e}");
    assert!(says("matmul_lanes", "matmul_lane").contains("no kernel chooses matmul_lane"));
    assert!(says("\"8x1\"", "\"9x9\"").contains("there is no option 9x9"));
    assert!(says("n40", "q40").contains("not a key"));
    assert!(says("\"choices\"", "\"chosen\"").contains("chosen"));
    fs::remove_file(&named).unwrap();
    assert!(Device::gpu(0, &options).is_err(), "a file that is named must be there");
    fs::remove_dir_all(&place).unwrap();
}

#[test]
fn captured_steps_go_on_where_another_way_of_planning_comes_back() {
    let Some(device) = adapter(common::gpu(), 1) else { return };
    let w = Param::new(&Tensor::new([0.0f32; 8], [8, 1], &device).unwrap()).unwrap();
    let mut sgd = Sgd::new(vec![w.clone()], SgdOptions { lr: 1e-3, ..Default::default() }).unwrap();
    let x = Tensor::ones([5, 8], &device);
    let mut step = capture(move |inputs: &[Tensor]| {
        let loss = (inputs[0].matmul(&w.tensor()) - 1.0).square().sum_all();
        Ok((loss.clone(), vec![loss]))
    });
    let mut ways = [Choices::default(), some_choices()].map(|c| Alternative::new(&device, Arc::new(c)));
    let mut losses = Vec::new();
    for n in 0..12 {
        let loss = ways[n % 2].during(|| step.run(&mut sgd, &[&x]).unwrap().remove(0));
        losses.push(loss.item().unwrap());
    }
    assert_eq!((step.recordings(), step.replays()), (4, 8), "two recordings for each way");
    assert!(losses.windows(2).all(|l| l[1] < l[0]), "{losses:?}");
}

/// Tune until `trials` are made or the budget is spent.
fn tune(device: &Device, workload: &str, budget: f64, trials: usize, rules: Rules) -> (Tuned, Duration) {
    let workloads = bench::workloads(&[workload.to_string()]).unwrap();
    let (began, tried) = (Instant::now(), Cell::new(0));
    let mut told = |told: Told<'_>| tried.set(tried.get() + usize::from(matches!(told, Told::Tried(_))));
    let tuned = bench::tune(device, &workloads, Duration::from_secs_f64(budget), rules, &|| tried.get() >= trials, &mut told).unwrap();
    (tuned, began.elapsed())
}

#[test]
fn what_the_tuner_keeps_is_right_and_what_is_wrong_is_not_kept() {
    let Some(device) = adapter(common::gpu(), 1) else { return };
    // Whatever it takes: only whether it is right decides. Trials are counted, not timed: a busy machine needs long for them.
    let any = Rules { gain: 100.0, spoil: false };
    let (tuned, _) = tune(&device, "matmul_64x784x128", 120.0, 2, any);
    assert_eq!(tuned.trials.len(), 2, "{:?}", tuned.trials);
    assert!(tuned.trials.iter().all(|t| t.outcome == Outcome::Kept), "{:?}", tuned.trials);
    assert!(!tuned.choices.is_empty() && !tuned.complete);
    let (spoiled, _) = tune(&device, "matmul_64x784x128", 120.0, 2, Rules { spoil: true, ..any });
    assert_eq!(spoiled.trials.len(), 2, "{:?}", spoiled.trials);
    assert!(spoiled.trials.iter().all(|t| matches!(&t.outcome, Outcome::Wrong(e) if e.contains("wrong result"))), "{:?}", spoiled.trials);
    assert!(spoiled.choices.is_empty());
    assert_eq!(gpu(&device).caps().choices.len(), 0, "the device is as it was");
}

#[test]
fn the_tuner_ends_in_time_and_when_it_is_asked_to() {
    let Some(device) = adapter(common::gpu(), 1) else { return };
    let (tuned, took) = tune(&device, "mlp_train", 4.0, usize::MAX, Rules::default());
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(tuned.workloads.len(), 1);
    let workloads = bench::workloads(&["mlp_train".to_string()]).unwrap();
    let stopped = bench::tune(&device, &workloads, Duration::from_secs(600), Rules::default(), &|| true, &mut |_| {}).unwrap();
    assert!(stopped.trials.is_empty() && !stopped.complete);
    let e = bench::tune(&common::fast(), &workloads, Duration::from_secs(1), Rules::default(), &|| false, &mut |_| {}).unwrap_err();
    assert!(e.to_string().contains("no kernels to tune"), "{e}");
}
