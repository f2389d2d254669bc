//! Which similarity metrics are asked for: names and parameters as data, no arithmetic.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod catalogue;
mod layer_metric;
mod name;
mod number;

pub use catalogue::{Invariance, MetricInfo, Parameter};
pub use layer_metric::{LayerMetricInfo, LayerMetricName};
pub use name::MetricName;
pub use number::Number;

/// The neighbours that metrics over neighbours look at unless told otherwise, as in ReSi.
pub const K_DEFAULT: u32 = 10;

/// The width of the RBF kernel as a part of the median distance, unless told otherwise.
pub const SIGMA_DEFAULT: f64 = 1.0;

/// The rows of a batch of `MinibatchCKA`, unless told otherwise.
pub const BATCH_SIZE_DEFAULT: u32 = 256;

/// The share of the variance that `SVCCA` keeps of a layer, unless told otherwise.
pub const VARIANCE_DEFAULT: f64 = 0.99;

/// How two rows of one layer are compared within a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inner {
    /// By the cosine of the rows.
    Cosine,
    /// By the Pearson correlation of the rows.
    Correlation,
    /// By their euclidean distance.
    Euclidean,
}

impl Inner {
    /// Every one, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::Correlation, Self::Euclidean];

    /// As it is written in grid files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Correlation => "correlation",
            Self::Euclidean => "euclidean",
        }
    }

    /// The one of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|inner| inner.as_str() == text)
    }
}

/// A metric with its parameters; those that the metric does not have are `None`, all others are set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Which metric.
    pub name: MetricName,
    /// Neighbours counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub k: Option<u32>,
    /// How the rows of a layer are compared with one another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inner: Option<Inner>,
    /// The width of the RBF kernel as a part of the median distance.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sigma: Option<Number>,
    /// Rows of a batch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch_size: Option<u32>,
    /// The share of the variance that is kept, in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variance: Option<Number>,
}

impl MetricSpec {
    /// The metric with its default parameters.
    pub fn new(name: MetricName) -> Self {
        let mut spec = Self { name, k: None, inner: None, sigma: None, batch_size: None, variance: None };
        for parameter in name.info().parameters {
            match parameter {
                Parameter::K => spec.k = Some(K_DEFAULT),
                Parameter::Inner(default) => spec.inner = Some(*default),
                Parameter::Sigma => spec.sigma = Number::new(SIGMA_DEFAULT),
                Parameter::BatchSize => spec.batch_size = Some(BATCH_SIZE_DEFAULT),
                Parameter::Variance => spec.variance = Number::new(VARIANCE_DEFAULT),
            }
        }
        spec
    }

    /// The neighbours that the metric counts.
    pub fn neighbours(&self) -> u32 {
        self.k.unwrap_or(K_DEFAULT)
    }

    /// The fewest rows on which the metric is defined.
    pub fn rows_min(&self) -> u32 {
        match self.k {
            Some(k) => k.saturating_add(1),
            None => self.name.info().rows_min,
        }
    }

    /// Why the metric is undefined on `n` rows, if it is.
    pub fn refuses(&self, n: u64) -> Option<String> {
        let rows_min = self.rows_min();
        (n < u64::from(rows_min)).then(|| match self.k {
            Some(k) => format!("{} with k = {k} needs at least {rows_min} rows (k + 1), got {n}", self.name),
            None => format!("{} needs at least {rows_min} rows, got {n}", self.name),
        })
    }

    /// The parameters and their values as they are written in a grid file, in a fixed order.
    pub fn parameters(&self) -> Vec<(&'static str, Value)> {
        let of = |name, value: Option<Value>| value.map(|value| (name, value));
        [
            of("k", self.k.map(Value::from)),
            of("inner", self.inner.map(|inner| inner.as_str().into())),
            of("sigma", self.sigma.map(|sigma| sigma.get().into())),
            of("batch_size", self.batch_size.map(Value::from)),
            of("variance", self.variance.map(|share| share.get().into())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A parameter's value as it is shown: without quotes.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl fmt::Display for MetricSpec {
    /// The name, and those parameters in parentheses that are not the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::new(self.name).parameters();
        let own = self.parameters();
        let other: Vec<String> = own
            .iter()
            .filter(|parameter| !usual.contains(parameter))
            .map(|(name, value)| format!("{name} = {}", plain(value)))
            .collect();
        match other.is_empty() {
            true => write!(f, "{}", self.name),
            false => write!(f, "{} ({})", self.name, other.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_whatever_their_case_and_stored_as_written() {
        for name in MetricName::ALL {
            assert_eq!(MetricName::parse(&name.as_str().to_lowercase()), Some(name));
            let spec = MetricSpec::new(name);
            let stored = serde_json::to_string(&spec).unwrap();
            assert!(stored.starts_with(&format!("{{\"name\":\"{name}\"")), "{stored}");
            assert_eq!(serde_json::from_str::<MetricSpec>(&stored).unwrap(), spec);
        }
        assert_eq!(MetricName::parse("Cosine"), None);
    }

    #[test]
    fn only_what_is_not_the_default_is_shown() {
        let jaccard = MetricSpec::new(MetricName::JaccardSimilarity);
        assert_eq!(jaccard.to_string(), "JaccardSimilarity");
        assert_eq!(MetricSpec { k: Some(5), ..jaccard }.to_string(), "JaccardSimilarity (k = 5)");
    }
}
