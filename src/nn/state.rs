//! A module's values in and out: state dicts, and safetensors files.

use super::{Buffer, Module, Param, Part};
use crate::device::Device;
use crate::error::{Error, Result, nearest};
use crate::files;
use crate::format::safetensors::{self, Entry, File};
use crate::graph::Tensor;
use crate::tensor::{DType, Data, Meta};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// What loading left alone: empty lists after a strict load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Names of the module that were not among the values.
    pub missing: Vec<String>,
    /// Names among the values that the module does not have.
    pub unexpected: Vec<String>,
}

/// The places of a module that hold values, by name.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: Vec<(String, Place)>,
    foreign: HashSet<String>,
}

#[derive(Debug)]
enum Place {
    Param(Param),
    Buffer(Buffer),
}

impl Place {
    fn meta(&self) -> &Meta {
        match self {
            Place::Param(p) => p.meta(),
            Place::Buffer(b) => b.meta(),
        }
    }

    fn device(&self) -> Device {
        match self {
            Place::Param(p) => p.tensor().device().clone(),
            Place::Buffer(b) => b.tensor().device().clone(),
        }
    }

    fn set(&self, value: &Tensor) -> Result<()> {
        match self {
            Place::Param(p) => p.set(value),
            Place::Buffer(b) => b.assign(value),
        }
    }
}

impl Places {
    pub fn add(&mut self, path: &str, part: &Part<'_>) {
        match part {
            Part::Param(p) => self.places.push((path.into(), Place::Param((*p).clone()))),
            Part::Buffer(b) => self.places.push((path.into(), Place::Buffer((*b).clone()))),
            Part::Foreign => drop(self.foreign.insert(path.into())),
            Part::Module(_) => {}
        }
    }

    /// Set every place to the value of its name, or none.
    pub fn load(&self, state: &[(String, Tensor)], strict: bool) -> Result<Loaded> {
        let mut given: HashMap<&str, &Tensor> = HashMap::with_capacity(state.len());
        let mut faults = Vec::new();
        for (name, value) in state {
            if given.insert(name, value).is_some() {
                faults.push(format!("twice: {name}"));
            }
        }
        let known: HashSet<&str> = self.places.iter().map(|(name, _)| name.as_str()).collect();
        let mut loaded = Loaded::default();
        let mut fitting = Vec::new();
        for (name, place) in &self.places {
            match given.get(name.as_str()) {
                None => loaded.missing.push(name.clone()),
                Some(value) if fits(place.meta(), value.meta()) => fitting.push((name, place, *value)),
                Some(value) => faults.push(format!("of another shape: {name} is {}, the module has {}", value.meta(), place.meta())),
            }
        }
        let strangers = state.iter().filter(|(name, _)| !known.contains(name.as_str()) && !self.foreign.contains(name));
        loaded.unexpected.extend(strangers.map(|(name, _)| name.clone()));
        if strict {
            let missing = |name: &String| format!("missing: {name}{}", near(name, loaded.unexpected.iter()));
            let unexpected = |name: &String| format!("unexpected: {name}{}", near(name, loaded.missing.iter()));
            faults.extend(loaded.missing.iter().map(missing));
            faults.extend(loaded.unexpected.iter().map(unexpected));
        }
        if !faults.is_empty() {
            return Err(Error::invalid(format!("load_state_dict: the values do not fit the module\n  {}", faults.join("\n  "))));
        }
        // What can fail (memory, a lost device) is done for all before the first place changes.
        let ready = |(name, place, value): (&String, &'_ Place, &Tensor)| -> Result<Tensor> {
            let value = value.detach().to_device(&place.device())?.try_to_dtype(place.meta().dtype)?;
            value.materialize().map_err(|e| e.context(name))?;
            Ok(value)
        };
        let values = fitting.iter().map(|&f| ready(f)).collect::<Result<Vec<_>>>()?;
        for ((_, place, _), value) in fitting.iter().zip(&values) {
            place.set(value)?;
        }
        Ok(loaded)
    }
}

/// Floats convert into one another; everything else must be the same.
fn fits(place: &Meta, value: &Meta) -> bool {
    place.shape == value.shape && (place.dtype == value.dtype || (place.dtype.is_float() && value.dtype.is_float()))
}

/// The nearest of the names on the other side, in words.
fn near<'a>(name: &str, others: impl Iterator<Item = &'a String>) -> String {
    nearest(name, others.map(String::as_str)).map_or(String::new(), |other| format!(" (is it {other}?)"))
}

/// Write a module's parameters and buffers to a safetensors file, under PyTorch's names. The file is whole or not there: it is written beside its place and
/// then moved. Equal values give identical bytes.
///
/// # Errors
/// Where the values cannot be read from the device, or the file cannot be written.
pub fn save(module: &dyn Module, path: impl AsRef<Path>) -> Result<()> {
    save_with(module, path, BTreeMap::new())
}

/// [`save`], with texts for the file's metadata.
pub fn save_with(module: &dyn Module, path: impl AsRef<Path>, metadata: BTreeMap<String, String>) -> Result<()> {
    let entry = |(name, value): (String, Tensor)| Ok(Entry { name, meta: *value.meta(), data: value.to_data()? });
    let tensors = module.state_dict().into_iter().map(entry).collect::<Result<_>>()?;
    let path = path.as_ref();
    files::replace(path, &safetensors::write(&File { tensors, metadata })?).map_err(|e| Error::from(e).context(path.display()))
}

/// Load a module's parameters and buffers from a safetensors file. Where `strict`, the file must hold exactly the module's names. Nothing changes unless
/// everything fits.
///
/// # Errors
/// Where the file cannot be read, is not a safetensors file, or does not fit; the message has the path.
pub fn load(module: &dyn Module, path: impl AsRef<Path>, strict: bool) -> Result<Loaded> {
    let path = path.as_ref();
    let at = |e: Error| e.context(path.display());
    let bytes = std::fs::read(path).map_err(|e| at(e.into()))?;
    let file = safetensors::read(&bytes).map_err(at)?;
    // Each value goes straight to where the module lives; a module without state takes any device.
    let Some((_, first)) = module.state_dict().into_iter().next() else {
        return module.load_state_dict(&[], strict);
    };
    let value = |e: Entry| {
        // A GPU holds no f64, and what takes a float takes it rounded.
        let data = if first.device().is_gpu() && e.meta.dtype == DType::F64 { Data::from_f64(DType::F32, &e.data.to_f64()) } else { e.data };
        Ok((e.name, Tensor::new(data, e.meta.shape, first.device())?))
    };
    let state = file.tensors.into_iter().map(value).collect::<Result<Vec<_>>>().map_err(at)?;
    module.load_state_dict(&state, strict).map_err(at)
}
