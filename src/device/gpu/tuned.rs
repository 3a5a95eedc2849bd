//! Files of tuned choices: one adapter's with one driver, as JSON, made by `wgrad tune-kernels` and taken up when a device opens.

use super::disk::hash;
use super::{AdapterInfo, GpuOptions};
use crate::device::choices::Choices;
use crate::error::{Error, Result};
use crate::{env, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file says it is; the number is that of its form.
const SCHEMA: &str = "wgrad-tuned-1";

/// Where a device finds its tuned choices.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Tuned {
    /// Nowhere: the rules hold.
    Off,
    /// Beside the compiled pipelines, where there is a file for the adapter and its driver.
    #[default]
    Beside,
    /// In this file, which must be for the adapter and its driver.
    File(PathBuf),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: String,
    /// The version that made it, for a reader.
    wgrad: String,
    adapter: String,
    backend: String,
    driver: String,
    /// What is chosen, for which sizes, and what.
    choices: Vec<[String; 3]>,
}

impl Tuned {
    /// What WGRAD_TUNED says.
    pub(super) fn from_env() -> Result<Tuned> {
        Ok(match env::text("WGRAD_TUNED")? {
            Some(word) if word.eq_ignore_ascii_case("off") => Tuned::Off,
            Some(file) => Tuned::File(file.into()),
            None => Tuned::Beside,
        })
    }
}

/// The file of an adapter in a folder of compiled pipelines. Another version of a driver has another file.
pub fn tuned_path(info: &AdapterInfo, folder: &Path) -> PathBuf {
    let key = hash([info.name.as_bytes(), info.backend.as_bytes(), info.driver.as_bytes()]);
    folder.join(format!("tuned-{}-{key:016x}.json", info.short_name()))
}

/// The choices of a file for this adapter and its driver.
///
/// # Errors
/// A file that cannot be read, or is for another adapter, driver or schema, which names both; a choice that does not exist.
pub fn read_tuned(path: &Path, info: &AdapterInfo) -> Result<Choices> {
    let read = || {
        let text = std::fs::read_to_string(path)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::invalid(format!("not a file of them: {e}")))?;
        let schema = value.get("schema").and_then(serde_json::Value::as_str).unwrap_or("none");
        let same = |what: &str, there: &str, here: &str| {
            if there == here { Ok(()) } else { Err(Error::invalid(format!("for {what} {there}, and here it is {here}"))) }
        };
        same("schema", schema, SCHEMA)?;
        let file: File = serde_json::from_value(value).map_err(|e| Error::invalid(format!("not a file of them: {e}")))?;
        same("adapter", &file.adapter, &info.name)?;
        same("backend", &file.backend, info.backend)?;
        same("driver", &file.driver, &info.driver)?;
        Choices::from_lines(&file.choices)
    };
    read().map_err(|e: Error| e.context(format_args!("tuned choices {}", path.display())))
}

/// Write the choices made for this adapter and its driver: whole, or not at all.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_tuned(path: &Path, info: &AdapterInfo, choices: &Choices) -> Result<()> {
    let file = File {
        schema: SCHEMA.into(),
        wgrad: env!("CARGO_PKG_VERSION").into(),
        adapter: info.name.clone(),
        backend: info.backend.into(),
        driver: info.driver.clone(),
        choices: choices.lines(),
    };
    let text = serde_json::to_string_pretty(&file).map_err(|e| Error::internal(e.to_string()))?;
    files::replace(path, format!("{text}\n").as_bytes()).map_err(|e| Error::from(e).context(path.display()))
}

/// What a device that is about to be opened so finds: its choices, and the file that they are from.
///
/// # Errors
/// Those of a file that the options name. One that only lies there is left alone, which WGRAD_DEBUG tells.
pub fn find_tuned(info: &AdapterInfo, options: &GpuOptions) -> Result<Option<(PathBuf, Arc<Choices>)>> {
    let path = match (&options.tuned, &options.pipeline_folder) {
        (Tuned::File(path), _) => return Ok(Some((path.clone(), Arc::new(read_tuned(path, info)?)))),
        (Tuned::Beside, Some(folder)) => tuned_path(info, folder),
        (Tuned::Beside, None) | (Tuned::Off, _) => return Ok(None),
    };
    if !path.exists() {
        return Ok(None);
    }
    match read_tuned(&path, info) {
        Ok(choices) => {
            env::tell(1, || format!("{}: {} tuned choices", path.display(), choices.len()));
            Ok(Some((path, Arc::new(choices))))
        }
        Err(e) => {
            env::tell(1, || format!("left alone: {e}"));
            Ok(None)
        }
    }
}
