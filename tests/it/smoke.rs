//! A first walk through the whole: fused rows, random values, views, backward, on the CPU and a GPU.

use wgrad::{Device, Tensor};

fn devices() -> Vec<Device> {
    vec![Device::cpu().unwrap(), Device::open("gpu").unwrap().0]
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
        assert_eq!(c.dispatches, 1, "{c:?}");
        assert_eq!(c.submits, 1);
        let r = Tensor::rand([7], &wgrad::Generator::new(3), &d).unwrap();
        println!("{:?}", r.to_vec::<f32>().unwrap());
        let t = Tensor::new((0..6).map(|v| v as f32).collect::<Vec<_>>(), [2, 3], &d).unwrap();
        println!("{:?}", (&t.t() * 2.0).to_vec::<f32>().unwrap());
        println!("{:?}", t.t().to_vec::<f32>().unwrap());
        // backward
        let x = Tensor::new(vec![0.5f32, 1.0, 2.0], [3], &d).unwrap().requires_grad().unwrap();
        let y = (&x * 3.0).exp();
        y.backward_with(&wgrad::autograd::GradOptions { grad_outputs: Some(vec![y.ones_like()]), ..Default::default() }).unwrap();
        println!("{:?}", x.grad().unwrap().to_vec::<f32>().unwrap());
    }
}
