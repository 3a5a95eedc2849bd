//! The roofline of a device as a picture: what each kernel reaches, over the operations it does for each byte it moves, below what the peaks allow.

use super::probe::family;
use super::report::{Measured, Report, Row};
use std::fmt::Write;

/// Size of a device's picture.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
/// Where the axes lie.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 490.0;

/// A colour for each family, told apart by those who see red and green alike, too.
const COLOURS: [&str; 10] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555", "#8c564b", "#b5bd00"];

/// The pictures of all devices, one below the other.
pub fn roofline(report: &Report) -> String {
    let mut body = String::new();
    let mut shown = 0;
    for device in &report.devices {
        if let Some(picture) = picture(device) {
            let _ = writeln!(body, "<g transform=\"translate(0 {})\">\n{picture}</g>", shown as f64 * HEIGHT);
            shown += 1;
        }
    }
    let height = HEIGHT * f64::from(shown.max(1));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// A logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From a power of ten below all values to one above them.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = (low.log10().floor(), (high * 1.2).log10().ceil());
        Axis { low, high: high.max(low + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|e| 10f64.powi(e))
    }
}

fn picture(device: &Measured) -> Option<String> {
    let (flops, bandwidth) = (device.peak_gflops()?, device.peak_gb_s()?);
    let points: Vec<(&Row, f64, f64)> = device
        .rows
        .iter()
        .filter(|r| family(&r.name) != "peak" && r.flops > 0.0 && r.bytes > 0.0)
        .filter_map(|r| Some((r, r.flops / r.bytes, r.gflops?)))
        .collect();
    let ridge = flops / bandwidth;
    let xs = || points.iter().map(|p| p.1).chain([ridge / 10.0, ridge * 10.0]);
    let x = Axis::over(xs(), LEFT, RIGHT);
    let y = Axis::over(points.iter().map(|p| p.2).chain([flops, flops / 100.0]), BOTTOM, TOP);
    let mut out = String::new();
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"28\" font-size=\"16\" font-weight=\"bold\">{}</text>", escape(&device.description));
    let peaks = format!("peaks, measured: {flops:.0} GFLOP/s, {bandwidth:.1} GB/s (copy of {})", device.working_set);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"46\" fill=\"#555\">{}</text>", escape(&peaks));
    for v in x.ticks() {
        let at = x.at(v);
        let _ =
            writeln!(out, "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{v}</text>", BOTTOM + 18.0);
    }
    for v in y.ticks() {
        let at = y.at(v);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{v}</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let _ = writeln!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">operations for each byte</text>", BOTTOM + 40.0);
    let half = (TOP + BOTTOM) / 2.0;
    let _ = writeln!(out, "<text transform=\"translate(24 {half}) rotate(-90)\" text-anchor=\"middle\">GFLOP/s</text>");
    // The roof: along the bandwidth to the ridge, then flat. It begins where it enters the picture.
    let start = 10f64.powf(x.low).max(10f64.powf(y.low) / bandwidth);
    let end = 10f64.powf(x.high);
    let line = [(start, start * bandwidth), (ridge, flops), (end, flops)].map(|(a, b)| format!("{:.1},{:.1}", x.at(a), y.at(b))).join(" ");
    let _ = writeln!(out, "<polyline points=\"{line}\" fill=\"none\" stroke=\"black\" stroke-width=\"2\"/>");
    let mut families: Vec<&str> = Vec::new();
    for (row, intensity, gflops) in &points {
        let family = family(&row.name);
        let n = families.iter().position(|f| *f == family).unwrap_or_else(|| {
            families.push(family);
            families.len() - 1
        });
        let share = row.share.map(|s| format!(", {:.0} % of the roof", s * 100.0)).unwrap_or_default();
        let title = escape(&format!("{}: {}: {gflops:.2} GFLOP/s{share}", row.name, row.about));
        let (cx, cy, colour) = (x.at(*intensity), y.at(*gflops), COLOURS[n % COLOURS.len()]);
        // What was not steady is hollow.
        let fill = if row.unstable { "white" } else { colour };
        let _ = writeln!(
            out,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"5\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"><title>{title}</title></circle>"
        );
    }
    legend(&points, &families, &mut out);
    Some(out)
}

/// Each family with the best share that it reaches.
fn legend(points: &[(&Row, f64, f64)], families: &[&str], out: &mut String) {
    let left = RIGHT + 28.0;
    for (n, name) in families.iter().enumerate() {
        let best = points.iter().filter(|p| family(&p.0.name) == *name).filter_map(|p| p.0.share).fold(0.0f64, f64::max);
        let y = TOP + 12.0 + 24.0 * n as f64;
        let colour = COLOURS[n % COLOURS.len()];
        let text = escape(&format!("{name}: to {:.0} %", best * 100.0));
        let _ = writeln!(out, "<circle cx=\"{left}\" cy=\"{}\" r=\"5\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{text}</text>", y - 4.0, left + 14.0);
    }
    let y = TOP + 24.0 + 24.0 * families.len() as f64;
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{y}\" fill=\"#555\">%: best share of the roof</text>");
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{}\" fill=\"#555\">hollow: not steady</text>", y + 18.0);
}

/// A text inside of XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_below_the_roof() {
        let row = |name: &str, flops: f64, bytes: f64| Row { name: name.into(), flops, bytes, rounds: vec![vec![1.0; 9]], ..Row::default() };
        let rows = vec![row("peak/fma", 1e9, 0.0), row("peak/copy", 0.0, 1e8), row("matmul/<64>", 5e8, 1e6), row("add/1", 1e6, 4e7)];
        let mut device = Measured { description: "a & b".into(), rows, ..Measured::default() };
        device.finish();
        let svg = roofline(&Report { devices: vec![device], ..Report::default() });
        assert!(svg.starts_with("<svg") && svg.contains("a &amp; b") && svg.contains("matmul/&lt;64&gt;: "));
        assert!(svg.contains("50 % of the roof") && svg.contains("40 % of the roof"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2 + 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn without_peaks_there_is_no_roof() {
        let svg = roofline(&Report { devices: vec![Measured::default()], ..Report::default() });
        assert!(!svg.contains("<g "));
    }
}
