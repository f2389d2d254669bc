//! What the numbers of a matrix mean: which way is more similar, and how far apart two layers are.

use lsa_common::metric::MetricName;

use super::color::ROUNDING;

/// As much of a metric as a figure must know; a metric of another program counts as a similarity in [-1, 1].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    /// What is measured, as axes name it.
    pub quantity: String,
    /// Whether a larger value means that layers are more alike.
    pub larger_is_more_similar: bool,
    /// Whether the values lie between those of unrelated rows, 0, and of identical layers, 1.
    pub is_calibrated: bool,
    /// Whether a value below 0 is in the metric's range.
    pub may_be_negative: bool,
    /// Whether comparing a with b and b with a gives the same.
    pub symmetric: bool,
    /// The value of a layer compared with itself.
    identical: f64,
    /// The least value from which a distance can be had.
    least: f64,
}

impl Scale {
    /// Of the metric with that name.
    pub fn of(metric: &str) -> Self {
        let info = MetricName::parse(metric).map(MetricName::info);
        Self {
            quantity: metric.to_owned(),
            larger_is_more_similar: info.is_none_or(|info| info.larger_is_more_similar),
            is_calibrated: false,
            may_be_negative: info.is_none_or(|info| info.range.0 < 0.0),
            symmetric: info.is_none_or(|info| info.symmetric),
            identical: info.map_or(1.0, |info| info.identical),
            least: info.map_or(-1.0, |info| info.range.0.min(-1.0)),
        }
    }

    /// Of the same after calibration, which makes a similarity of every metric.
    pub fn calibrated(metric: &str) -> Self {
        Self {
            quantity: format!("calibrated {metric}"),
            larger_is_more_similar: true,
            is_calibrated: true,
            may_be_negative: true,
            identical: 1.0,
            least: f64::NEG_INFINITY,
            ..Self::of(metric)
        }
    }

    /// How far apart layers of that similarity, or at that distance, are.
    pub fn distance(&self, value: f64) -> f64 {
        let distance = if self.larger_is_more_similar { self.identical - value } else { value };
        distance.max(0.0)
    }

    /// Whether the distance of a value says anything.
    pub fn has_distance(&self, value: f64) -> bool {
        if self.larger_is_more_similar {
            (self.least - ROUNDING..=self.identical + ROUNDING).contains(&value)
        } else {
            value >= -ROUNDING
        }
    }

    /// The distance as axes name it; short, since the title says which metric it is.
    pub fn distance_name(&self) -> String {
        match (self.larger_is_more_similar, self.is_calibrated) {
            (true, true) => "1 - calibrated value".to_owned(),
            (true, false) => format!("{} - {}", self.identical, self.quantity),
            (false, _) => self.quantity.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_follow_the_catalogue() {
        let check = |scale: &Scale, value: f64, distance: f64, name: &str| {
            assert_eq!((scale.distance(value), scale.distance_name().as_str()), (distance, name));
        };
        check(&Scale::of("CKA"), 0.75, 0.25, "1 - CKA");
        check(&Scale::of("CKA"), 1.0 + 1e-9, 0.0, "1 - CKA");
        check(&Scale::of("Gulp"), 0.75, 0.75, "Gulp");
        check(&Scale::calibrated("Gulp"), 0.75, 0.25, "1 - calibrated value");
        check(&Scale::of("Other"), -0.5, 1.5, "1 - Other");
        let has = |metric: &str, value: f64| Scale::of(metric).has_distance(value);
        assert!(has("CKA", 1.0 + 1e-9) && has("Gulp", 1e9) && has("RSA", -1.0));
        assert!(!has("CKA", 3.0) && !has("Gulp", -0.1) && !has("Other", -5.0) && !has("CKA", f64::NAN));
        assert!(Scale::calibrated("CKA").has_distance(-5.0));
        assert!(!Scale::of("PWCCA").symmetric && Scale::of("CKA").symmetric);
    }
}
