//! Tables of numbers, read from CSV files.

use crate::error::{Error, Result, nearest};
use std::path::Path;

/// Named columns of numbers, all of one length.
#[derive(Clone, Debug)]
pub struct Table {
    source: String,
    columns: Vec<Column>,
    lines: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    values: Vec<f64>,
    /// The line and text of the first cell that is not a number. Such a column may stand in a file as long as nobody asks for it.
    text: Option<(u64, String)>,
}

impl Table {
    /// Read a CSV file whose first line names the columns.
    pub fn read_csv(path: impl AsRef<Path>) -> Result<Table> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(format!("cannot read {}: {e}", path.display())))?;
        Table::from_csv(path.display().to_string(), &bytes)
    }

    /// Read the bytes of a CSV file. `source` is what errors call it.
    pub fn from_csv(source: impl Into<String>, bytes: &[u8]) -> Result<Table> {
        let source = source.into();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return Err(Error::invalid(format!("{source}: the file is empty")));
        }
        let mut lines = Lines::new(bytes);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(bytes);
        let mut record = csv::StringRecord::new();
        let mut columns: Vec<Column> = Vec::new();
        let mut rows = Vec::new();
        loop {
            let start = reader.position().byte();
            if !reader.read_record(&mut record).map_err(|e| unreadable(&source, &mut lines, start, e))? {
                break;
            }
            let line = lines.of_record(start);
            if columns.is_empty() {
                columns = header(&record).map_err(|e| e.context(format_args!("{source}: line {line}")))?;
                continue;
            }
            if record.len() != columns.len() {
                return Err(Error::invalid(format!("{source}: line {line}: {} values, but the header has {}", record.len(), columns.len())));
            }
            rows.push(line);
            for (column, cell) in columns.iter_mut().zip(&record) {
                let value = cell.parse().ok().filter(|v: &f64| v.is_finite());
                if value.is_none() && column.text.is_none() {
                    column.text = Some((line, cell.to_string()));
                }
                column.values.push(value.unwrap_or(f64::NAN));
            }
        }
        if rows.is_empty() {
            return Err(Error::invalid(format!("{source}: there is a header and nothing below it")));
        }
        Ok(Table { source, columns, lines: rows })
    }

    /// What errors call it: the file's path.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many rows there are, the header not counted.
    pub fn rows(&self) -> usize {
        self.lines.len()
    }

    /// The line of the file that `row` came from, counted from 1.
    pub fn line(&self, row: usize) -> u64 {
        self.lines[row]
    }

    /// The names of the columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|c| c.name.as_str())
    }

    /// Whether there is a column of that name.
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// The numbers of a column.
    pub fn column(&self, name: &str) -> Result<&[f64]> {
        let Some(column) = self.columns.iter().find(|c| c.name == name) else {
            let e = Error::invalid(format!("{}: there is no column {name}", self.source));
            return Err(match nearest(name, self.names()) {
                Some(n) => e.help(format!("did you mean {n}?")),
                None => e.help(format!("the columns are {}", self.names().collect::<Vec<_>>().join(", "))),
            });
        };
        match &column.text {
            None => Ok(&column.values),
            Some((line, text)) if text.is_empty() => Err(Error::invalid(format!("{}: line {line}, column {name}: the value is missing", self.source))),
            Some((line, text)) => Err(Error::invalid(format!("{}: line {line}, column {name}: not a number: {text}", self.source))),
        }
    }

    /// The numbers of these columns as `[rows, columns]`, in `f32`.
    pub fn matrix(&self, names: &[&str]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.rows() * names.len()];
        for (c, name) in names.iter().enumerate() {
            for (row, &value) in self.column(name)?.iter().enumerate() {
                let narrow = value as f32;
                if !narrow.is_finite() {
                    return Err(Error::invalid(format!("{}: line {}, column {name}: {value} is out of the range of f32", self.source, self.lines[row])));
                }
                out[row * names.len() + c] = narrow;
            }
        }
        Ok(out)
    }
}

fn header(record: &csv::StringRecord) -> Result<Vec<Column>> {
    if record.iter().all(|cell| cell.parse::<f64>().is_ok()) {
        return Err(Error::invalid("expected the columns' names, found numbers only").help("add a first line that names the columns"));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(record.len());
    let mut seen = std::collections::HashSet::new();
    for name in record {
        if !seen.insert(name) {
            return Err(Error::invalid(format!("two columns are named {name}")));
        }
        columns.push(Column { name: name.to_string(), values: Vec::new(), text: None });
    }
    Ok(columns)
}

/// What is wrong with a record that the reader refuses.
fn unreadable(source: &str, lines: &mut Lines<'_>, start: u64, e: csv::Error) -> Error {
    let line = lines.of_record(start);
    match e.kind() {
        csv::ErrorKind::Utf8 { err, .. } => Error::invalid(format!("{source}: line {line}, value {}: not valid UTF-8", err.field() + 1)),
        _ => Error::invalid(format!("{source}: line {line}: {e}")),
    }
}

/// Finds the line of a record from the byte at which the reader was before it. The reader's own count is off after CRLF and blank lines.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Lines { bytes, at: 0, line: 1 }
    }

    /// Records come in order, so each byte is looked at once.
    fn of_record(&mut self, start: u64) -> u64 {
        let start = start as usize;
        while let Some(&b) = self.bytes.get(self.at) {
            // The reader skips the ends of lines before a record.
            if self.at >= start && b != b'\n' && b != b'\r' {
                break;
            }
            let lone_return = b == b'\r' && self.bytes.get(self.at + 1) != Some(&b'\n');
            self.line += u64::from(b == b'\n' || lone_return);
            self.at += 1;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table::from_csv("t.csv", text.as_bytes()).unwrap()
    }

    fn message(text: &str) -> String {
        Table::from_csv("t.csv", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn columns_of_numbers_are_read() {
        for text in ["a,b\n1,2\n3,4.5", "a,b\r\n1,2\r\n3,4.5\r\n", "\u{feff}a, b\n 1 ,2\n\n3,4.5\n\n", "\"a\",\"b\"\n\"1\",2\n3,4.5"] {
            let t = table(text);
            assert_eq!(t.names().collect::<Vec<_>>(), ["a", "b"], "{text:?}");
            assert_eq!(t.matrix(&["b", "a"]).unwrap(), [2.0, 1.0, 4.5, 3.0]);
            assert_eq!(t.column("b").unwrap(), [2.0, 4.5]);
        }
    }

    #[test]
    fn a_ragged_row_names_its_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a,b", "1,2", "", "3,4", "5", "6,7"].join(end);
            assert_eq!(message(&text), "t.csv: line 5: 1 values, but the header has 2", "{end:?}");
        }
        assert_eq!(message("a,b\n\"1\n\",2\n3,4,5\n"), "t.csv: line 4: 3 values, but the header has 2");
    }

    #[test]
    fn text_matters_where_numbers_are_wanted() {
        let t = table("a,b,c\r\n1,2,x\r\n3,oops,y\r\n4,5,\r\n1e39,,z\r\n");
        assert_eq!(t.column("a").unwrap().len(), 4);
        assert_eq!(t.column("b").unwrap_err().message(), "t.csv: line 3, column b: not a number: oops");
        assert_eq!(t.matrix(&["a"]).unwrap_err().message(), format!("t.csv: line 5, column a: {} is out of the range of f32", 1e39));
        assert_eq!(table("a\nnan\n").column("a").unwrap_err().message(), "t.csv: line 2, column a: not a number: nan");
        assert_eq!(table("a,b\n1,\n").column("b").unwrap_err().message(), "t.csv: line 2, column b: the value is missing");
    }

    #[test]
    fn files_without_rows_are_refused() {
        assert_eq!(message(""), "t.csv: the file is empty");
        assert_eq!(message("\u{feff}\r\n \n"), "t.csv: the file is empty");
        assert_eq!(message("a,b\n"), "t.csv: there is a header and nothing below it");
        assert!(message("1,2\n3,4\n").starts_with("t.csv: line 1: expected the columns' names, found numbers only\nhelp: "));
        assert_eq!(message("a,b,a\n1,2,3\n"), "t.csv: line 1: two columns are named a");
        let e = Table::from_csv("t.csv", b"a,b\n1,2\n3,\xff\n").unwrap_err();
        assert_eq!(e.message(), "t.csv: line 3, value 2: not valid UTF-8");
    }

    #[test]
    fn a_missing_column_or_file_is_named() {
        let t = table("pixel,digit\n1,2\n");
        assert_eq!(t.column("digti").unwrap_err().message(), "t.csv: there is no column digti\nhelp: did you mean digit?");
        assert_eq!(t.column("something").unwrap_err().message(), "t.csv: there is no column something\nhelp: the columns are pixel, digit");
        let e = Table::read_csv("no such folder/no.csv").unwrap_err();
        assert!(e.message().starts_with("cannot read no such folder/no.csv: "), "{e}");
        assert!(matches!(e.kind(), crate::error::ErrorKind::Io(_)));
    }
}
