//! The plot of percentile curves: latency over "one in N requests", both axes logarithmic, one curve for each
//! histogram, as SVG text without any library.

use std::fmt::Write;

use hdrhistogram::Histogram;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 56.0;
const COLOURS: [&str; 6] = [
    "#0b6e4f", "#c1440e", "#2b59c3", "#8a5a00", "#7a1fa2", "#444444",
];
/// Points of a curve for each factor of ten.
const POINTS_PER_DECADE: u32 = 24;

/// Draws `curves` (name and latencies in µs); those without a value are left out.
pub(crate) fn percentile_plot(title: &str, curves: &[(&str, &Histogram<u64>)]) -> String {
    let curves: Vec<_> = curves.iter().filter(|curve| !curve.1.is_empty()).collect();
    let axes = Axes::fitting(&curves);
    let mut svg = opening([WIDTH, HEIGHT], LEFT, title);
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _never = svg.write_fmt(line);
        svg.push('\n');
    };
    axes.draw(&mut put);
    for (number, (name, histogram)) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points = axes.curve(histogram);
        put(format_args!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>"
        ));
        let y = TOP + 16.0 + 18.0 * number as f64;
        put(format_args!(
            "<line x1=\"{x1}\" x2=\"{x2}\" y1=\"{line}\" y2=\"{line}\" stroke=\"{colour}\" \
             stroke-width=\"2\"/><text x=\"{x3}\" y=\"{y}\">{name}</text>",
            x1 = LEFT + 14.0,
            x2 = LEFT + 40.0,
            x3 = LEFT + 48.0,
            line = y - 4.0,
            name = escaped(name),
        ));
    }
    put(format_args!("</svg>"));
    svg
}

/// The first lines of every plot: its size, a white ground, and its title, which begins at `left`.
pub(crate) fn opening([width, height]: [f64; 2], left: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    )
}

/// Decades shown: 10^0 to 10^`requests` of requests, 10^`low` to 10^`high` of µs.
#[derive(Clone, Copy)]
struct Axes {
    requests: u32,
    low: u32,
    high: u32,
}

impl Axes {
    fn fitting(curves: &[&(&str, &Histogram<u64>)]) -> Self {
        let counts = curves.iter().map(|curve| curve.1.len());
        let least = curves.iter().map(|curve| curve.1.min().max(1));
        let most = curves.iter().map(|curve| curve.1.max().max(1));
        let low = least.min().unwrap_or(1).ilog10();
        Self {
            requests: counts.max().unwrap_or(1).max(10).ilog10().clamp(1, 7),
            low,
            high: (most.max().unwrap_or(1).ilog10() + 1).max(low + 1),
        }
    }

    /// `one_in` requests: 1 is the left edge, 1,000 the 99.9th percentile.
    fn x(self, one_in: f64) -> f64 {
        LEFT + one_in.log10() / f64::from(self.requests) * (WIDTH - LEFT - RIGHT)
    }

    fn y(self, latency_us: f64) -> f64 {
        let share =
            (latency_us.max(1.0).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn curve(self, histogram: &Histogram<u64>) -> String {
        let steps = self.requests * POINTS_PER_DECADE;
        let mut points = String::new();
        for step in 0..=steps {
            let one_in = 10_f64.powf(f64::from(step) / f64::from(POINTS_PER_DECADE));
            // Beyond the last request there is no value.
            if one_in > histogram.len() as f64 {
                break;
            }
            let latency_us = histogram.value_at_quantile(1.0 - 1.0 / one_in);
            let (x, y) = (self.x(one_in), self.y(latency_us as f64));
            let _never = write!(points, "{x:.1},{y:.1} ");
        }
        points
    }

    fn draw(self, put: &mut impl FnMut(std::fmt::Arguments<'_>)) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for decade in self.low..=self.high {
            let y = self.y(10_f64.powf(f64::from(decade)));
            put(format_args!(
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                duration_name(decade)
            ));
        }
        for decade in 0..=self.requests {
            let x = self.x(10_f64.powf(f64::from(decade)));
            let percent = 100.0 - 100.0 / 10_f64.powf(f64::from(decade));
            put(format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{percent} %</text>",
                bottom + 18.0
            ));
        }
        put(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">percentile of requests</text>",
            (LEFT + right) / 2.0,
            bottom + 40.0
        ));
    }
}

fn duration_name(decade: u32) -> String {
    let count = 10_u64.pow(decade % 3);
    match decade / 3 {
        0 => format!("{count} µs"),
        1 => format!("{count} ms"),
        _ => format!("{} s", 10_u64.pow(decade.saturating_sub(6))),
    }
}

/// `text` escaped for SVG.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_rises_to_the_right_and_stays_inside() {
        let mut histogram = Histogram::<u64>::new(3).expect("a histogram");
        for latency_us in 1..=5_000 {
            histogram.record(latency_us).expect("in range");
        }
        let curves = [("produce", &histogram)];
        let axes = Axes::fitting(&curves.iter().collect::<Vec<_>>());
        let curve = axes.curve(&histogram);
        let points: Vec<(f64, f64)> = curve
            .split_whitespace()
            .filter_map(|point| point.split_once(','))
            .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
            .collect();
        assert!(points.len() > 60, "{}", points.len());
        for pair in points.windows(2) {
            assert!(pair[1].0 > pair[0].0 && pair[1].1 <= pair[0].1, "{pair:?}");
        }
        let inside = |(x, y): &(f64, f64)| {
            (LEFT..=WIDTH - RIGHT).contains(x) && (TOP..=HEIGHT - BOTTOM).contains(y)
        };
        assert!(points.iter().all(inside), "{points:?}");
        let svg = percentile_plot("1 KiB & <more>", &curves);
        assert!(svg.contains("1 KiB &amp; &lt;more&gt;"), "{svg}");
    }

    #[test]
    fn names_of_decades() {
        let names: Vec<String> = (0..9).map(duration_name).collect();
        let expected = [
            "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s",
        ];
        assert_eq!(names, expected);
    }
}
