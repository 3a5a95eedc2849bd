//! Bad input: a clear error that names the file, line, key or layer, the right exit code, and nothing that was there is lost.

use super::{CONFIG, Place};

const TRAIN: [&str; 2] = ["train", "points.toml"];

#[test]
fn files_that_are_not_there_are_named() {
    let place = Place::new();
    place.fails(&["train", "nothing.toml"], 1, &["error: cannot read nothing.toml"]);
    place.config_with("points.csv", "absent.csv");
    place.fails(&TRAIN, 1, &["cannot read absent.csv"]);
}

#[test]
fn a_config_that_is_not_toml_is_named_with_its_line() {
    let place = Place::new();
    place.write("points.toml", "[data]\npath = \"points.csv\"\nlabel = kind\n");
    place.fails(&TRAIN, 1, &["points.toml: line 3: "]);
}

#[test]
fn unknown_keys_and_wrong_values_are_named() {
    let place = Place::new();
    for (from, to, says) in [
        ("epochs = 6", "epoch = 6", &["points.toml: train.epoch: there is no such key", "help: did you mean train.epochs?"][..]),
        ("epochs = 6", "epochs = 0", &["points.toml: train.epochs: must be a whole number of at least 1: 0"]),
        ("[split]", "[spilt]", &["points.toml: spilt: there is no such key", "help: did you mean split?"]),
        ("batch_size = 16", "batch_size = \"big\"", &["train.batch_size: must be a whole number of at least 1: \"big\""]),
        ("learning_rate = 0.02", "optimizer = \"adamv\"", &["train.optimizer: must be one of sgd, adam, adamw: adamv"]),
        ("test = 0.25", "test = 1.5", &["split.test: must be a number from 0 to 1: 1.5"]),
        ("test = 0.25", "test = 0.999", &["split: 150 rows leave none to learn from"]),
        ("label = \"kind\"", "label = \"kinds\"", &["points.csv: there is no column kinds", "did you mean kind?"]),
    ] {
        place.config_with(from, to);
        place.fails(&TRAIN, 1, says);
    }
}

#[test]
fn a_csv_file_is_named_with_the_line_that_is_wrong() {
    let place = Place::new();
    for (row, says) in [
        ("1.0,2", "points.csv: line 4: 2 values, but the header has 3"),
        ("one,2,1.0", "points.csv: line 4, column x: not a number: one"),
        ("1.0,-1,1.0", "points.csv: line 4, column kind: label -1 is negative"),
        ("1.0,1.5,1.0", "points.csv: line 4, column kind: label 1.5 is not a whole number"),
        ("1.0,3,1.0", "points.csv: line 4, column kind: label 3 is beyond classes = 3"),
        ("1.0,two,1.0", "points.csv: line 4, column kind: not a number: two"),
    ] {
        place.write("points.csv", &format!("x,kind,y\n0.5,0,0.5\n0.5,1,0.5\n{row}\n"));
        place.fails(&TRAIN, 1, &[says]);
    }
}

#[test]
fn layers_that_do_not_fit_are_named_with_their_shapes() {
    let place = Place::new();
    for (from, to, says) in [
        ("kind = \"relu\"", "kind = \"relo\"", &["points.toml: model.layers[1]: unknown layer \"relo\"", "help: did you mean relu?"][..]),
        ("out_features = 16", "out_feature = 16", &["points.toml: model.layers[0] (linear): unknown key \"out_feature\"", "did you mean out_features?"]),
        ("{ kind = \"relu\" }", "{ kind = \"conv2d\", out_channels = 4, kernel_size = 3 }", &["points.toml: model.layers[1] (conv2d): ", "[1, 16]"]),
        ("{ kind = \"relu\" }", "{ p = 0.5 }", &["points.toml: model.layers[1]: kind is missing"]),
        ("out_features = 3 }", "out_features = 4 }", &["points.toml: model.layers[3]: ", "[4]", "[3], one for each class"]),
        ("classes = 3", "classes = 3\nshape = [1, 3]", &["points.csv: data.shape: ", "[2]", "[1, 3]"]),
    ] {
        place.config_with(from, to);
        place.fails(&TRAIN, 1, says);
    }
    assert!(!place.path("runs").exists(), "a run that could not begin leaves no folder");
}

#[test]
fn what_the_arguments_say_is_checked() {
    let place = Place::new();
    place.fails(&["train"], 2, &["<CONFIG>"]);
    place.fails(&["train", "points.toml", "--epochs", "3"], 2, &["--epochs"]);
    place.fails(&["trian", "points.toml"], 2, &["trian", "train"]);
    place.fails(&["train", "points.toml", "--set", "train.seed"], 1, &["--set train.seed: there is no ="]);
    place.fails(&["train", "points.toml", "--set", "train.sede=1"], 1, &["train.sede: there is no such key", "did you mean train.seed?"]);
    place.fails(&["train", "points.toml", "--device", "riva128"], 1, &["--device: ", "riva128 is not here", "cpu", "gpu:1"]);
    let mut command = place.command(&TRAIN);
    let ran: super::Ran = command.env(concat!("WGRAD_", "POISN"), "1").output().unwrap().into();
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("help: did you mean WGRAD_POISON?"), "{}", ran.err);
}

#[test]
fn runs_and_models_that_are_not_there_or_not_whole_are_named() {
    let place = Place::new();
    place.done(&["train", "points.toml", "--set", "train.epochs=1"]);
    place.fails(&["evaluate", "point"], 1, &["there is no run point", "did you mean points?"]);
    let path = place.path("runs/points/model.safetensors");
    let model = std::fs::read(&path).unwrap();
    for (bytes, says) in [(&model[..model.len() - 4], "truncated"), (b"\x89PNG and so on, an image", "not safetensors")] {
        std::fs::write(&path, bytes).unwrap();
        place.fails(&["evaluate", "points"], 1, &["model.safetensors: safetensors: ", says]);
        place.fails(&["predict", "points", "--input", "points.csv"], 1, &["model.safetensors", says]);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "a file that cannot be read stays as it is");
    }
    // A model of another shape.
    place.write("points.toml", &CONFIG.replace("out_features = 16", "out_features = 8"));
    place.done(&["train", "points.toml", "--set", "train.epochs=1"]);
    std::fs::copy(place.path("runs/points-2/model.safetensors"), &path).unwrap();
    place.fails(&["evaluate", "points"], 1, &["model.safetensors", "0.weight", "[8, 2]", "[16, 2]"]);
    std::fs::remove_file(&path).unwrap();
    place.fails(&["evaluate", "points"], 1, &["model.safetensors"]);
    place.write("other.csv", "x,z\n1,2\n");
    std::fs::write(&path, &model).unwrap();
    place.fails(&["predict", "points", "--input", "other.csv"], 1, &["other.csv: there is no column y"]);
}

#[test]
fn a_run_that_fails_leaves_earlier_runs_alone() {
    let place = Place::new();
    place.done(&["train", "points.toml", "--set", "train.epochs=1"]);
    let files = || {
        let mut names: Vec<String> = std::fs::read_dir(place.path("runs")).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (names, std::fs::read(place.path("runs/points/model.safetensors")).unwrap())
    };
    let before = files();
    place.fails(&["train", "points.toml", "--device", "riva128"], 1, &["riva128"]);
    assert_eq!(files(), before);
    // A rate that breaks the model ends the run, and says in which epoch.
    place.fails(&["train", "points.toml", "--set", "train.learning_rate=1e30", "--set", "train.optimizer=sgd"], 1, &["train: epoch ", "the loss is"]);
    assert_eq!(std::fs::read(place.path("runs/points/model.safetensors")).unwrap(), before.1);
}
