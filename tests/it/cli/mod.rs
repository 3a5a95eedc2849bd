//! The command line, run as a user runs it: what it writes where, and with which exit code it ends.

mod bad_input;
mod bench;
mod interrupt;
mod runs;
mod tune;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A folder of a test's own, with a data set of three kinds of points, and a config that learns them.
struct Place {
    folder: PathBuf,
}

/// What a run of the binary gave.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

const CONFIG: &str = r#"
[data]
path = "points.csv"
label = "kind"
classes = 3
[split]
test = 0.25
validation = 0.2
[model]
layers = [
    { kind = "linear", out_features = 16 },
    { kind = "relu" },
    { kind = "dropout", p = 0.1 },
    { kind = "linear", out_features = 3 },
]
[train]
seed = 1
epochs = 6
batch_size = 16
learning_rate = 0.02
"#;

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The space is on purpose: paths with spaces are ordinary.
        let name = format!("cli {} {}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let place = Place { folder };
        place.write("points.csv", &points(150));
        place.write("points.toml", CONFIG);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The config with one text in it replaced by another.
    fn config_with(&self, from: &str, to: &str) {
        assert!(CONFIG.contains(from), "{from}");
        self.write("points.toml", &CONFIG.replace(from, to));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
        command.args(arguments).current_dir(&self.folder).env("WGRAD_DEVICE", "cpu").env("WGRAD_CACHE", self.path("cache"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Run, and expect it to succeed.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.err);
        ran
    }

    /// Run, and expect it to fail with this code, saying all of these, and without a panic.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, says: &[&str]) {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.err);
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        assert!(ran.out.is_empty(), "no results, but: {}", ran.out);
        for text in says {
            assert!(ran.err.contains(text), "{arguments:?} does not say {text:?}:\n{}", ran.err);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What a failed test leaves is there to be looked at.
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}

impl From<Output> for Ran {
    fn from(o: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: o.status.code(), out: text(o.stdout), err: text(o.stderr) }
    }
}

/// Three clouds of points that can be told apart, as a CSV file with CRLF and a byte order mark.
fn points(n: u32) -> String {
    let mut csv = "\u{feff}x,kind,y\r\n".to_string();
    for i in 0..n {
        let jitter = |salt: u32| f64::from((i * 7919 + salt * 104_729) % 1000) / 1000.0 - 0.5;
        let (x, y) = [(0.0, 2.0), (2.0, -1.0), (-2.0, -1.0)][i as usize % 3];
        csv += &format!("{:.3},{},{:.3}\r\n", x + jitter(1), i % 3, y + jitter(2));
    }
    csv
}
