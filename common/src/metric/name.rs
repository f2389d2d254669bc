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
    /// CKA from unbiased HSIC summed over batches. Nguyen et al. 2021.
    #[serde(rename = "MinibatchCKA")]
    MinibatchCka,
    /// CKA with a Gaussian kernel. Kornblith et al. 2019.
    #[serde(rename = "RBFCKA")]
    RbfCka,
    /// Mean share of common nearest neighbours. Huh et al. 2024.
    #[serde(rename = "MutualKNN")]
    MutualKnn,
    /// Common neighbours weighted by their ranks. Wang et al. 2020.
    RankSimilarity,
    /// Cosines of the similarities to common neighbours. Hamilton et al. 2016.
    SecondOrderCosineSimilarity,
    /// Spectral norm of the difference of distance matrices. Yin and Shen 2018.
    #[serde(rename = "RSMNormDifference")]
    RsmNormDifference,
    /// Difference of uniformity. Wang and Isola 2020.
    UniformityDifference,
    /// Difference of the norms of the mean rows. Wang et al. 2020.
    MagnitudeDifference,
    /// Difference of the mean cosine to the mean row. Wang et al. 2020.
    ConcentricityDifference,
    /// Overlap of the spans of the columns. May et al. 2019.
    EigenspaceOverlapScore,
    /// Mean canonical correlation after truncated SVD. Raghu et al. 2017.
    #[serde(rename = "SVCCA")]
    Svcca,
    /// Projection-weighted canonical correlation. Morcos et al. 2018.
    #[serde(rename = "PWCCA")]
    Pwcca,
    /// Distance of linear predictions. Boix-Adsera et al. 2022.
    Gulp,
    /// Share of the variance that a linear map explains. Kornblith et al. 2019.
    LinearRegression,
    /// Procrustes distance of centred rows of unit norm. Ding et al. 2021.
    OrthogonalProcrustesCenteredAndNormalized,
    /// Procrustes distance of centred rows. Williams et al. 2021.
    ProcrustesSizeAndShapeDistance,
    /// Angle after the best rotation. Williams et al. 2021.
    OrthogonalAngularShapeMetricCentered,
    /// Mean cosine of rows after the best rotation. Hamilton et al. 2016.
    AlignedCosineSimilarity,
    /// Distance after the best permutation of columns. Williams et al. 2021.
    PermutationProcrustes,
    /// Mean correlation of columns matched one to one. Li et al. 2016.
    HardCorrelationMatch,
    /// Mean correlation of columns with their best match. Li et al. 2016.
    SoftCorrelationMatch,
}

impl MetricName {
    /// Every metric, in the order in which they are listed.
    pub const ALL: [Self; 26] = [
        Self::Cka,
        Self::Rsa,
        Self::JaccardSimilarity,
        Self::DistanceCorrelation,
        Self::DebiasedCka,
        Self::MinibatchCka,
        Self::RbfCka,
        Self::MutualKnn,
        Self::RankSimilarity,
        Self::SecondOrderCosineSimilarity,
        Self::RsmNormDifference,
        Self::UniformityDifference,
        Self::MagnitudeDifference,
        Self::ConcentricityDifference,
        Self::EigenspaceOverlapScore,
        Self::Svcca,
        Self::Pwcca,
        Self::Gulp,
        Self::LinearRegression,
        Self::OrthogonalProcrustesCenteredAndNormalized,
        Self::ProcrustesSizeAndShapeDistance,
        Self::OrthogonalAngularShapeMetricCentered,
        Self::AlignedCosineSimilarity,
        Self::PermutationProcrustes,
        Self::HardCorrelationMatch,
        Self::SoftCorrelationMatch,
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
            Self::MinibatchCka => "MinibatchCKA",
            Self::RbfCka => "RBFCKA",
            Self::MutualKnn => "MutualKNN",
            Self::RankSimilarity => "RankSimilarity",
            Self::SecondOrderCosineSimilarity => "SecondOrderCosineSimilarity",
            Self::RsmNormDifference => "RSMNormDifference",
            Self::UniformityDifference => "UniformityDifference",
            Self::MagnitudeDifference => "MagnitudeDifference",
            Self::ConcentricityDifference => "ConcentricityDifference",
            Self::EigenspaceOverlapScore => "EigenspaceOverlapScore",
            Self::Svcca => "SVCCA",
            Self::Pwcca => "PWCCA",
            Self::Gulp => "Gulp",
            Self::LinearRegression => "LinearRegression",
            Self::OrthogonalProcrustesCenteredAndNormalized => "OrthogonalProcrustesCenteredAndNormalized",
            Self::ProcrustesSizeAndShapeDistance => "ProcrustesSizeAndShapeDistance",
            Self::OrthogonalAngularShapeMetricCentered => "OrthogonalAngularShapeMetricCentered",
            Self::AlignedCosineSimilarity => "AlignedCosineSimilarity",
            Self::PermutationProcrustes => "PermutationProcrustes",
            Self::HardCorrelationMatch => "HardCorrelationMatch",
            Self::SoftCorrelationMatch => "SoftCorrelationMatch",
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
