//! From a number to a colour, and the range of numbers that the colours span.

use super::scale::Scale;

/// How far a value may lie outside its metric's range by rounding alone.
pub(super) const ROUNDING: f64 = 1e-6;

/// Viridis (van der Walt and Smith 2015, CC0) at steps of 1/17: even steps look evenly far apart, also in grey
/// and to colour-blind eyes. Between two of these the line differs from the full table by 5/255 at most.
const VIRIDIS: [u32; 18] = [
    0x440154, 0x481769, 0x472a7a, 0x433d84, 0x3d4e8a, 0x355e8d, 0x2e6d8e, 0x297b8e, 0x23898e, 0x1f978b,
    0x21a585, 0x2eb37c, 0x46c06f, 0x65cb5e, 0x89d548, 0xb0dd2f, 0xd8e219, 0xfde725,
];

/// A colour, red, green and blue in [0, 255].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rgb([f64; 3]);

impl Rgb {
    /// The colour of a fraction of the scale; outside [0, 1] the colour of the nearer end.
    pub fn of(fraction: f64) -> Self {
        let place = fraction.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
        let below = (place.floor() as usize).min(VIRIDIS.len() - 2);
        let share = place - below as f64;
        let channel = |shift: u32| {
            let [low, high] =
                [VIRIDIS[below], VIRIDIS[below + 1]].map(|rgb| f64::from((rgb >> shift) & 0xff));
            low + (high - low) * share
        };
        Self([channel(16), channel(8), channel(0)])
    }

    /// `#rrggbb`.
    pub fn hex(self) -> String {
        let [red, green, blue] = self.0.map(|channel| channel.round() as u8);
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// Black or white, whichever has the higher contrast with this as background (WCAG 2.1).
    pub fn readable_ink(self) -> &'static str {
        let linear = |channel: f64| {
            let c = channel / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let [red, green, blue] = self.0.map(linear);
        let luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        let (on_white, on_black) = (1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05);
        if on_white > on_black { "#ffffff" } else { "#000000" }
    }
}

/// The numbers that the colours span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    /// The number of the first colour.
    pub low: f64,
    /// The number of the last.
    pub high: f64,
    /// Whether it is the metric's own range, the same in every figure of that metric.
    pub fixed: bool,
}

impl Range {
    /// The range for `values` on a scale; NaN and infinities do not count.
    ///
    /// Similarities: [0, 1] for the metrics that live there, so that figures can be compared. A metric that may be negative (RSA) has
    /// the same unless a value is negative, then [-1, 1]. Values outside their metric's range span what the data span.
    /// Distances: from 0 to the largest. Calibrated values: [0, 1], and further down where the data go.
    pub fn of(scale: &Scale, values: &[f64]) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let smallest = finite().fold(f64::INFINITY, f64::min);
        let largest = finite().fold(f64::NEG_INFINITY, f64::max);
        if !scale.larger_is_more_similar && smallest >= -ROUNDING {
            // All alike: any scale would do.
            let high = if largest > 0.0 { largest } else { 1.0 };
            return Self { low: 0.0, high, fixed: false };
        }
        if smallest >= -ROUNDING && largest <= 1.0 + ROUNDING || smallest > largest {
            return Self { low: 0.0, high: 1.0, fixed: true };
        }
        if scale.is_calibrated && largest <= 1.0 + ROUNDING {
            return Self { low: smallest, high: 1.0, fixed: false };
        }
        if scale.may_be_negative && smallest >= -1.0 - ROUNDING && largest <= 1.0 + ROUNDING {
            return Self { low: -1.0, high: 1.0, fixed: true };
        }
        // Equal values still need a scale that is not a point.
        let high = if largest > smallest { largest } else { smallest + smallest.abs().max(1.0) };
        Self { low: smallest, high, fixed: false }
    }

    /// Where `value` lies between the ends.
    pub fn fraction(self, value: f64) -> f64 {
        // Halved first, so that a span of more than the largest float stays finite.
        (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)
    }

    /// Round numbers inside the range, about `wanted` of them, and their texts.
    pub fn ticks(self, wanted: u32) -> Vec<(f64, String)> {
        let span = self.high - self.low;
        let rough = span / f64::from(wanted.max(1));
        let power = 10f64.powf(rough.log10().floor());
        if !power.is_normal() || !span.is_finite() {
            return [self.low, self.high].map(|end| (end, format!("{end:.1e}"))).to_vec();
        }
        // The longest round step that is not half as long again as the rough one.
        let step = [10.0, 5.0, 2.0, 1.0].into_iter().map(|m| m * power).find(|step| *step <= rough * 1.5);
        let step = step.unwrap_or(power);
        let first = (self.low / step - ROUNDING).ceil();
        let last = (self.high / step + ROUNDING).floor();
        let steps = last - first;
        // A narrow band far from zero has multiples that a float cannot count.
        if !(0.0..=100.0).contains(&steps) || first.abs() > 1e9 {
            return [self.low, self.high].map(|end| (end, format!("{end:.1e}"))).to_vec();
        }
        let multiples = (0..=steps as u32).map(|k| (first + f64::from(k)) * step);
        // Adding 0 turns -0 into 0.
        multiples.map(|value| value + 0.0).map(|value| (value, tick_text(value, step))).collect()
    }
}

/// As many decimals as the step between ticks needs; powers of ten where that would be long.
fn tick_text(value: f64, step: f64) -> String {
    let largest = value.abs().max(step);
    if value == 0.0 && !(1e-4..1.0).contains(&step) {
        "0".to_owned()
    } else if step < 1e-4 || largest >= 1e6 {
        format!("{value:.1e}")
    } else {
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        format!("{value:.decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_scale() {
        assert_eq!(Rgb::of(0.0).hex(), "#440154");
        assert_eq!(Rgb::of(1.0).hex(), "#fde725");
        assert_eq!(Rgb::of(-3.0), Rgb::of(0.0));
        assert_eq!(Rgb::of(0.0).readable_ink(), "#ffffff");
        assert_eq!(Rgb::of(1.0).readable_ink(), "#000000");
    }

    #[test]
    fn ranges() {
        let check = |metric: &str, values: &[f64], low: f64, high: f64| {
            let range = Range::of(&Scale::of(metric), values);
            assert_eq!((range.low, range.high), (low, high), "{metric} {values:?}");
        };
        check("CKA", &[0.8, 1.0], 0.0, 1.0);
        check("CKA", &[f64::NAN], 0.0, 1.0);
        check("CKA", &[1.0 + 1e-9, -1e-12], 0.0, 1.0);
        check("CKA", &[0.5, 3.0], 0.5, 3.0);
        check("RSA", &[0.1, 1.0], 0.0, 1.0);
        check("RSA", &[-0.1, 1.0], -1.0, 1.0);
        check("Procrustes", &[3.0, f64::INFINITY, 7.0], 3.0, 7.0);
        check("Procrustes", &[3.0], 3.0, 6.0);
        check("MagnitudeDifference", &[3.0, 7.0], 0.0, 7.0);
        check("MagnitudeDifference", &[0.0, 1e-4], 0.0, 1e-4);
        check("MagnitudeDifference", &[0.0, f64::NAN], 0.0, 1.0);
        check("MagnitudeDifference", &[f64::NAN], 0.0, 1.0);
        let calibrated = Range::of(&Scale::calibrated("CKA"), &[-0.02, 1.0]);
        assert_eq!((calibrated.low, calibrated.high), (-0.02, 1.0));
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let texts = |low: f64, high: f64| {
            let ticks = Range { low, high, fixed: true }.ticks(5);
            ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(-1.0, 1.0), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(texts(3.0, 7.0), ["3", "4", "5", "6", "7"]);
        assert_eq!(texts(0.0, 59.1), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(texts(0.0, 3e-9)[..2], ["0", "5.0e-10"]);
        // No ends of a range hang or panic.
        let odd = [0.0, 1e-320, 1e-9, 1.0, 1.0 + f64::EPSILON, 1e9, 1e300, f64::MAX];
        for low in odd.iter().flat_map(|x| [*x, -x]) {
            for high in odd.iter().flat_map(|x| [*x, -x]).filter(|high| *high > low) {
                assert!(texts(low, high).len() <= 12, "{low} {high}");
            }
        }
    }
}
