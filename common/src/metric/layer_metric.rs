//! Quantities of one layer, computed beside the similarities of layers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A quantity of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LayerMetricName {
    /// Exp(-Σ p log p), p the singular values of X divided by their sum. Roy and Vetterli 2007.
    EffectiveRank,
    /// -Σ λ log λ, λ the eigenvalues of U Uᵀ / n, U the rows of unit norm. Skean et al. 2025; Giraldo et al. 2014.
    DatasetEntropy,
    /// Mean cosine of all pairs of different rows. Ethayarajh 2019.
    Anisotropy,
    /// TwoNN: n / Σ log(r₂ / r₁) over distinct rows, r₁ and r₂ the distances to the two nearest others. Facco et al. 2017.
    IntrinsicDimension,
    /// Mean of the norms of the rows.
    NormMean,
    /// Standard deviation of the norms of the rows, ddof 0.
    NormStd,
    /// Smallest norm of a row.
    NormMin,
    /// Largest norm of a row.
    NormMax,
}

/// What is known of a quantity of one layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerMetricInfo {
    /// Its definition.
    pub formula: &'static str,
    /// Where it is defined; empty for plain statistics.
    pub source: &'static str,
    /// What dominates its cost.
    pub cost: &'static str,
}

impl LayerMetricName {
    /// Every one, in the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::EffectiveRank,
        Self::DatasetEntropy,
        Self::Anisotropy,
        Self::IntrinsicDimension,
        Self::NormMean,
        Self::NormStd,
        Self::NormMin,
        Self::NormMax,
    ];

    /// The name as it is written in grid files and results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EffectiveRank => "EffectiveRank",
            Self::DatasetEntropy => "DatasetEntropy",
            Self::Anisotropy => "Anisotropy",
            Self::IntrinsicDimension => "IntrinsicDimension",
            Self::NormMean => "NormMean",
            Self::NormStd => "NormStd",
            Self::NormMin => "NormMin",
            Self::NormMax => "NormMax",
        }
    }

    /// The one of that name; case matters not.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str().eq_ignore_ascii_case(text))
    }

    /// What is known of it.
    pub fn info(self) -> LayerMetricInfo {
        let (formula, source, cost) = match self {
            Self::EffectiveRank => (
                "exp(-Σ p log p), p the singular values of X divided by their sum",
                "Roy and Vetterli 2007",
                "one SVD per layer",
            ),
            Self::DatasetEntropy => (
                "-Σ λ log λ, λ the eigenvalues of U Uᵀ / n, U the rows of unit norm; zero rows are left out",
                "Skean et al. 2025; Giraldo et al. 2014",
                "one n × n or d × d product and its eigenvalues per layer",
            ),
            Self::Anisotropy => {
                ("mean cosine of all pairs of different rows", "Ethayarajh 2019", "O(n d) per layer")
            }
            Self::IntrinsicDimension => (
                "TwoNN: n / Σ log(r₂ / r₁) over distinct rows, r₁ and r₂ the distances to the two nearest other ones",
                "Facco et al. 2017",
                "one n × n product per layer",
            ),
            Self::NormMean => ("mean of the norms of the rows", "", "O(n d) per layer"),
            Self::NormStd => ("standard deviation of the norms of the rows, ddof 0", "", "O(n d) per layer"),
            Self::NormMin => ("smallest norm of a row", "", "O(n d) per layer"),
            Self::NormMax => ("largest norm of a row", "", "O(n d) per layer"),
        };
        LayerMetricInfo { formula, source, cost }
    }
}

impl fmt::Display for LayerMetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
