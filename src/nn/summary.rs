//! The summary of a model as text.

use super::SummaryLine;
use std::fmt;

/// Layers, output shapes, parameters: see [`Module::summary`](super::Module::summary). Displays as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// One line a layer.
    pub lines: Vec<SummaryLine>,
    /// The number of trained values; one that is shared counts once.
    pub parameters: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = |l: &SummaryLine| {
            let call = if l.extra.is_empty() { l.kind.to_string() } else { format!("{}({})", l.kind, l.extra) };
            if l.path.is_empty() { call } else { format!("{}: {call}", l.path) }
        };
        let mut rows = vec![["layer".to_string(), "output".to_string(), "parameters".to_string()]];
        rows.extend(self.lines.iter().map(|l| [layer(l), l.output.to_string(), thousands(l.parameters)]));
        rows.push(["total".to_string(), String::new(), thousands(self.parameters)]);
        let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let (a, b, c) = (width(0), width(1), width(2));
        for (i, [layer, output, parameters]) in rows.iter().enumerate() {
            let end = if i + 1 < rows.len() { "\n" } else { "" };
            write!(f, "{layer:a$}  {output:b$}  {parameters:>c$}{end}")?;
        }
        Ok(())
    }
}

/// 1234567 as `1,234,567`.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
