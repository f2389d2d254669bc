//! The names of the similarity metrics.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A similarity metric, named as in the ReSi benchmark where that has it.
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
    /// CKA with the unbiased estimator of HSIC. Song et al. 2012.
    #[serde(rename = "DebiasedCKA")]
    DebiasedCka,
    /// Mean share of common nearest neighbours. Huh et al. 2024.
    #[serde(rename = "MutualKNN")]
    MutualKnn,
    /// Common neighbours weighted by their ranks. Wang et al. 2020.
    RankSimilarity,
}

impl MetricName {
    /// Every metric, in the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::Cka,
        Self::Rsa,
        Self::JaccardSimilarity,
        Self::DistanceCorrelation,
        Self::DebiasedCka,
        Self::MutualKnn,
        Self::RankSimilarity,
    ];

    /// The metrics that are computed unless others are asked for.
    pub const DEFAULT: [Self; 4] = [Self::Cka, Self::Rsa, Self::JaccardSimilarity, Self::DistanceCorrelation];

    /// The name as it is written in grid files, file names and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cka => "CKA",
            Self::Rsa => "RSA",
            Self::JaccardSimilarity => "JaccardSimilarity",
            Self::DistanceCorrelation => "DistanceCorrelation",
            Self::DebiasedCka => "DebiasedCKA",
            Self::MutualKnn => "MutualKNN",
            Self::RankSimilarity => "RankSimilarity",
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
