//! A callback that watches a device's counters, for the result of a run: what is promised of a training loop is measured in every one.

use crate::device::{CounterValues, Device};
use crate::error::Result;
use crate::graph;
use crate::train::{Callback, Event, Flow};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::rc::Rc;

/// What was counted.
#[derive(Debug, Default)]
pub struct Counted {
    before_step: CounterValues,
    first_epoch: Option<CounterValues>,
    after_first_epoch: CounterValues,
    most_submits: u64,
    most_writes: u64,
    steps: u64,
}

/// Counts, and shares what it counted.
#[derive(Debug)]
pub struct Counting {
    device: Device,
    counted: Rc<RefCell<Counted>>,
}

impl Counting {
    /// A callback to be told last, so that what the others do belongs to the epoch in which they do it.
    pub fn new(device: &Device) -> (Counting, Rc<RefCell<Counted>>) {
        let counted = Rc::new(RefCell::new(Counted::default()));
        (Counting { device: device.clone(), counted: counted.clone() }, counted)
    }
}

impl Callback for Counting {
    fn on(&mut self, event: &Event<'_>) -> Result<Flow> {
        let now = self.device.counters();
        let mut counted = self.counted.borrow_mut();
        match event {
            Event::StepEnded { .. } => {
                let step = now.since(&counted.before_step);
                counted.most_submits = counted.most_submits.max(step.submits);
                counted.most_writes = counted.most_writes.max(step.param_writes);
                counted.steps += 1;
            }
            Event::EpochEnded(_) => match &counted.first_epoch {
                None => counted.first_epoch = Some(now.clone()),
                Some(first) => counted.after_first_epoch = now.since(first),
            },
            _ => {}
        }
        counted.before_step = now;
        Ok(Flow::Continue)
    }
}

impl Counted {
    /// The totals of the device by name; what was built after the first epoch; the most that any step did; the plans.
    pub fn to_json(&self, device: &Device) -> Value {
        let after = &self.after_first_epoch;
        let mut all: Map<String, Value> = device.counters().entries().into_iter().map(|(name, n)| (name.to_string(), n.into())).collect();
        all.insert("plans".into(), graph::plan_names(device).into());
        all.insert("steps".into(), self.steps.into());
        all.insert("after_first_epoch".into(), json!({ "plans_built": after.plans_built, "pipelines": after.pipelines, "create_buffer": after.create_buffer }));
        all.insert("most_in_a_step".into(), json!({ "submits": self.most_submits, "param_writes": self.most_writes }));
        Value::Object(all)
    }
}
