//! `wgrad tune-kernels`.

use super::Place;
use std::time::{Duration, Instant};

#[test]
fn choices_are_kept_in_a_file_that_later_runs_find() {
    let place = Place::new();
    let file = place.path("tuned.json");
    let path = file.to_str().unwrap();
    let began = Instant::now();
    let ran = place.run(&["tune-kernels", "--device", "gpu", "--budget", "2s", "--out", path, "matmul_64x784x128"]);
    if crate::common::may_lack_gpu() && crate::common::gpu().is_err() {
        println!("no adapter, and WGRAD_ALLOW_NO_GPU is set: not run");
        return;
    }
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(ran.out.contains("matmul_64x784x128") && ran.out.contains(" chosen: "), "{}", ran.out);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"schema\": \"wgrad-tuned-1\""), "{text}");
}

#[test]
fn what_cannot_be_tuned_says_why() {
    let place = Place::new();
    let says = |arguments: &[&str]| {
        let ran = place.run(&[&["tune-kernels", "--out", "x.json"], arguments].concat());
        assert_ne!(ran.code, Some(0), "{}", ran.out);
        ran.err
    };
    assert!(says(&["--device", "cpu"]).contains("no kernels to tune"));
    assert!(says(&["mlp_trian"]).contains("did you mean mlp_train?"));
    assert!(says(&["--budget", "soon"]).contains("must be a time above 0"));
}
