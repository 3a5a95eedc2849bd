//! The LAYERS table: what each layer is called, its settings, and how it is built from them.

use super::{Attr, Attrs, Module};
use crate::device::Device;
use crate::error::{Error, Result, nearest};
use crate::ops::Generator;
use crate::tensor::Meta;
use std::sync::Arc;

/// A layer that a config can name.
#[derive(Debug)]
pub struct LayerEntry {
    /// PyTorch's name in lower snake case: `conv2d`.
    pub name: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
    /// Its settings, under PyTorch's names.
    pub keys: &'static [Key],
    /// Makes it. Called with settings whose names are all in `keys`.
    pub(crate) build: fn(&Spec<'_>) -> Result<Box<dyn Module>>,
}

/// A setting of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What holds where it is not given.
    pub default: KeyDefault,
}

/// What holds where a setting is not given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyDefault {
    /// It has to be.
    Required,
    /// What the layers before give: `in_features`.
    Inferred,
    /// What another setting has: a pool's stride is its `kernel_size`.
    Same(&'static str),
    /// This number.
    Number(f64),
    /// This truth value.
    Bool(bool),
    /// This text.
    Text(&'static str),
}

/// A key in short, for the tables in the layers' files.
pub(crate) const fn key(name: &'static str, default: KeyDefault) -> Key {
    Key { name, default }
}

/// Every layer.
pub fn all_layers() -> impl Iterator<Item = &'static LayerEntry> {
    super::layers::TABLES.iter().copied().flatten()
}

/// The layer of that name.
///
/// # Errors
/// Where there is none; the help line has the nearest.
pub fn layer(name: &str) -> Result<&'static LayerEntry> {
    all_layers().find(|l| l.name == name).ok_or_else(|| {
        let help = match nearest(name, all_layers().map(|l| l.name)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("layers are {}", all_layers().map(|l| l.name).collect::<Vec<_>>().join(", ")),
        };
        Error::invalid(format!("unknown layer {name:?}")).help(help)
    })
}

impl LayerEntry {
    /// The layer with these settings, for an `input` with a batch of any size. What its input decides (`in_features`) need not be given.
    ///
    /// # Errors
    /// Settings that are unknown, missing or not valid, and memory.
    pub fn build(&self, attrs: &Attrs, input: &Meta, generator: &Arc<Generator>, device: &Device) -> Result<Box<dyn Module>> {
        for (name, _) in attrs.iter() {
            if self.keys.iter().all(|k| k.name != name) {
                let valid: Vec<&str> = self.keys.iter().map(|k| k.name).collect();
                let help = match nearest(name, valid.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None if valid.is_empty() => format!("{} has no settings", self.name),
                    None => format!("{} has {}", self.name, valid.join(", ")),
                };
                return Err(Error::invalid(format!("unknown key {name:?}")).help(help));
            }
        }
        (self.build)(&Spec { entry: self, attrs, input, generator, device })
    }
}

/// What a layer is built from: its settings with defaults, and its surroundings.
pub(crate) struct Spec<'a> {
    entry: &'a LayerEntry,
    attrs: &'a Attrs,
    pub input: &'a Meta,
    pub generator: &'a Arc<Generator>,
    pub device: &'a Device,
}

/// Above this, a size is a mistake, and arithmetic with it might overflow.
const LARGEST: f64 = i32::MAX as f64;

impl Spec<'_> {
    fn get(&self, name: &str) -> Result<Option<Attr>> {
        if let Some(given) = self.attrs.get(name) {
            return Ok(Some(given.clone()));
        }
        let key = self.entry.keys.iter().find(|k| k.name == name);
        Ok(Some(match key.map(|k| k.default) {
            Some(KeyDefault::Number(n)) => Attr::Number(n),
            Some(KeyDefault::Bool(b)) => Attr::Bool(b),
            Some(KeyDefault::Text(t)) => Attr::Text(t.into()),
            Some(KeyDefault::Same(other)) => return self.get(other),
            Some(KeyDefault::Inferred) => return Ok(None),
            Some(KeyDefault::Required) => return Err(Error::invalid(format!("{name} is missing"))),
            None => return Err(Error::internal(format!("{}: {name} is not among its keys", self.entry.name))),
        }))
    }

    fn refuse<T>(&self, name: &str, attr: Option<&Attr>, want: &str) -> Result<T> {
        let got = attr.map_or_else(|| "not given".to_string(), Attr::to_string);
        Err(Error::invalid(format!("{name} must be {want}: {got}")))
    }

    /// A whole number in `low..`, or `None` where it is left to be inferred.
    pub fn size_or_inferred(&self, name: &str, low: usize) -> Result<Option<usize>> {
        match self.get(name)? {
            None => Ok(None),
            Some(Attr::Number(n)) if n.fract() == 0.0 && n >= low as f64 && n <= LARGEST => Ok(Some(n as usize)),
            other => self.refuse(name, other.as_ref(), &format!("a whole number from {low} on")),
        }
    }

    /// A whole number in `low..`.
    pub fn size(&self, name: &str, low: usize) -> Result<usize> {
        self.size_or_inferred(name, low)?.ok_or_else(|| Error::invalid(format!("{name} is missing")))
    }

    /// One whole number in `low..` for both dimensions, or one for each.
    pub fn pair(&self, name: &str, low: usize) -> Result<[usize; 2]> {
        let valid = |n: f64| n.fract() == 0.0 && n >= low as f64 && n <= LARGEST;
        match self.get(name)? {
            Some(Attr::Number(n)) if valid(n) => Ok([n as usize; 2]),
            Some(Attr::List(l)) if l.len() == 2 && l.iter().all(|&n| valid(n)) => Ok([l[0] as usize, l[1] as usize]),
            other => self.refuse(name, other.as_ref(), &format!("a whole number from {low} on, or two")),
        }
    }

    /// A dimension, which may count from the back.
    pub fn dim(&self, name: &str) -> Result<isize> {
        match self.get(name)? {
            Some(Attr::Number(n)) if n.fract() == 0.0 && n.abs() <= LARGEST => Ok(n as isize),
            other => self.refuse(name, other.as_ref(), "a whole number"),
        }
    }

    /// A finite number.
    pub fn float(&self, name: &str) -> Result<f64> {
        match self.get(name)? {
            Some(Attr::Number(n)) if n.is_finite() => Ok(n),
            other => self.refuse(name, other.as_ref(), "a number"),
        }
    }

    /// A truth value.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name)? {
            Some(Attr::Bool(b)) => Ok(b),
            other => self.refuse(name, other.as_ref(), "true or false"),
        }
    }

    /// One of these texts.
    pub fn choice(&self, name: &str, valid: &[&'static str]) -> Result<&'static str> {
        let attr = self.get(name)?;
        match attr.as_ref().and_then(|a| valid.iter().find(|v| matches!(a, Attr::Text(t) if t == *v))) {
            Some(found) => Ok(found),
            None => self.refuse(name, attr.as_ref(), &format!("one of {}", valid.join(", "))),
        }
    }
}
