//! The config of a training run: what the file says, checked, with every default filled in.

use super::paths;
use super::section::{Section, set};
use crate::data::Augment;
use crate::error::{Error, Result};
use crate::optim::GradScalerOptions;
use crate::train::{Precision, Schedule, TrainOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use toml::{Table, Value};

/// A training run as its config describes it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, for messages.
    pub file: PathBuf,
    /// What its run folder is called.
    pub name: String,
    pub data: DataConfig,
    pub split: SplitConfig,
    /// The layers, each with its kind and settings.
    pub layers: Vec<Table>,
    pub train: TrainConfig,
}

/// Where the samples are and what they look like.
#[derive(Clone, Debug)]
pub struct DataConfig {
    pub format: Format,
    /// The CSV file, or the images of an IDX pair.
    pub path: PathBuf,
    /// The labels of an IDX pair.
    pub labels: Option<PathBuf>,
    /// Samples to judge by that have files of their own, in the same form.
    pub test_path: Option<PathBuf>,
    pub test_labels: Option<PathBuf>,
    /// The column of labels in a CSV file.
    pub label: String,
    /// The columns of features in a CSV file; all but the label where `None`.
    pub features: Option<Vec<String>>,
    /// How many classes there are; as many as the labels show where `None`.
    pub classes: Option<usize>,
    /// The shape of a sample; as the file gives it where `None`.
    pub shape: Option<Vec<usize>>,
    /// What every feature is multiplied with.
    pub scale: f64,
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    Idx,
}

/// Which fractions of the samples are for what.
#[derive(Clone, Copy, Debug)]
pub struct SplitConfig {
    /// Of all samples.
    pub test: f64,
    /// Of those that are not for the test.
    pub validation: f64,
}

/// How the model is trained.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    pub seed: u64,
    pub epochs: usize,
    pub batch_size: usize,
    pub learning_rate: f64,
    pub optimizer: OptimizerKind,
    pub momentum: f64,
    pub weight_decay: f64,
    pub schedule: String,
    pub warmup: Option<f64>,
    pub label_smoothing: f64,
    pub augment: Augment,
    pub precision: Precision,
}

/// The optimizers, by PyTorch's names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerKind {
    Sgd,
    Adam,
    AdamW,
}

/// Names and values of a choice.
type Choice<T> = &'static [(&'static str, T)];

const FORMATS: Choice<Format> = &[("csv", Format::Csv), ("idx", Format::Idx)];
const OPTIMIZERS: Choice<OptimizerKind> = &[("sgd", OptimizerKind::Sgd), ("adam", OptimizerKind::Adam), ("adamw", OptimizerKind::AdamW)];

/// Whether in mixed precision.
const PRECISIONS: Choice<bool> = &[("f32", false), ("mixed", true)];

fn choose<T: Copy>(section: &Section<'_>, key: &str, choices: Choice<T>, default: T) -> Result<T> {
    let Some(text) = section.text(key)? else { return Ok(default) };
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let e = section.wrong(key, &format!("one of {}", names.join(", ")), text);
        match crate::error::nearest(text, names) {
            Some(near) => e.help(format!("did you mean {near}?")),
            None => e,
        }
    })
}

fn name_of<T: PartialEq>(choices: Choice<T>, value: &T) -> String {
    choices.iter().find(|(_, v)| v == value).map_or(String::new(), |(name, _)| name.to_string())
}

impl Config {
    /// Read a config file, put the `--set` values in it, and check it. Messages begin with the file.
    pub fn load(path: &Path, sets: &[String]) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("cannot read {}: {e}", path.display())))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut table: Table = text.parse().map_err(|e| syntax(path, text, &e))?;
        sets.iter().try_for_each(|s| set(&mut table, s))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        Config::from_table(&table, path, folder, &stem).map_err(|e| e.context(path.display()))
    }

    /// The config in a table: from `file`, its paths relative to `folder`, called `stem` where it does not name itself.
    fn from_table(table: &Table, file: &Path, folder: &Path, stem: &str) -> Result<Config> {
        let top = Section::new("", table, &["name", "data", "split", "model", "train"])?;
        let name = top.text("name")?.unwrap_or(stem).to_string();
        paths::check_name(&name).map_err(|e| e.context("name"))?;
        let need = |key: &str| top.table(key)?.ok_or_else(|| Error::invalid(format!("there is no [{key}] section")));
        let empty = Table::new();
        let data = DataConfig::read(need("data")?, folder)?;
        let split = SplitConfig::read(top.table("split")?.unwrap_or(&empty), data.test_path.is_some())?;
        let model = Section::new("model", need("model")?, &["layers"])?;
        let layers: Vec<Table> = model.tables("layers")?.unwrap_or_default().into_iter().cloned().collect();
        if layers.is_empty() {
            return Err(Error::invalid("model.layers: there is no layer"));
        }
        let train = TrainConfig::read(top.table("train")?.unwrap_or(&empty))?;
        Ok(Config { file: file.to_path_buf(), name, data, split, layers, train })
    }

    /// The config as TOML, every default written out, its paths relative to `folder`.
    pub fn resolved(&self, folder: &Path) -> Result<String> {
        let mut top = Table::new();
        top.insert("name".into(), self.name.clone().into());
        top.insert("data".into(), self.data.resolved(folder)?.into());
        top.insert("split".into(), table([("test", self.split.test.into()), ("validation", self.split.validation.into())]).into());
        top.insert("model".into(), table([("layers", self.layers.clone().into())]).into());
        top.insert("train".into(), self.train.resolved().into());
        toml::to_string(&top).map_err(|e| Error::internal(format!("the resolved config does not write: {e}")))
    }
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
}

/// A whole number as TOML holds it; the checks let no larger one in.
fn whole(n: u64) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

/// What is wrong with the text of a config, with its line.
fn syntax(path: &Path, text: &str, e: &toml::de::Error) -> Error {
    let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
    Error::invalid(format!("{}: line {line}: {}", path.display(), e.message().trim_end()))
}

impl DataConfig {
    fn read(table: &Table, folder: &Path) -> Result<DataConfig> {
        let keys = ["format", "path", "labels", "test_path", "test_labels", "label", "features", "classes", "shape", "scale"];
        let s = Section::new("data", table, &keys)?;
        let format = choose(&s, "format", FORMATS, Format::Csv)?;
        let file = |key: &str| Ok::<_, Error>(s.text(key)?.map(|p| folder.join(p)));
        let foreign: &[&str] = if format == Format::Csv { &["labels", "test_labels"] } else { &["label", "features"] };
        if let Some(key) = foreign.iter().find(|k| s.has(k)) {
            return Err(Error::invalid(format!("data.{key}: has no meaning with format = \"{}\"", name_of(FORMATS, &format))));
        }
        let data = DataConfig {
            format,
            path: folder.join(s.required_text("path")?),
            labels: file("labels")?,
            test_path: file("test_path")?,
            test_labels: file("test_labels")?,
            label: s.text("label")?.unwrap_or("label").to_string(),
            features: s.texts("features")?,
            classes: s.count("classes", 2)?,
            shape: s.sizes("shape")?,
            scale: s.number("scale", f64::MIN, f64::MAX)?.unwrap_or(1.0),
        };
        if format == Format::Idx && (data.labels.is_none() || data.test_path.is_some() != data.test_labels.is_some()) {
            return Err(Error::invalid("data: images come with labels: each of path and test_path needs its labels, test_labels"));
        }
        Ok(data)
    }

    fn resolved(&self, folder: &Path) -> Result<Table> {
        let mut t =
            table([("format", name_of(FORMATS, &self.format).into()), ("path", paths::relative(&self.path, folder)?.into()), ("scale", self.scale.into())]);
        for (key, path) in [("labels", &self.labels), ("test_path", &self.test_path), ("test_labels", &self.test_labels)] {
            if let Some(path) = path {
                t.insert(key.into(), paths::relative(path, folder)?.into());
            }
        }
        if self.format == Format::Csv {
            t.insert("label".into(), self.label.clone().into());
        }
        if let Some(features) = &self.features {
            t.insert("features".into(), features.clone().into());
        }
        if let Some(classes) = self.classes {
            t.insert("classes".into(), whole(classes as u64));
        }
        if let Some(shape) = &self.shape {
            t.insert("shape".into(), shape.iter().map(|&n| whole(n as u64)).collect::<Vec<_>>().into());
        }
        Ok(t)
    }
}

impl SplitConfig {
    fn read(table: &Table, own_test: bool) -> Result<SplitConfig> {
        let s = Section::new("split", table, &["test", "validation"])?;
        let test = s.number("test", 0.0, 1.0)?.unwrap_or(if own_test { 0.0 } else { 0.2 });
        if own_test && test > 0.0 {
            return Err(Error::invalid(format!("split.test: must be 0 where data.test_path gives the test samples: {test}")));
        }
        Ok(SplitConfig { test, validation: s.number("validation", 0.0, 1.0)?.unwrap_or(0.1) })
    }
}

impl TrainConfig {
    fn read(table: &Table) -> Result<TrainConfig> {
        let mut keys = vec!["seed", "epochs", "batch_size", "learning_rate", "optimizer", "momentum", "weight_decay", "schedule", "warmup"];
        keys.extend(["label_smoothing", "augment", "precision", "loss_scale"]);
        let s = Section::new("train", table, &keys)?;
        let optimizer = choose(&s, "optimizer", OPTIMIZERS, OptimizerKind::AdamW)?;
        if s.has("momentum") && optimizer != OptimizerKind::Sgd {
            return Err(Error::invalid(format!("train.momentum: has no meaning with optimizer = \"{}\"", name_of(OPTIMIZERS, &optimizer))));
        }
        let seed = s.whole("seed", 0)?.unwrap_or(0);
        let train = TrainConfig {
            seed,
            epochs: s.count("epochs", 1)?.unwrap_or(10),
            batch_size: s.count("batch_size", 1)?.unwrap_or(32),
            learning_rate: s.number("learning_rate", 0.0, f64::MAX)?.unwrap_or(1e-3),
            optimizer,
            momentum: s.number("momentum", 0.0, 1.0)?.unwrap_or(0.0),
            weight_decay: s.number("weight_decay", 0.0, f64::MAX)?.unwrap_or(if optimizer == OptimizerKind::AdamW { 1e-2 } else { 0.0 }),
            schedule: s.text("schedule")?.unwrap_or("constant").to_string(),
            warmup: s.number("warmup", 0.0, 1.0)?,
            label_smoothing: s.number("label_smoothing", 0.0, 1.0)?.unwrap_or(0.0),
            augment: augment(s.table("augment")?)?,
            precision: precision(&s)?,
        };
        train.schedule().map_err(|e| e.context("train"))?;
        Ok(train)
    }

    /// The schedule that the config names.
    fn schedule(&self) -> Result<Schedule> {
        Schedule::named(&self.schedule, self.warmup)
    }

    /// What the training loop is told.
    pub fn options(&self, cancel: Option<Arc<AtomicBool>>) -> Result<TrainOptions> {
        Ok(TrainOptions {
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            schedule: self.schedule()?,
            seed: self.seed,
            augment: self.augment.clone(),
            label_smoothing: self.label_smoothing,
            precision: self.precision,
            cancel,
        })
    }

    fn resolved(&self) -> Table {
        let mut t = table([
            ("seed", whole(self.seed)),
            ("epochs", whole(self.epochs as u64)),
            ("batch_size", whole(self.batch_size as u64)),
            ("learning_rate", self.learning_rate.into()),
            ("optimizer", name_of(OPTIMIZERS, &self.optimizer).into()),
            ("weight_decay", self.weight_decay.into()),
            ("schedule", self.schedule.clone().into()),
            ("label_smoothing", self.label_smoothing.into()),
            ("precision", name_of(PRECISIONS, &(self.precision != Precision::F32)).into()),
        ]);
        if let Precision::Mixed(options) = self.precision {
            t.insert("loss_scale".into(), options.init_scale.into());
        }
        if self.optimizer == OptimizerKind::Sgd {
            t.insert("momentum".into(), self.momentum.into());
        }
        if let Some(warmup) = self.warmup {
            t.insert("warmup".into(), warmup.into());
        }
        if !self.augment.is_none() {
            let a = &self.augment;
            let float = |v: f32| Value::Float(v.to_string().parse().unwrap_or(f64::from(v)));
            let augment = table([("shift", whole(a.shift as u64)), ("rotate", float(a.rotate)), ("scale", float(a.scale)), ("noise", float(a.noise))]);
            t.insert("augment".into(), augment.into());
        }
        t
    }
}

fn precision(s: &Section<'_>) -> Result<Precision> {
    let mixed = choose(s, "precision", PRECISIONS, false)?;
    if !mixed && s.has("loss_scale") {
        return Err(Error::invalid("train.loss_scale: has no meaning with precision = \"f32\"").help("add train.precision = \"mixed\""));
    }
    if !mixed {
        return Ok(Precision::F32);
    }
    let usual = GradScalerOptions::default();
    let init_scale = s.number("loss_scale", 0.0, f64::MAX)?.unwrap_or(usual.init_scale);
    let options = GradScalerOptions { init_scale, ..usual };
    options.check().map_err(|e| e.context("train.loss_scale"))?;
    Ok(Precision::Mixed(options))
}

fn augment(table: Option<&Table>) -> Result<Augment> {
    let Some(table) = table else { return Ok(Augment::default()) };
    let s = Section::new("train.augment", table, &["shift", "rotate", "scale", "noise"])?;
    let number = |key: &str| Ok::<_, Error>(s.number(key, 0.0, f64::MAX)?.unwrap_or(0.0) as f32);
    let augment = Augment { shift: s.count("shift", 0)?.unwrap_or(0), rotate: number("rotate")?, scale: number("scale")?, noise: number("noise")? };
    augment.check().map_err(|e| e.context("train"))?;
    Ok(augment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "[data]\npath = \"d.csv\"\n[model]\nlayers = [{ kind = \"flatten\" }]\n";

    fn read(text: &str) -> Result<Config> {
        Config::from_table(&text.parse().unwrap(), Path::new("small.toml"), Path::new("."), "small")
    }

    #[test]
    fn defaults_are_filled_in_and_written_out() {
        let config = read(SMALL).unwrap();
        assert_eq!((config.name.as_str(), config.train.epochs, config.train.batch_size), ("small", 10, 32));
        let text = config.resolved(Path::new(".")).unwrap();
        let again = read(&text).unwrap();
        assert_eq!(again.resolved(Path::new(".")).unwrap(), text);
        assert_eq!((again.train.optimizer, again.train.precision), (OptimizerKind::AdamW, Precision::F32));
    }

    #[test]
    fn every_value_survives_resolving() {
        let text = format!(
            "name = \"x\"\n{SMALL}[train]\nseed = 7\noptimizer = \"sgd\"\nmomentum = 0.9\nschedule = \"one_cycle\"\nwarmup = 0.2\naugment = {{ shift = 1, rotate = 12.5, scale = 0.1 }}\n[split]\ntest = 0.3\n"
        );
        let resolved: Table = read(&text).unwrap().resolved(Path::new(".")).unwrap().parse().unwrap();
        let train = resolved["train"].as_table().unwrap();
        assert_eq!((train["momentum"].as_float(), train["warmup"].as_float()), (Some(0.9), Some(0.2)));
        assert_eq!(train["augment"]["scale"].as_float(), Some(0.1));
        assert_eq!(resolved["split"]["test"].as_float(), Some(0.3));
    }

    #[test]
    fn mixed_precision_is_one_line() {
        let config = read(&format!("{SMALL}[train]\nprecision = \"mixed\"")).unwrap();
        assert_eq!(config.train.options(None).unwrap().precision, Precision::Mixed(GradScalerOptions::default()));
        let text = config.resolved(Path::new(".")).unwrap();
        assert_eq!(read(&text).unwrap().train.precision, config.train.precision);
        let scaled = read(&format!("{SMALL}[train]\nprecision = \"mixed\"\nloss_scale = 8")).unwrap().train.precision;
        assert!(matches!(scaled, Precision::Mixed(GradScalerOptions { init_scale: 8.0, .. })));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let message = |text: &str| read(&format!("{SMALL}{text}")).unwrap_err().to_string();
        assert_eq!(message("[train]\nepoch = 3"), "train.epoch: there is no such key\nhelp: did you mean train.epochs?");
        assert_eq!(message("[train]\noptimizer = \"adamm\""), "train.optimizer: must be one of sgd, adam, adamw: adamm\nhelp: did you mean adam?");
        assert_eq!(message("[train]\nmomentum = 0.9"), "train.momentum: has no meaning with optimizer = \"adamw\"");
        assert_eq!(message("[train]\nprecision = \"mixd\""), "train.precision: must be one of f32, mixed: mixd\nhelp: did you mean mixed?");
        let no_meaning = "train.loss_scale: has no meaning with precision = \"f32\"\nhelp: add train.precision = \"mixed\"";
        assert_eq!(message("[train]\nloss_scale = 4"), no_meaning);
        assert!(message("[train]\nprecision = \"mixed\"\nloss_scale = 0").starts_with("train.loss_scale: grad_scaler: init_scale must be above 0"));
        assert!(message("[train]\nschedule = \"cosin\"").starts_with("train: schedule: there is no schedule cosin"));
        assert!(message("[train]\naugment = { scale = 2 }").starts_with("train: augment: scale must be from 0 to 0.9: 2"));
        assert_eq!(read("").unwrap_err().message(), "there is no [data] section");
        assert!(read("name = \"a/b\"\n").unwrap_err().message().starts_with("name: "));
    }
}
