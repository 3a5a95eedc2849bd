//! Tests of modules, state and the LAYERS table, as far as they need no device but the CPU.

use super::*;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::ops::Generator;
use crate::tensor::{DType, Meta};
use std::sync::Arc;

fn device() -> Device {
    Device::cpu().unwrap()
}

fn seeded(seed: u64) -> Arc<Generator> {
    Arc::new(Generator::new(seed))
}

fn spec(kind: &str, attrs: Attrs) -> (String, Attrs) {
    (kind.into(), attrs)
}

/// A small CNN as a config says it.
fn digits() -> Vec<(String, Attrs)> {
    vec![
        spec("conv2d", Attrs::new().with("out_channels", 16).with("kernel_size", 3).with("padding", 1)),
        spec("batch_norm2d", Attrs::new()),
        spec("relu", Attrs::new()),
        spec("max_pool2d", Attrs::new().with("kernel_size", 2)),
        spec("flatten", Attrs::new()),
        spec("dropout", Attrs::new().with("p", 0.25)),
        spec("linear", Attrs::new().with("out_features", 10)),
    ]
}

fn build(specs: &[(String, Attrs)], input: &[usize]) -> Result<Sequential> {
    Sequential::from_specs(specs, input, &seeded(0), &device())
}

fn mlp(seed: u64) -> Sequential {
    let (g, d) = (seeded(seed), device());
    Sequential::new().then(Linear::new(3, 4, &g, &d).unwrap()).then(ReLU).then(Linear::new(4, 2, &g, &d).unwrap())
}

fn values(module: &dyn Module) -> Vec<(String, Vec<f32>)> {
    module.state_dict().into_iter().map(|(name, t)| (name, t.to_vec().unwrap())).collect()
}

#[test]
fn sizes_follow_from_the_layers_before() {
    let model = build(&digits(), &[1, 8, 8]).unwrap();
    let names: Vec<String> = model.state_dict().iter().map(|(name, t)| format!("{name} {}", t.shape())).collect();
    assert_eq!(
        names,
        [
            "0.weight [16, 1, 3, 3]",
            "0.bias [16]",
            "1.weight [16]",
            "1.bias [16]",
            "1.running_mean [16]",
            "1.running_var [16]",
            "6.weight [10, 256]",
            "6.bias [10]"
        ]
    );
    assert_eq!(model.check(&[Meta::new(DType::F32, [32, 1, 8, 8])]).unwrap(), Meta::new(DType::F32, [32, 10]));
    assert_eq!(model.num_parameters(), 16 * 9 + 16 + 32 + 2560 + 10);
    assert_eq!(model.parameters().len(), 6);
}

#[test]
fn the_summary_is_a_table() {
    let model = build(&digits(), &[1, 8, 8]).unwrap();
    let text = model.summary(&Meta::new(DType::F32, [1, 1, 8, 8])).unwrap().to_string();
    let want = "\
layer                                          output         parameters
0: conv2d(1, 16, kernel_size=3, padding=1)     [1, 16, 8, 8]         160
1: batch_norm2d(16)                            [1, 16, 8, 8]          32
2: relu                                        [1, 16, 8, 8]           0
3: max_pool2d(kernel_size=2)                   [1, 16, 4, 4]           0
4: flatten                                     [1, 256]                0
5: dropout(p=0.25)                             [1, 256]                0
6: linear(256, 10)                             [1, 10]             2,570
total                                                              2,762";
    let squeeze = |s: &str| s.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(squeeze(&text), squeeze(want));
    assert!(text.lines().all(|l| l.chars().count() == text.lines().next().unwrap().chars().count()), "{text}");
}

/// The message for these layers.
fn refused(specs: &[(String, Attrs)], input: &[usize]) -> String {
    build(specs, input).unwrap_err().to_string()
}

#[test]
fn a_misspelt_key_is_named_with_the_nearest() {
    let specs = [spec("conv2d", Attrs::new().with("out_channels", 4).with("kernal_size", 3))];
    assert_eq!(refused(&specs, &[1, 8, 8]), "model.layers[0] (conv2d): unknown key \"kernal_size\"\nhelp: did you mean kernel_size?");
    let specs = [spec("relu", Attrs::new().with("slope", 1))];
    assert_eq!(refused(&specs, &[4]), "model.layers[0] (relu): unknown key \"slope\"\nhelp: relu has no settings");
}

#[test]
fn an_unknown_layer_is_named_with_the_nearest() {
    let specs = [spec("relu", Attrs::new()), spec("con2d", Attrs::new())];
    assert_eq!(refused(&specs, &[4]), "model.layers[1]: unknown layer \"con2d\"\nhelp: did you mean conv2d?");
    assert!(refused(&[spec("transmogrifier", Attrs::new())], &[4]).contains("help: layers are linear, conv2d, "));
}

#[test]
fn values_that_are_not_valid_are_named() {
    let conv = || Attrs::new().with("out_channels", 4).with("kernel_size", 3);
    let cases = [
        ("conv2d", Attrs::new().with("kernel_size", 3), "out_channels is missing"),
        ("conv2d", conv().with("kernel_size", 0), "kernel_size must be a whole number from 1 on, or two: 0"),
        ("conv2d", conv().with("kernel_size", vec![1.0, 2.0, 3.0]), "kernel_size must be a whole number from 1 on, or two: [1.0, 2.0, 3.0]"),
        ("conv2d", conv().with("stride", "two"), "stride must be a whole number from 1 on, or two: \"two\""),
        ("conv2d", conv().with("groups", 3), "groups must divide in_channels 1 and out_channels 4: 3"),
        ("conv2d", conv().with("out_channels", 2.5), "out_channels must be a whole number from 1 on: 2.5"),
        ("conv2d", conv().with("bias", 1), "bias must be true or false: 1"),
        ("conv2d", conv().with("in_channels", 3), "input has 1 channels, the layer takes 3: shape [1, 1, 8, 8]"),
        ("conv2d", conv().with("kernel_size", 11), "an image of 8 x 8 is smaller than the window: kernel_size 11, padding 0, dilation 1"),
        ("conv2d", conv().with("padding", 2e9), "an output of shape [1, 4, 4000000006, 4000000006] has more elements than can be counted in 32 bits"),
        ("conv2d", conv().with("out_channels", 2e9), "a weight of shape [2000000000, 1, 3, 3] has more elements than can be counted in 32 bits"),
        ("conv2d", conv().with("out_channels", 1e30), "out_channels must be a whole number from 1 on: 1000000000000000000000000000000"),
        ("conv2d", conv().with("out_channels", f64::NAN), "out_channels must be a whole number from 1 on: NaN"),
        ("max_pool2d", Attrs::new().with("kernel_size", 2).with("padding", 2), "padding must be at most half of kernel_size 2: 2"),
        ("batch_norm1d", Attrs::new(), "takes [batch, channels] or [batch, channels, length], the input has shape [1, 1, 8, 8]"),
        ("dropout", Attrs::new().with("p", 1.5), "p must be from 0 to 1: 1.5"),
        ("flatten", Attrs::new().with("end_dim", 7), "dim 7 is out of range for shape [1, 1, 8, 8]"),
        ("gelu", Attrs::new().with("approximate", "erf"), "approximate must be one of none, tanh: \"erf\""),
        ("embedding", Attrs::new().with("num_embeddings", 5).with("embedding_dim", 2), "takes integers (i32), the input is f32[1, 1, 8, 8]"),
    ];
    for (kind, attrs, want) in cases {
        assert_eq!(refused(&[spec(kind, attrs)], &[1, 8, 8]), format!("model.layers[0] ({kind}): {want}"));
    }
}

#[test]
fn shapes_that_do_not_fit_name_the_layer() {
    let linear = |n: i32| spec("linear", Attrs::new().with("out_features", n));
    let conv = spec("conv2d", Attrs::new().with("out_channels", 4).with("kernel_size", 3));
    let specs = [linear(8), spec("relu", Attrs::new()), conv];
    assert_eq!(refused(&specs, &[64]), "model.layers[2] (conv2d): takes images [batch, channels, height, width], the input has shape [1, 8]");
    let model = build(&[linear(8)], &[64]).unwrap();
    let e = model.check(&[Meta::new(DType::F32, [5, 10])]).unwrap_err();
    assert_eq!(e.message(), "layers[0] (linear): input has 10 features, the layer takes 64: shape [5, 10]");
    let e = model.check(&[Meta::new(DType::I32, [5, 64])]).unwrap_err();
    assert_eq!(e.message(), "layers[0] (linear): the layer's parameters are f32, the input is i32[5, 64]");
    assert!(build(&[], &[1; 8]).unwrap_err().message().starts_with("model: input: shape [1, 1, 1, 1, 1, 1, 1, 1, 1] has 9 dimensions"));
}

/// What a layer takes: type and shape of one example.
fn fitting(layer: &str) -> (DType, &'static [usize]) {
    match layer {
        "conv2d" | "max_pool2d" | "avg_pool2d" | "batch_norm2d" => (DType::F32, &[3, 6, 6]),
        "embedding" => (DType::I32, &[5]),
        _ => (DType::F32, &[6]),
    }
}

/// A layer's required settings, each 2.
fn required(entry: &LayerEntry) -> Attrs {
    entry.keys.iter().filter(|k| k.default == KeyDefault::Required).fold(Attrs::new(), |a, k| a.with(k.name, 2))
}

#[test]
fn forward_gives_what_check_says() {
    for entry in all_layers() {
        let (dtype, shape) = fitting(entry.name);
        let input = Meta::new(dtype, [&[4], shape].concat());
        let layer = entry.build(&required(entry), &input, &seeded(0), &device()).unwrap();
        let x = Tensor::ones(input.shape, &device()).to_dtype(dtype);
        for training in [true, false] {
            layer.set_training(training);
            let y = layer.forward(&x);
            assert_eq!(*y.meta(), layer.check(&[input]).unwrap(), "{}", entry.name);
            y.to_data().unwrap_or_else(|e| panic!("{}: {e}", entry.name));
        }
    }
}

/// Every layer builds from its required settings alone, and what its keys name is what it reads.
#[test]
fn every_layer_of_the_table_builds() {
    for entry in all_layers() {
        let attrs = required(entry);
        let (dtype, shape) = fitting(entry.name);
        let specs = [(entry.name.to_string(), attrs)];
        let model = Sequential::from_specs_for(&specs, &Meta::new(dtype, shape), &seeded(0), &device()).unwrap_or_else(|e| panic!("{}: {e}", entry.name));
        assert_eq!(model.layers()[0].name(), entry.name);
        assert!(!entry.doc.is_empty());
        for key in entry.keys {
            let wrong = Attrs::new().with(key.name, Attr::List(vec![]));
            let wrong = specs[0].1.iter().fold(wrong, |a, (n, v)| if n == key.name { a } else { a.with(n, v.clone()) });
            let e = entry.build(&wrong, &Meta::new(dtype, [&[1], shape].concat()), &seeded(0), &device()).unwrap_err();
            assert!(e.message().contains(&format!("{} must be ", key.name)), "{}: {}: {e}", entry.name, key.name);
        }
    }
}

#[test]
fn sizes_of_windows_are_those_of_pytorch() {
    let out = |layer: &dyn Module, h: usize| layer.check(&[Meta::new(DType::F32, [1, 2, h, h])]).unwrap().shape[2];
    assert_eq!(out(&MaxPool2d::new(3).stride(2), 8), 3);
    assert_eq!(out(&MaxPool2d::new(3).stride(2).ceil_mode(true), 8), 4);
    // The window that ceil_mode adds would begin in the padding behind the image.
    assert_eq!(out(&AvgPool2d::new(2).stride(3).padding(1).ceil_mode(true), 4), 2);
    assert_eq!(out(&MaxPool2d::new(3).dilation(2).padding(1), 10), 3);
    let conv = Conv2d::config(2, 4, (3, 5)).stride([2, 1]).dilation(2).groups(2).build(&seeded(0), &device()).unwrap();
    assert_eq!(conv.check(&[Meta::new(DType::F32, [7, 2, 11, 11])]).unwrap().shape.to_vec(), [7, 4, 4, 3]);
    assert_eq!(conv.extra(), "2, 4, kernel_size=[3, 5], stride=[2, 1], dilation=2, groups=2");
    let e = MaxPool2d::new(2).stride(0).check(&[Meta::new(DType::F32, [1, 2, 4, 4])]).unwrap_err();
    assert_eq!(e.message(), "max_pool2d: stride must be at least 1: 0");
}

#[test]
fn the_seed_decides_the_values() {
    assert_eq!(values(&mlp(3)), values(&mlp(3)));
    assert_ne!(values(&mlp(3)), values(&mlp(4)));
}

#[test]
fn building_a_model_runs_no_plan() {
    // A device of its own: other tests move the shared one's counters.
    let d = Device::cpu_with(1, false).unwrap();
    let before = d.counters();
    Sequential::from_specs(&digits(), &[1, 8, 8], &seeded(0), &d).unwrap();
    assert_eq!(d.counters().since(&before).plans_built, 0);
}

#[test]
fn forward_computes_layer_by_layer() {
    let model = mlp(0);
    let x = [0.5f32, -1.0, 2.0];
    let state = values(&model);
    let dense = |w: &[f32], b: &[f32], x: &[f32]| {
        b.iter().enumerate().map(|(o, b)| b + x.iter().zip(&w[o * x.len()..]).map(|(x, w)| x * w).sum::<f32>()).collect::<Vec<f32>>()
    };
    let hidden: Vec<f32> = dense(&state[0].1, &state[1].1, &x).iter().map(|h| h.max(0.0)).collect();
    let want = dense(&state[2].1, &state[3].1, &hidden);
    let got = model.forward(&Tensor::new(x, [1, 3], &device()).unwrap()).to_vec::<f32>().unwrap();
    assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?} {want:?}");
    let e = model.try_forward(&Tensor::zeros([1, 4], &device())).unwrap_err();
    assert!(e.message().starts_with("layers[0] (linear): "), "{e}");
}

#[test]
fn training_reaches_every_module_within() {
    let inner = Sequential::new().then(Dropout::new(0.5, &seeded(1)).unwrap());
    let model = Sequential::new().then(Arc::new(Sequential::new().then(inner)));
    let x = Tensor::ones([64], &device());
    let kept = || model.forward(&x).to_vec::<f32>().unwrap().iter().filter(|&&v| v == 1.0).count();
    assert_eq!(kept(), 0);
    model.eval();
    assert_eq!(kept(), 64);
    model.train();
    assert_eq!(kept(), 0);
}

#[test]
fn batch_norm_follows_its_running_statistics() {
    let d = device();
    let norm = BatchNorm1d::new(2, &d).unwrap();
    let x = Tensor::new([1.0f32, 0.0, 3.0, 0.0, 5.0, 6.0], [3, 2], &d).unwrap();
    let y = norm.forward(&x).to_vec::<f32>().unwrap();
    // Channel 0: mean 3, biased variance 8/3; channel 1: mean 2, biased variance 8.
    let want = [-2.0 / (8.0f32 / 3.0).sqrt(), -2.0 / 8f32.sqrt()];
    assert!((y[0] - want[0]).abs() < 1e-4 && (y[1] - want[1]).abs() < 1e-4, "{y:?}");
    let state = values(&norm);
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(near(&state[2].1, &[0.3, 0.2]), "{state:?}");
    // The unbiased variances, 4 and 12, move the running ones.
    assert!(near(&state[3].1, &[0.9 + 0.4, 0.9 + 1.2]), "{state:?}");
    norm.eval();
    let y = norm.forward(&x).to_vec::<f32>().unwrap();
    assert!((y[0] - 0.7 / 1.3f32.sqrt()).abs() < 1e-4, "{y:?}");
    assert_eq!(values(&norm), state);
    norm.train();
    let e = norm.try_forward(&x.narrow(0, 0, 1)).unwrap_err();
    assert!(e.message().contains("more than one value a channel"), "{e}");
}

#[test]
fn gradients_reach_every_parameter() {
    let model = build(&digits(), &[1, 8, 8]).unwrap();
    let x = Tensor::rand([5, 1, 8, 8], &seeded(3), &device()).unwrap();
    let classes = Tensor::new([0, 3, 9, 3, 1], [5], &device()).unwrap();
    CrossEntropyLoss::default().forward(&model.forward(&x), &classes).backward().unwrap();
    for (name, p) in model.named_parameters() {
        let grad = p.grad().unwrap_or_else(|| panic!("{name} has no gradient")).to_vec::<f32>().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()) && (name == "0.bias" || grad.iter().any(|&g| g != 0.0)), "{name}: {grad:?}");
    }
    model.zero_grad();
    assert!(model.parameters().iter().all(|p| p.grad().is_none()));
}

#[test]
fn activations_compute_their_rows() {
    let x = Tensor::new([-2.0f32, -0.5, 0.0, 1.5], [1, 4], &device()).unwrap();
    let y = |m: &dyn Module| m.forward(&x).to_vec::<f32>().unwrap();
    assert_eq!(y(&LeakyReLU { negative_slope: 0.5 }), [-1.0, -0.25, 0.0, 1.5]);
    assert_eq!(y(&Hardtanh::default()), [-1.0, -0.5, 0.0, 1.0]);
    assert_eq!(y(&PReLU::new(4, 0.25, &device()).unwrap()), [-0.5, -0.125, 0.0, 1.5]);
    assert_eq!(y(&GELU::default()), x.gelu().to_vec::<f32>().unwrap());
    assert_eq!(Softplus::default().extra(), "beta=1, threshold=20");
    let e = PReLU::new(3, 0.25, &device()).unwrap().check(&[*x.meta()]).unwrap_err();
    assert_eq!(e.message(), "prelu: the layer has slopes for 3 channels, the input has shape [1, 4]");
}

#[test]
fn a_shared_parameter_counts_once_and_is_saved_twice() {
    let layer = Arc::new(Linear::new(3, 3, &seeded(0), &device()).unwrap());
    let model = Sequential::new().then(layer.clone()).then(Tanh).then(layer);
    assert_eq!(model.num_parameters(), 12);
    assert_eq!(model.state_dict().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["0.weight", "0.bias", "2.weight", "2.bias"]);
}

#[test]
fn loading_is_all_or_nothing() {
    let (a, b) = (mlp(1), mlp(2));
    let before = values(&b);
    let mut state = a.state_dict();
    state[1].0 = "0.bais".into();
    state[2].1 = Tensor::zeros([4, 2], &device());
    let e = b.load_state_dict(&state, true).unwrap_err();
    assert_eq!(
        e.message(),
        "load_state_dict: the values do not fit the module\n  of another shape: 2.weight is f32[4, 2], the module has f32[2, 4]\n  \
         missing: 0.bias (is it 0.bais?)\n  unexpected: 0.bais (is it 0.bias?)"
    );
    assert!(b.load_state_dict(&state, false).unwrap_err().message().contains("2.weight"));
    assert_eq!(values(&b), before);

    let loaded = b.load_state_dict(&a.state_dict()[..2], false).unwrap();
    assert_eq!(loaded, Loaded { missing: vec!["2.weight".into(), "2.bias".into()], unexpected: vec![] });
    assert_eq!(values(&b)[..2], values(&a)[..2]);
    assert_eq!(b.load_state_dict(&a.state_dict(), true).unwrap(), Loaded::default());
    assert_eq!(values(&b), values(&a));
}

#[test]
fn loading_keeps_the_values_taken_before() {
    let model = mlp(1);
    let old = model.state_dict();
    let before = values(&model);
    model.load_state_dict(&mlp(2).state_dict(), true).unwrap();
    assert_ne!(values(&model), before);
    assert_eq!(old[0].1.to_vec::<f32>().unwrap(), before[0].1);
}

#[test]
fn what_pytorch_counts_and_this_does_not_is_passed_over() {
    let norm = BatchNorm2d::new(3, &device()).unwrap();
    let mut state = norm.state_dict();
    state.push(("num_batches_tracked".into(), Tensor::new([7i32], [], &device()).unwrap()));
    assert_eq!(norm.load_state_dict(&state, true).unwrap(), Loaded::default());
}

#[test]
fn floats_of_another_width_are_converted() {
    let model = mlp(1);
    let wide: Vec<(String, Tensor)> = mlp(2).state_dict().into_iter().map(|(name, t)| (name, t.to_dtype(DType::F64))).collect();
    model.load_state_dict(&wide, true).unwrap();
    assert_eq!(values(&model), values(&mlp(2)));
}

#[test]
fn a_buffer_takes_pending_values_and_no_history() {
    let d = device();
    let buffer = Buffer::new(&Tensor::zeros([2], &d));
    let x = Tensor::new([1.0f32, 2.0], [2], &d).unwrap().requires_grad().unwrap();
    for _ in 0..3 {
        buffer.assign(&(buffer.tensor() * 0.5 + &x)).unwrap();
    }
    assert!(!buffer.tensor().is_grad_required());
    assert_eq!(buffer.tensor().to_vec::<f32>().unwrap(), [1.75, 3.5]);
    assert_eq!(buffer.assign(&Tensor::zeros([3], &d)).unwrap_err().message(), "buffer: a value f32[3] does not fit f32[2]");
}

#[test]
fn files_hold_what_was_saved() {
    let dir = std::env::temp_dir().join(format!("wgrad nn {}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("model.safetensors");
    let model = build(&digits(), &[1, 8, 8]).unwrap();
    save(&model, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    save(&model, &path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let other = Sequential::from_specs(&digits(), &[1, 8, 8], &seeded(5), &device()).unwrap();
    assert_ne!(values(&other), values(&model));
    load(&other, &path, true).unwrap();
    assert_eq!(values(&other), values(&model));

    let message = |e: Error| e.message().to_string();
    let e = message(load(&mlp(0), &path, true).unwrap_err());
    assert!(e.starts_with(&format!("{}: load_state_dict: the values do not fit the module\n", path.display())) && e.contains("unexpected: 6.bias"), "{e}");
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(message(load(&other, &path, true).unwrap_err()).starts_with(&format!("{}: safetensors: truncated", path.display())));
    let absent = dir.join("absent");
    assert!(message(load(&other, &absent, true).unwrap_err()).starts_with(&absent.display().to_string()));
    assert!(message(save(&model, absent.join("m")).unwrap_err()).starts_with(&absent.display().to_string()));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
}
