//! What is known of every metric whatever the data: the table from which metrics are listed, tested and drawn.

use super::MetricName;

/// What may be done to the rows of a layer without changing a metric's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariance {
    /// Multiplying all rows by one orthogonal matrix.
    Rotation,
    /// Multiplying all rows by one positive number.
    Scaling,
    /// Adding one vector to all rows.
    Translation,
    /// Adding one number to all entries of a row, another to those of the next.
    RowOffset,
    /// Multiplying each row by a positive number of its own.
    RowScaling,
    /// Putting the rows of both sides into another common order; for data without ties.
    RowOrder,
}

impl Invariance {
    /// As it is listed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rotation => "rotation",
            Self::Scaling => "scaling",
            Self::Translation => "translation",
            Self::RowOffset => "row offsets",
            Self::RowScaling => "row scaling",
            Self::RowOrder => "row order",
        }
    }
}

/// What holds of a metric whatever the data.
///
/// X is [n, d], one row per text; Xc is X less its mean row; a prime marks the other layer; ‖·‖ of a matrix is the
/// Frobenius norm.
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    /// Its definition.
    pub formula: &'static str,
    /// Where it is defined.
    pub source: &'static str,
    /// What dominates its cost.
    pub cost: &'static str,
    /// Whether comparing a with b and b with a gives the same.
    pub symmetric: bool,
    /// The smallest and the largest value.
    pub range: (f64, f64),
    /// Whether a larger value means that layers are more alike.
    pub larger_is_more_similar: bool,
    /// The value of a layer compared with itself.
    pub identical: f64,
    /// What does not change the value.
    pub invariances: &'static [Invariance],
    /// Whether `k`, the neighbours counted, can be set.
    pub counts_neighbours: bool,
    /// The fewest rows on which it is defined, apart from what `k` asks for.
    pub rows_min: u32,
}

impl MetricName {
    /// What is known of the metric.
    pub fn info(self) -> &'static MetricInfo {
        use Invariance::{Rotation, RowOffset, RowOrder, RowScaling, Scaling, Translation};
        match self {
            Self::Cka => &MetricInfo {
                formula: "⟨K, K'⟩ / (‖K‖ ‖K'‖), K = Xc Xcᵀ",
                source: "Kornblith et al. 2019, section 3",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                counts_neighbours: false,
                rows_min: 2,
            },
            Self::Rsa => &MetricInfo {
                formula: "Spearman correlation of the upper triangles of the n × n matrices of Pearson correlations of rows",
                source: "Kriegeskorte et al. 2008",
                cost: "one n × n product and a sort of n² / 2 numbers per layer",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Scaling, RowScaling, RowOffset, RowOrder],
                counts_neighbours: false,
                rows_min: 3,
            },
            Self::JaccardSimilarity => &MetricInfo {
                formula: "mean over rows of |N ∩ N'| / |N ∪ N'|, N the k nearest other rows by cosine",
                source: "Wang et al. 2020",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowScaling, RowOrder],
                counts_neighbours: true,
                rows_min: 2,
            },
            Self::DistanceCorrelation => &MetricInfo {
                formula: "√(⟨A, A'⟩ / (‖A‖ ‖A'‖)), A the double-centred matrix of distances",
                source: "Székely et al. 2007, definition 5",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                counts_neighbours: false,
                rows_min: 2,
            },
            Self::DebiasedCka => &MetricInfo {
                formula: "HSIC₁(K, K') / √(HSIC₁(K, K) HSIC₁(K', K')), HSIC₁ the unbiased estimator",
                source: "Song et al. 2012, equation 4; Nguyen et al. 2021",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                counts_neighbours: false,
                rows_min: 4,
            },
            Self::MutualKnn => &MetricInfo {
                formula: "mean over rows of |N ∩ N'| / k, N the k nearest other rows by cosine",
                source: "Huh et al. 2024, section 3",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowScaling, RowOrder],
                counts_neighbours: true,
                rows_min: 2,
            },
            Self::RankSimilarity => &MetricInfo {
                formula: "mean over rows of Σ_{j in N ∩ N'} 2 / ((1 + |r_j - r'_j|)(r_j + r'_j)) / H, H = Σ_{i ≤ |N ∩ N'|} 1 / i, r the rank of j in N",
                source: "Wang et al. 2020",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowScaling, RowOrder],
                counts_neighbours: true,
                rows_min: 2,
            },
        }
    }
}
