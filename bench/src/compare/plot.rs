//! The plot of a comparison: each figure's factor over Kafka on a logarithmic axis, with the pairs' range and the
//! target; as SVG text without any library.

use std::fmt::Write;

use crate::svg::{escaped, opening};

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 16.0;
const LEFT: f64 = 390.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 40.0;
const ROW: f64 = 18.0;
const MET: &str = "#0b6e4f";
const MISSED: &str = "#c1440e";

/// One row of factors in Chronik's favour: 2 is twice the throughput or half the latency.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Load and figure.
    pub(crate) name: String,
    /// The pairs' least.
    pub(crate) least: f64,
    /// The pairs' median.
    pub(crate) median: f64,
    /// The pairs' greatest.
    pub(crate) most: f64,
    /// The target.
    pub(crate) asked: f64,
}

/// Draws `rows` under `title`.
pub(crate) fn factors(title: &str, rows: &[Row]) -> String {
    let axis = Axis::fitting(rows);
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let mut svg = opening([WIDTH, height], MARGIN, title);
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _never = svg.write_fmt(line);
        svg.push('\n');
    };
    put(format_args!(
        "<text x=\"{MARGIN}\" y=\"44\" fill=\"#555\">times better than Kafka: median and range of the \
         pairs; the bar is what was asked</text>"
    ));
    axis.draw(height, &mut put);
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (number as f64 + 0.5);
        axis.draw_row(row, y, &mut put);
    }
    put(format_args!("</svg>"));
    svg
}

/// Decades shown: 10^`low` to 10^`high` times better.
#[derive(Clone, Copy, Debug)]
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn fitting(rows: &[Row]) -> Self {
        let ends = rows
            .iter()
            .flat_map(|row| [row.least, row.most, row.asked])
            .filter(|factor| factor.is_finite() && *factor > 0.0);
        let (least, most) = ends.fold((1.0_f64, 1.0_f64), |(least, most), factor| {
            (least.min(factor), most.max(factor))
        });
        Self {
            low: (least.log10().floor() as i32).clamp(-3, -1),
            high: (most.log10().ceil() as i32).clamp(1, 4),
        }
    }

    fn x(self, factor: f64) -> f64 {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let share = (factor.log10().clamp(low, high) - low) / (high - low);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn draw(self, height: f64, put: &mut impl FnMut(std::fmt::Arguments<'_>)) {
        let bottom = height - BOTTOM;
        for decade in self.low..=self.high {
            let factor = 10_f64.powi(decade);
            let x = self.x(factor);
            let colour = if decade == 0 { "#444" } else { "#ddd" };
            put(format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" \
                 stroke=\"{colour}\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{factor} ×</text>",
                bottom + 18.0
            ));
        }
    }

    fn draw_row(self, row: &Row, y: f64, put: &mut impl FnMut(std::fmt::Arguments<'_>)) {
        let colour = if row.median >= row.asked { MET } else { MISSED };
        let asked = self.x(row.asked);
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" \
             stroke-width=\"2\" opacity=\"0.5\"/>\
             <line x1=\"{asked:.1}\" x2=\"{asked:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#222\" \
             stroke-width=\"2\"/>\
             <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>",
            LEFT - 10.0,
            y + 4.0,
            escaped(&row.name),
            self.x(row.least),
            self.x(row.most),
            y - 6.0,
            y + 6.0,
            self.x(row.median),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_further_right_and_nothing_leaves_the_plot() {
        let row = |name: &str, median: f64, asked| Row {
            name: name.to_owned(),
            least: median / 2.0,
            median,
            most: median * 2.0,
            asked,
        };
        let rows = [
            row("a < b", 0.5, 1.0),
            row("good", 3.0, 2.0),
            row("far", 1e9, 5.0),
        ];
        let axis = Axis::fitting(&rows);
        assert!(axis.x(0.5) < axis.x(1.0) && axis.x(1.0) < axis.x(3.0));
        for factor in [0.0, 1e-9, 1.0, 1e12, f64::INFINITY] {
            let x = axis.x(factor);
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{factor}: {x}");
        }
        let svg = factors("process & disk", &rows);
        assert!(
            svg.contains("process &amp; disk") && svg.contains("a &lt; b"),
            "{svg}"
        );
        let coloured = |colour: &str| svg.matches(&format!("fill=\"{colour}\"")).count();
        assert_eq!((coloured(MET), coloured(MISSED)), (2, 1));
    }
}
