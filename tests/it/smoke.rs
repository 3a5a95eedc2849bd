//! One thread through everything, on every device.

use wgrad::autograd::vmap;
use wgrad::nn::Param;
use wgrad::optim::{Adam, AdamOptions, Optimizer};
use wgrad::{Device, Generator, Tensor};

fn devices() -> Vec<Device> {
    vec![Device::cpu().unwrap(), Device::cpu_with(1, true).unwrap(), Device::open("gpu").unwrap().0]
}

#[test]
fn a_fused_chain_is_one_dispatch() {
    for d in devices() {
        let x = Tensor::new(vec![1.0f32, -2.0, 3.0, -4.0, 5.0], [5], &d).unwrap();
        let a = Tensor::new([2.0f32], [1], &d).unwrap();
        let b = Tensor::new([1.0f32], [1], &d).unwrap();
        let before = d.counters();
        let y = (&x * &a + &b).relu() * &x;
        assert_eq!(y.to_vec::<f32>().unwrap(), [3.0, 0.0, 21.0, 0.0, 55.0]);
        let c = d.counters().since(&before);
        println!("{} {c:?}", d.short_name());
    }
}

#[test]
fn an_mlp_trains() {
    for d in devices() {
        let g = Generator::new(0);
        let x = Tensor::randn([64, 10], &g, &d).unwrap();
        let y = x.sum(&[1], true).sin();
        let w1 = Param::new(&(&Tensor::randn([10, 32], &g, &d).unwrap() * 0.3)).unwrap();
        let b1 = Param::new(&Tensor::zeros([32], &d)).unwrap();
        let w2 = Param::new(&(&Tensor::randn([32, 1], &g, &d).unwrap() * 0.2)).unwrap();
        let mut opt = Adam::new(vec![w1.clone(), b1.clone(), w2.clone()], AdamOptions { lr: 0.02, ..Default::default() }).unwrap();
        let mut total = Tensor::zeros([], &d);
        let mut losses = vec![];
        for i in 0..300 {
            let before = d.counters();
            let loss = ((x.matmul(&w1.tensor()) + &b1.tensor()).tanh().matmul(&w2.tensor()) - &y).square().mean_all();
            total = &total + &loss;
            loss.backward().unwrap();
            opt.step().unwrap();
            opt.zero_grad();
            if i == 0 || i == 100 || i == 299 {
                println!("{} {i} {:?}", d.short_name(), d.counters().since(&before));
                losses.push(loss.item().unwrap());
            }
        }
        println!("{} {losses:?} total {}", d.short_name(), total.item().unwrap());
        assert!(losses[2] < losses[0] * 0.1);
    }
}

#[test]
fn vmap_sums() {
    for d in devices() {
        let w = Tensor::new([1.0f32, 2.0, 3.0, 4.0], [2, 2], &d).unwrap();
        let x = Tensor::new([10.0f32, 1.0], [2], &d).unwrap();
        let y = vmap(|p| Ok(vec![(&p[0] * &x).sum_all()]), &[&w]).unwrap();
        assert_eq!(y[0].to_vec::<f32>().unwrap(), [12.0, 34.0]);
    }
}
