//! What `wgrad bench` stands on: its references, and the table of its workloads.

use wgrad::bench::{self, WORKLOADS};

#[test]
fn the_written_losses_are_those_of_the_definition() {
    // All ten steps of resnet_train would take most of a minute: of it the first is looked at, of the others as many as show that gradients and Adam are theirs.
    for (name, steps) in [("mlp_train", bench::CHECKED_STEPS), ("lenet_train", 3), ("resnet_train", 1)] {
        let written = bench::reference_losses(name).unwrap();
        for (step, (got, want)) in bench::definition_losses(name, steps).unwrap().iter().zip(written).enumerate() {
            assert!((got - want).abs() < 1e-6, "{name}, step {}: {got}, the table has {want}", step + 1);
        }
    }
}

#[test]
fn workloads_have_names_of_their_own() {
    let mut names: Vec<_> = WORKLOADS.iter().map(|w| w.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), WORKLOADS.len());
    let all = bench::workloads(&["all".to_string()]).unwrap();
    assert!(all.iter().all(|w| !w.name.starts_with("startup_")) && all.len() + 2 == WORKLOADS.len());
}
