//! The list of adapters, and devices opened by name.

use wgrad::Device;
use wgrad::device::gpu::adapters;
use wgrad::error::ErrorKind;

#[test]
fn the_list_has_an_order() {
    let list = adapters();
    assert!(!list.is_empty(), "the tests need an adapter");
    assert!(list.is_sorted_by_key(|a| a.kind), "{list:?}");
    assert!(list.iter().all(|a| !a.vendor.is_empty() && !a.short_name().contains(' ')));
}

#[test]
fn devices_are_named_and_an_unknown_one_lists_them() {
    let list = adapters();
    let name = list[0].name.to_uppercase();
    for spec in ["gpu", "gpu:1", name.as_str()] {
        let (device, why) = Device::open(spec).unwrap();
        assert_eq!(device.short_name(), list[0].short_name());
        assert!(why.contains("asked for"), "{why}");
    }
    for spec in ["gpu:99", "no such thing"] {
        let e = Device::open(spec).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Device(_)));
        assert!(e.message().contains(spec) && e.message().contains("cpu") && e.message().contains("gpu:1  "), "{e}");
    }
    let (device, why) = Device::best().unwrap();
    assert!(why.contains(&device.description()), "{why}");
}
