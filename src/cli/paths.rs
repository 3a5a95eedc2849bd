//! Run folders, and paths as configs write them.

use crate::error::{Error, Result, nearest};
use std::path::{Component, Path, PathBuf};

/// Where runs land: below the current folder.
pub const RUNS: &str = "runs";

/// The files of a run.
pub const CONFIG: &str = "config.toml";
pub const METRICS: &str = "metrics.jsonl";
pub const MODEL: &str = "model.safetensors";
pub const RESULT: &str = "result.json";

/// Whether a run can be called so: a name that is legal for a folder on every system.
pub fn check_name(name: &str) -> Result<()> {
    let reserved = ["con", "prn", "aux", "nul"].contains(&name.to_lowercase().as_str());
    let bad = name.chars().find(|c| c.is_control() || "<>:\"/\\|?*".contains(*c));
    match bad {
        Some(c) => Err(Error::invalid(format!("{name:?} cannot be a folder's name: it holds {c:?}"))),
        None if name.is_empty() || name.starts_with('.') || name.ends_with(['.', ' ']) || reserved => {
            Err(Error::invalid(format!("{name:?} cannot be a folder's name on every system")))
        }
        None => Ok(()),
    }
}

/// Whether a file can be written there, found out before the minutes that it takes to have something to write: by opening it, which leaves what is in it alone.
pub fn writable(path: &Path) -> Result<()> {
    let cannot = |why: String| Error::invalid(format!("cannot write {}: {why}", path.display()));
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.is_dir()) {
        return Err(cannot(format!("there is no folder {}", folder.display())).help("make it first, or name another file"));
    }
    let new = !path.exists();
    std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|e| cannot(e.to_string()))?;
    if new {
        // If it stays, it is empty, and written over.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Make the next free run folder of that name: `digits`, `digits-2`, ...
pub fn new_run(name: &str) -> Result<PathBuf> {
    let runs = Path::new(RUNS);
    let cannot = |path: &Path, e: std::io::Error| Error::io(format!("cannot make {}: {e}", path.display()));
    std::fs::create_dir_all(runs).map_err(|e| cannot(runs, e))?;
    let mut n = 1u32;
    loop {
        let path = runs.join(if n == 1 { name.to_string() } else { format!("{name}-{n}") });
        // Making it is the test, so that two runs which start together get two folders.
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => n += 1,
            Err(e) => return Err(cannot(&path, e)),
        }
    }
}

/// The run folder that RUN means: a path, or a name under `runs/`.
pub fn find_run(run: &str) -> Result<PathBuf> {
    let named = Path::new(RUNS).join(run);
    for path in [Path::new(run), &named] {
        if path.join(CONFIG).is_file() {
            return Ok(path.to_path_buf());
        }
    }
    for path in [Path::new(run), &named] {
        if path.is_dir() {
            return Err(Error::invalid(format!("{}: is no run folder: it has no {CONFIG}", path.display())));
        }
    }
    let e = Error::invalid(format!("there is no run {run}: neither a folder of that path nor one under {RUNS}/"));
    let names: Vec<String> = std::fs::read_dir(RUNS).into_iter().flatten().flatten().map(|d| d.file_name().to_string_lossy().into_owned()).collect();
    Err(match nearest(run, names.iter().map(String::as_str)) {
        Some(near) => e.help(format!("did you mean {near}?")),
        None => e,
    })
}

/// `path` as seen from `folder`, with `/`; absolute where there is no way from one to the other.
pub fn relative(path: &Path, folder: &Path) -> Result<String> {
    let whole = |p: &Path| {
        let p = if p.as_os_str().is_empty() { Path::new(".") } else { p };
        std::path::absolute(p).map_err(|e| Error::io(format!("{}: {e}", p.display())))
    };
    let (path, folder) = (tidy(&whole(path)?), tidy(&whole(folder)?));
    let (to, from): (Vec<_>, Vec<_>) = (path.components().collect(), folder.components().collect());
    let same = to.iter().zip(&from).take_while(|(a, b)| a == b).count();
    if same == 0 {
        return Ok(path.display().to_string());
    }
    let up = std::iter::repeat_n("..".to_string(), from.len() - same);
    let down = to[same..].iter().map(|c| c.as_os_str().to_string_lossy().into_owned());
    let parts: Vec<String> = up.chain(down).collect();
    Ok(parts.join("/"))
}

/// An absolute path without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_everywhere() {
        assert!(check_name("digits-2 (b)").is_ok());
        for bad in ["", "a/b", "a:b", "con", "x.", ".x", "a\nb"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = std::env::temp_dir().join(format!("wgrad-writable-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (new, old) = (folder.join("new.json"), folder.join("old.json"));
        std::fs::write(&old, "kept").unwrap();
        assert!(writable(&new).is_ok() && writable(&old).is_ok());
        assert!(!new.exists() && std::fs::read_to_string(&old).unwrap() == "kept");
        assert!(writable(&folder).unwrap_err().to_string().contains("cannot write"));
        assert!(writable(&folder.join("absent/a.json")).unwrap_err().to_string().contains("there is no folder"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn paths_are_rebased() {
        assert_eq!(relative(Path::new("examples/digits.csv"), Path::new("runs/digits")).unwrap(), "../../examples/digits.csv");
        assert_eq!(relative(Path::new("a/../b.csv"), Path::new("")).unwrap(), "b.csv");
        assert_eq!(relative(Path::new("runs/x/y.csv"), Path::new("runs/x")).unwrap(), "y.csv");
    }
}
