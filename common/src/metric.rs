//! Which similarity metrics are asked for: names and parameters as data, no arithmetic.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A similarity metric, named as in the ReSi benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MetricName {
    /// Linear centred kernel alignment. Kornblith et al. 2019.
    #[serde(rename = "CKA")]
    Cka,
    /// Representational similarity analysis. Kriegeskorte et al. 2008.
    #[serde(rename = "RSA")]
    Rsa,
    /// Mean Jaccard overlap of nearest neighbours. Wang et al. 2020.
    JaccardSimilarity,
    /// Distance correlation. Székely et al. 2007.
    DistanceCorrelation,
}

impl MetricName {
    /// Every metric, in the order in which they are listed and run.
    pub const ALL: [Self; 4] = [Self::Cka, Self::Rsa, Self::JaccardSimilarity, Self::DistanceCorrelation];

    /// The name as it is written in grid files, file names and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cka => "CKA",
            Self::Rsa => "RSA",
            Self::JaccardSimilarity => "JaccardSimilarity",
            Self::DistanceCorrelation => "DistanceCorrelation",
        }
    }

    /// The metric of that name; case matters not.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The neighbours that `JaccardSimilarity` looks at unless told otherwise.
pub const K_DEFAULT: u32 = 10;

/// A metric with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Which metric.
    pub name: MetricName,
    /// Neighbours counted; only for metrics over neighbours.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub k: Option<u32>,
}

impl MetricSpec {
    /// The metric with its default parameters.
    pub fn new(name: MetricName) -> Self {
        let k = (name == MetricName::JaccardSimilarity).then_some(K_DEFAULT);
        Self { name, k }
    }

    /// The fewest rows on which the metric is defined.
    pub fn rows_min(&self) -> u32 {
        match self.name {
            MetricName::Cka | MetricName::DistanceCorrelation => 2,
            MetricName::Rsa => 3,
            MetricName::JaccardSimilarity => self.k.unwrap_or(K_DEFAULT).saturating_add(1),
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
}
