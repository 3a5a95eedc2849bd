//! One table of a config, read key by key: every message names the key, and a key that does not exist is refused with the nearest that does.

use crate::error::{Error, Result, nearest};
use toml::{Table, Value};

/// A table with the path by which messages name it.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    path: &'a str,
    table: &'a Table,
}

impl<'a> Section<'a> {
    /// The table at `path` (empty: the whole file), whose keys are all among `keys`.
    pub fn new(path: &'a str, table: &'a Table, keys: &[&str]) -> Result<Section<'a>> {
        let section = Section { path, table };
        match table.keys().find(|k| !keys.contains(&k.as_str())) {
            None => Ok(section),
            Some(key) => {
                let help = match nearest(key, keys.iter().copied()) {
                    Some(near) => format!("did you mean {}?", section.name(near)),
                    None => format!("the keys here are {}", keys.join(", ")),
                };
                Err(Error::invalid(format!("{}: there is no such key", section.name(key))).help(help))
            }
        }
    }

    /// The key's full name: `train.epochs`.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// An error about the value of `key`: what it must be, and what it is.
    pub fn wrong(&self, key: &str, must: &str, value: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: must be {must}: {value}", self.name(key)))
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get<T>(&self, key: &str, must: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, must, value)),
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a text in quotes", Value::as_str)
    }

    /// A text that must be there.
    pub fn required_text(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| Error::invalid(format!("{}: is missing", self.name(key))))
    }

    /// A whole number of at least `least`.
    pub fn whole(&self, key: &str, least: u64) -> Result<Option<u64>> {
        self.get(key, &format!("a whole number of at least {least}"), |v| v.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| *n >= least))
    }

    /// A whole number of at least `least` that counts things in memory.
    pub fn count(&self, key: &str, least: usize) -> Result<Option<usize>> {
        let whole = self.whole(key, least as u64)?;
        whole.map(|n| usize::try_from(n).map_err(|_| self.wrong(key, "a number that this machine can count to", n))).transpose()
    }

    /// A finite number in `low..=high`.
    pub fn number(&self, key: &str, low: f64, high: f64) -> Result<Option<f64>> {
        let must = match (low, high) {
            (f64::MIN, f64::MAX) => "a number".to_string(),
            (low, f64::MAX) => format!("a number of at least {low}"),
            (low, high) => format!("a number from {low} to {high}"),
        };
        self.get(key, &must, |v| v.as_float().or_else(|| v.as_integer().map(|n| n as f64)).filter(|n| (low..=high).contains(n)))
    }

    /// A table within.
    pub fn table(&self, key: &str) -> Result<Option<&'a Table>> {
        self.get(key, "a table", Value::as_table)
    }

    /// A list of sizes of at least 1.
    pub fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let size = |v: &Value| v.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        self.get(key, "a list of sizes, such as [1, 8, 8]", |v| v.as_array()?.iter().map(size).collect())
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.get(key, "a list of texts", |v| v.as_array()?.iter().map(|t| t.as_str().map(str::to_string)).collect())
    }

    /// A list of tables.
    pub fn tables(&self, key: &str) -> Result<Option<Vec<&'a Table>>> {
        self.get(key, "a list of tables, such as [{ kind = \"flatten\" }]", |v| v.as_array()?.iter().map(Value::as_table).collect())
    }
}

/// Put `value` at the dotted `key` of `table`, as `--set` asks: what reads as TOML is that value, everything else a text.
pub fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let wrong = |why: &str| Error::invalid(format!("--set {assignment}: {why}")).help("write it as key=value, such as train.seed=3");
    let (key, text) = assignment.split_once('=').ok_or_else(|| wrong("there is no ="))?;
    let (key, text) = (key.trim(), text.trim());
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(text.to_string()));
    let parts: Vec<&str> = key.split('.').collect();
    if parts.iter().any(|p| p.is_empty()) {
        return Err(wrong("the key is not whole"));
    }
    let mut place = table;
    for (n, part) in parts[..parts.len() - 1].iter().enumerate() {
        let inner = place.entry(part.to_string()).or_insert_with(|| Value::Table(Table::new()));
        place = inner.as_table_mut().ok_or_else(|| wrong(&format!("{} is no table", parts[..=n].join("."))))?;
    }
    place.insert(parts[parts.len() - 1].to_string(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let t = table("epoch = 3");
        let e = Section::new("train", &t, &["epochs", "seed"]).unwrap_err();
        assert_eq!(e.message(), "train.epoch: there is no such key\nhelp: did you mean train.epochs?");
        let e = Section::new("", &table("whatever_it_is = 3"), &["data", "train"]).unwrap_err();
        assert_eq!(e.message(), "whatever_it_is: there is no such key\nhelp: the keys here are data, train");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key() {
        let t = table("epochs = -3\nrate = \"fast\"\nshape = [1, 0]");
        let s = Section::new("train", &t, &["epochs", "rate", "shape"]).unwrap();
        assert_eq!(s.count("epochs", 1).unwrap_err().message(), "train.epochs: must be a whole number of at least 1: -3");
        assert_eq!(s.number("rate", 0.0, f64::MAX).unwrap_err().message(), "train.rate: must be a number of at least 0: \"fast\"");
        assert!(s.sizes("shape").unwrap_err().message().starts_with("train.shape: must be a list of sizes"));
        assert_eq!(s.required_text("optimizer").unwrap_err().message(), "train.optimizer: is missing");
    }

    #[test]
    fn set_overrides_any_key() {
        let mut t = table("[train]\nseed = 1");
        for assignment in ["train.seed=3", "train.optimizer = sgd", "train.augment.shift=1", "data.shape=[1, 8, 8]", "name=a=b"] {
            set(&mut t, assignment).unwrap();
        }
        assert_eq!(t, table("name = \"a=b\"\n[train]\nseed = 3\noptimizer = \"sgd\"\naugment = { shift = 1 }\n[data]\nshape = [1, 8, 8]"));
        assert!(set(&mut t, "train.seed").unwrap_err().message().starts_with("--set train.seed: there is no ="));
        assert!(set(&mut t, "train.seed.x=1").unwrap_err().message().contains("train.seed is no table"));
        assert!(set(&mut t, "train..x=1").is_err());
    }
}
