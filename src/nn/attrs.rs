//! Settings of layers by name, as they come from a config or a file.

use std::collections::BTreeMap;
use std::fmt;

/// The value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// A number; sizes are whole numbers.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// Numbers: one for each dimension.
    List(Vec<f64>),
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Number(n) => write!(f, "{n}"),
            Attr::Bool(b) => write!(f, "{b}"),
            Attr::Text(t) => write!(f, "{t:?}"),
            Attr::List(l) => write!(f, "{l:?}"),
        }
    }
}

macro_rules! from {
    ($($t:ty => |$v:ident| $value:expr),* $(,)?) => {$(
        impl From<$t> for Attr {
            fn from($v: $t) -> Attr {
                $value
            }
        }
    )*};
}
from! {
    f64 => |v| Attr::Number(v),
    i32 => |v| Attr::Number(v.into()),
    usize => |v| Attr::Number(v as f64),
    bool => |v| Attr::Bool(v),
    &str => |v| Attr::Text(v.into()),
    String => |v| Attr::Text(v),
    Vec<f64> => |v| Attr::List(v),
    [usize; 2] => |v| Attr::List(v.map(|n| n as f64).into()),
}

/// The settings of one layer.
///
/// ```
/// use wgrad::nn::Attrs;
/// let conv = Attrs::new().with("out_channels", 32).with("kernel_size", 3).with("bias", false);
/// assert_eq!(conv.to_string(), "bias = false, kernel_size = 3, out_channels = 32");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs(BTreeMap<String, Attr>);

impl Attrs {
    /// None.
    pub fn new() -> Attrs {
        Attrs::default()
    }

    /// These, and `name` set to `value`.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Attr>) -> Attrs {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The setting of that name.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.get(name)
    }

    /// All, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl FromIterator<(String, Attr)> for Attrs {
    fn from_iter<I: IntoIterator<Item = (String, Attr)>>(settings: I) -> Attrs {
        Attrs(settings.into_iter().collect())
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{name} = {value}")?;
        }
        Ok(())
    }
}
