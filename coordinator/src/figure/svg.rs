//! A sheet to draw on that becomes SVG text: the few shapes that the figures need.
//!
//! Every number is printed with at most two decimals and every text is escaped here, so that the same drawing
//! always gives the same bytes and no name can break the file.

use std::fmt::Write as _;

use super::font;

/// Text and axes.
pub(super) const INK: &str = "#1a1a1a";
/// Secondary text.
pub(super) const GREY: &str = "#555555";
/// Lines that should not catch the eye.
pub(super) const PALE: &str = "#d9d9d9";

/// Where a text's given point lies in it.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    /// At its left end.
    Start,
    /// In its middle.
    Middle,
    /// At its right end.
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(super) struct Style<'a> {
    /// Pixels per em.
    pub size: f64,
    /// Colour.
    pub fill: &'a str,
    /// Which of its points is placed.
    pub anchor: Anchor,
}

impl<'a> Style<'a> {
    /// A text of that size and colour, placed by its left end.
    pub fn new(size: f64, fill: &'a str) -> Self {
        Self { size, fill, anchor: Anchor::Start }
    }

    /// The same, placed by another point.
    pub fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}

/// A white sheet.
pub(super) struct Sheet {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Sheet {
    /// An empty sheet; `title` is what a screen reader says.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self { width: width.ceil(), height: height.ceil(), title: escape(title), body: String::new() }
    }

    /// A filled rectangle without outline.
    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        let (x, y, width, height) = (num(x), num(y), num(width), num(height));
        self.push(format_args!(r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"/>"#));
    }

    /// The outline of a rectangle.
    pub fn frame(&mut self, x: f64, y: f64, width: f64, height: f64, stroke: &str) {
        let (x, y, width, height) = (num(x), num(y), num(width), num(height));
        self.push(format_args!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{stroke}"/>"#
        ));
    }

    /// A line through `points`, without fill.
    pub fn line(&mut self, points: &[(f64, f64)], stroke: &str, stroke_width: f64) {
        let mut path = String::new();
        for (place, (x, y)) in points.iter().enumerate() {
            let command = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{} {}", num(*x), num(*y));
        }
        let stroke_width = num(stroke_width);
        self.push(format_args!(
            r#"<path d="{path}" fill="none" stroke="{stroke}" stroke-width="{stroke_width}"/>"#
        ));
    }

    /// The filled area inside `points`.
    pub fn area(&mut self, points: &[(f64, f64)], fill: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", num(*x), num(*y))).collect();
        let points = points.join(" ");
        self.push(format_args!(r#"<polygon points="{points}" fill="{fill}"/>"#));
    }

    /// A filled circle.
    pub fn dot(&mut self, x: f64, y: f64, radius: f64, fill: &str) {
        let (x, y, radius) = (num(x), num(y), num(radius));
        self.push(format_args!(r#"<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"/>"#));
    }

    /// A line of text whose baseline passes through the point.
    pub fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let (x, y) = (num(x), num(y));
        let attributes = attributes(style);
        let text = escape(text);
        self.push(format_args!(r#"<text x="{x}" y="{y}"{attributes}>{text}</text>"#));
    }

    /// The same, turned to read upwards about the point.
    pub fn text_upwards(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let (x, y) = (num(x), num(y));
        let attributes = attributes(style);
        let text = escape(text);
        self.push(format_args!(
            r#"<text x="{x}" y="{y}"{attributes} transform="rotate(-90 {x} {y})">{text}</text>"#
        ));
    }

    /// Elements written by the caller, who vouches for them.
    pub fn raw(&mut self, element: &str) {
        self.push(format_args!("{element}"));
    }

    /// The SVG file.
    pub fn finish(self) -> String {
        let Self { width, height, title, body } = self;
        let family = font::FAMILY;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"{family}\" role=\"img\">\n\
             <title>{title}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("writing to a String never fails");
    }
}

/// `value` with at most two decimals, no trailing zeros, no negative zero.
pub(super) fn num(value: f64) -> String {
    let text = format!("{value:.2}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// A value with that many decimals and no negative zero.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|digit| matches!(digit, b'0' | b'.')) => digits.to_owned(),
        _ => text,
    }
}

/// A number in a note: three decimals, or powers of ten where those would hide it.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 || (size > 0.0 && size < 5e-4) {
        format!("{value:.1e}")
    } else if value.fract() == 0.0 {
        num(value)
    } else {
        fixed(value, 3)
    }
}

fn attributes(style: Style) -> String {
    let anchor = match style.anchor {
        Anchor::Start => "",
        Anchor::Middle => r#" text-anchor="middle""#,
        Anchor::End => r#" text-anchor="end""#,
    };
    format!(r#" font-size="{}" fill="{}"{anchor}"#, num(style.size), style.fill)
}

/// Text as XML wants it; characters that XML 1.0 cannot hold become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [(0.0, "0"), (-0.001, "0"), (1.5, "1.5"), (10.0, "10"), (1.0 / 3.0, "0.33")]
        {
            assert_eq!(num(value), expected);
        }
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-0.25, "-0.250"),
            (4.6089, "4.609"),
            (1e-9, "1.0e-9"),
            (-2.5e8, "-2.5e8"),
        ] {
            assert_eq!(short(value), expected);
        }
        assert_eq!(fixed(-0.001, 2), "0.00");
    }

    #[test]
    fn no_text_breaks_the_file() {
        let mut sheet = Sheet::new(100.0, 100.0, "a\u{0}<b>&\"");
        sheet.text(1.0, 2.0, "</svg>\u{1b}[31m\u{ffff}", Style::new(10.0, INK));
        sheet.text_upwards(1.0, 2.0, "'\"&\n", Style::new(10.0, INK).anchored(Anchor::Middle));
        let svg = sheet.finish();
        resvg::usvg::Tree::from_str(&svg, &resvg::usvg::Options::default()).expect(&svg);
    }
}
