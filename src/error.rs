//! The library's one error type. Messages are lower case, name the thing and the value, and add a `help:` line where there is a way out.

use std::fmt;

/// Shorthand for results of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Boxed, so that a `Result` stays one word.
#[derive(Clone)]
pub struct Error(Box<ErrorKind>);

/// The classes of errors a caller may want to tell apart.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Shapes, dtypes or attributes that an operation does not accept.
    Shape(String),
    /// An argument, a config value or a file's content that is not valid.
    Invalid(String),
    /// No device fits what was asked for.
    Device(String),
    /// The device is gone; nothing on it can be read any more.
    DeviceLost(String),
    /// Memory ran out, on the device or at the cap.
    OutOfMemory(String),
    /// A kernel met data it cannot use (an index out of range).
    Data(String),
    /// A shader that does not parse or validate, or a pipeline that the driver refused.
    Kernel(String),
    /// An operation without a gradient was asked for one.
    Gradient(String),
    /// Reading or writing a file failed.
    Io(String),
    /// A fault of this library.
    Internal(String),
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $variant:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Error(Box::new(ErrorKind::$variant(message.into()))) })*
        }
        impl ErrorKind {
            fn text(&self) -> &str { match self { $(ErrorKind::$variant(m) => m,)* } }
            fn text_mut(&mut self) -> &mut String { match self { $(ErrorKind::$variant(m) => m,)* } }
        }
    };
}

constructors! {
    /// See [`ErrorKind::Shape`].
    shape => Shape,
    /// See [`ErrorKind::Invalid`].
    invalid => Invalid,
    /// See [`ErrorKind::Device`].
    device => Device,
    /// See [`ErrorKind::DeviceLost`].
    device_lost => DeviceLost,
    /// See [`ErrorKind::OutOfMemory`].
    out_of_memory => OutOfMemory,
    /// See [`ErrorKind::Data`].
    data => Data,
    /// See [`ErrorKind::Kernel`].
    kernel => Kernel,
    /// See [`ErrorKind::Gradient`].
    gradient => Gradient,
    /// See [`ErrorKind::Io`].
    io => Io,
    /// See [`ErrorKind::Internal`].
    internal => Internal,
}

impl Error {
    /// The class of the error, with its message.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        self.0.text()
    }

    /// The same error, its message led by `what: `.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        let text = self.0.text_mut();
        *text = format!("{what}: {text}");
        self
    }

    /// The same error with its message rewritten.
    pub(crate) fn map(mut self, rewrite: impl FnOnce(&str) -> String) -> Self {
        let text = self.0.text_mut();
        *text = rewrite(text);
        self
    }

    /// The same error with a line that says the way out.
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        let text = self.0.text_mut();
        *text = format!("{text}\nhelp: {help}");
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

// `unwrap` and `main() -> Result` print Debug: the message is what a reader needs there, too.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Error::io(e.to_string())
    }
}

/// The nearest of `valid` to a misspelt `name`, for "did you mean" lines.
pub fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.len().max(3) / 2 + 1;
    valid.into_iter().map(|v| (distance(name, v), v)).filter(|(d, _)| *d <= limit).min_by_key(|(d, _)| *d).map(|(_, v)| v)
}

/// Levenshtein distance, over bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut diagonal = row[0];
        row[0] = i;
        for j in 1..=b.len() {
            let substitute = diagonal + usize::from(a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = substitute.min(row[j] + 1).min(row[j - 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_a_misspelt_name() {
        assert_eq!(nearest("con2d", ["conv2d", "linear"]), Some("conv2d"));
        assert_eq!(nearest("zzzzzzzz", ["conv2d", "linear"]), None);
    }

    #[test]
    fn context_and_help_frame_the_message() {
        let e = Error::shape("sizes differ").context("add").help("use expand");
        assert_eq!(e.to_string(), "add: sizes differ\nhelp: use expand");
        assert!(matches!(e.kind(), ErrorKind::Shape(_)));
    }
}
