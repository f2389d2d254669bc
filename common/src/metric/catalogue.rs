//! What is known of every metric whatever the data: the table from which metrics are listed, tested and drawn.

use super::{Inner, MetricName};

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
    /// Multiplying all rows by one invertible matrix.
    LinearMap,
    /// Putting the rows of both sides into another common order; for data without ties.
    RowOrder,
    /// Putting the columns of one side into another order.
    ColumnOrder,
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
            Self::LinearMap => "invertible linear maps",
            Self::RowOrder => "row order",
            Self::ColumnOrder => "column order",
        }
    }
}

/// A parameter of a metric, with its default where metrics differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `k`: neighbours counted.
    K,
    /// `inner`: how the rows of a layer are compared with one another.
    Inner(Inner),
    /// `sigma`: the width of the RBF kernel as a part of the median distance.
    Sigma,
    /// `batch_size`: rows of a batch.
    BatchSize,
    /// `variance`: the share of the variance that is kept.
    Variance,
}

impl Parameter {
    /// The key in a grid file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::K => "k",
            Self::Inner(_) => "inner",
            Self::Sigma => "sigma",
            Self::BatchSize => "batch_size",
            Self::Variance => "variance",
        }
    }
}

/// What holds of a metric whatever the data.
///
/// X is [n, d], one row per text; Xc is X less its mean row; a prime marks the other layer; ‖·‖ of a matrix is the
/// Frobenius norm, ‖·‖_* the sum of its singular values.
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
    /// What can be set.
    pub parameters: &'static [Parameter],
    /// The fewest rows on which it is defined, apart from what `k` asks for.
    pub rows_min: u32,
}

impl MetricName {
    /// What is known of the metric.
    pub fn info(self) -> &'static MetricInfo {
        use Invariance::{
            ColumnOrder, LinearMap, Rotation, RowOffset, RowOrder, RowScaling, Scaling, Translation,
        };
        const INF: f64 = f64::INFINITY;
        match self {
            Self::Cka => &MetricInfo {
                formula: "⟨K, K'⟩ / (‖K‖ ‖K'‖), K = Xc Xcᵀ",
                source: "Kornblith et al. 2019, section 3",
                cost: "one n × n or d × d product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::Rsa => &MetricInfo {
                formula: "Spearman correlation of the upper triangles of the n × n matrices of row similarities",
                source: "Kriegeskorte et al. 2008",
                cost: "one n × n product and a sort of n² / 2 numbers per layer",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Scaling, RowScaling, RowOffset, RowOrder, ColumnOrder],
                parameters: &[Parameter::Inner(Inner::Correlation)],
                rows_min: 3,
            },
            Self::JaccardSimilarity => &MetricInfo {
                formula: "mean over rows of |N ∩ N'| / |N ∪ N'|, N the k nearest other rows",
                source: "Wang et al. 2020",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowScaling, RowOrder],
                parameters: &[Parameter::K, Parameter::Inner(Inner::Cosine)],
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
                parameters: &[],
                rows_min: 2,
            },
            Self::DebiasedCka => &MetricInfo {
                formula: "HSIC₁(K, K') / √(HSIC₁(K, K) HSIC₁(K', K')), HSIC₁ the unbiased estimator",
                source: "Song et al. 2012, equation 4; Kornblith et al. 2019",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                parameters: &[],
                rows_min: 4,
            },
            Self::MinibatchCka => &MetricInfo {
                formula: "the same with HSIC₁ summed over batches of consecutive rows, a remainder in the last",
                source: "Nguyen, Raghu and Kornblith 2021, equation 2",
                cost: "one product of the batches per layer",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation],
                parameters: &[Parameter::BatchSize],
                rows_min: 4,
            },
            Self::RbfCka => &MetricInfo {
                formula: "CKA with K_ij = exp(-‖x_i - x_j‖² / (2 σ² m²)), m the median distance",
                source: "Kornblith et al. 2019, section 3",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                parameters: &[Parameter::Sigma],
                rows_min: 2,
            },
            Self::MutualKnn => &MetricInfo {
                formula: "mean over rows of |N ∩ N'| / k, N the k nearest other rows",
                source: "Huh et al. 2024, section 3",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowScaling, RowOrder],
                parameters: &[Parameter::K, Parameter::Inner(Inner::Cosine)],
                rows_min: 2,
            },
            Self::RankSimilarity => &MetricInfo {
                formula: "mean over rows of Σ_{j in N ∩ N'} 2 / ((1 + |r_j - r'_j|)(r_j + r'_j)) / H, H = Σ_{i ≤ |N ∩ N'|} 1 / i",
                source: "Wang et al. 2020",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowScaling, RowOrder],
                parameters: &[Parameter::K, Parameter::Inner(Inner::Cosine)],
                rows_min: 2,
            },
            Self::SecondOrderCosineSimilarity => &MetricInfo {
                formula: "mean over rows i of cos(D_i[U], D'_i[U]), U = N_i ∪ N'_i, D the matrix of row distances",
                source: "Hamilton et al. 2016",
                cost: "one n × n product per layer, O(n k) per pair",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowScaling, RowOrder],
                parameters: &[Parameter::K, Parameter::Inner(Inner::Cosine)],
                rows_min: 2,
            },
            Self::RsmNormDifference => &MetricInfo {
                formula: "‖D - D'‖₂ (spectral norm), D the n × n matrix of row distances",
                source: "Yin and Shen 2018; as the ReSi benchmark computes it",
                cost: "one n × n product per layer, some tens of n × n passes per pair",
                symmetric: true,
                range: (0.0, INF),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, Translation, RowOrder],
                parameters: &[Parameter::Inner(Inner::Euclidean)],
                rows_min: 2,
            },
            Self::UniformityDifference => &MetricInfo {
                formula: "|u - u'|, u = log mean_ij exp(-2 ‖x_i - x_j‖²)",
                source: "Wang and Isola 2020",
                cost: "one n × n product per layer",
                symmetric: true,
                range: (0.0, INF),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, Translation, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::MagnitudeDifference => &MetricInfo {
                formula: "|‖mean x‖ - ‖mean x'‖|",
                source: "Wang et al. 2020",
                cost: "O(n d) per layer",
                symmetric: true,
                range: (0.0, INF),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::ConcentricityDifference => &MetricInfo {
                formula: "|c - c'|, c = mean_i cos(x_i, mean x)",
                source: "Wang et al. 2020",
                cost: "O(n d) per layer",
                symmetric: true,
                range: (0.0, 2.0),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, Scaling, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::EigenspaceOverlapScore => &MetricInfo {
                formula: "‖Uᵀ U'‖² / max(r, r'), U the left singular vectors of X, r its numerical rank",
                source: "May et al. 2019",
                cost: "one SVD per layer, one d × d product per pair",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, LinearMap, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::Svcca => &MetricInfo {
                formula: "mean canonical correlation of the leading singular directions that hold the share `variance`",
                source: "Raghu et al. 2017",
                cost: "one SVD per layer, one d × d SVD per pair",
                symmetric: true,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                parameters: &[Parameter::Variance],
                rows_min: 3,
            },
            Self::Pwcca => &MetricInfo {
                formula: "Σ w_i ρ_i / Σ w_i, ρ the canonical correlations, w_i = Σ_j |⟨h_i, x_j⟩|, h_i the directions in the layer with fewer columns",
                source: "Morcos et al. 2018",
                cost: "one SVD per layer, one d × d SVD per pair",
                symmetric: false,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Scaling, Translation, RowOrder, ColumnOrder],
                parameters: &[],
                rows_min: 3,
            },
            Self::Gulp => &MetricInfo {
                formula: "tr(Σ_a⁻¹Σ_aΣ_a⁻¹Σ_a) + tr(Σ_b⁻¹Σ_bΣ_b⁻¹Σ_b) - 2 tr(Σ_a⁻¹Σ_abΣ_b⁻¹Σ_abᵀ), Σ⁻¹ the pseudoinverse",
                source: "Boix-Adsera et al. 2022, λ = 0",
                cost: "one SVD per layer, one d × d product per pair",
                symmetric: true,
                range: (0.0, INF),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, Scaling, Translation, LinearMap, RowOrder],
                parameters: &[],
                rows_min: 3,
            },
            Self::LinearRegression => &MetricInfo {
                formula: "‖Q'ᵀ Xc‖² / ‖Xc‖², Q' an orthonormal basis of the columns of X'c: what the second layer predicts of the first",
                source: "Kornblith et al. 2019, section 2",
                cost: "one SVD per layer, one d × d product per pair",
                symmetric: false,
                range: (0.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::OrthogonalProcrustesCenteredAndNormalized => &MetricInfo {
                formula: "√(2 - 2 ‖Xcᵀ X'c‖_*), both of unit Frobenius norm",
                source: "Ding et al. 2021; Williams et al. 2021",
                cost: "one d × d product and its singular values per pair",
                symmetric: true,
                range: (0.0, std::f64::consts::SQRT_2),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::ProcrustesSizeAndShapeDistance => &MetricInfo {
                formula: "√(‖Xc‖² + ‖X'c‖² - 2 ‖Xcᵀ X'c‖_*)",
                source: "Williams et al. 2021",
                cost: "one d × d product and its singular values per pair",
                symmetric: true,
                range: (0.0, INF),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, Translation, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::OrthogonalAngularShapeMetricCentered => &MetricInfo {
                formula: "arccos(‖Xcᵀ X'c‖_* / (‖Xc‖ ‖X'c‖))",
                source: "Williams et al. 2021",
                cost: "one d × d product and its singular values per pair",
                symmetric: true,
                range: (0.0, std::f64::consts::FRAC_PI_2),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[Rotation, Scaling, Translation, RowOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::AlignedCosineSimilarity => &MetricInfo {
                formula: "mean_i cos(x_i Q, x'_i), Q = argmin ‖X Q - X'‖ orthogonal; without rows that are zero in either",
                source: "Hamilton et al. 2016",
                cost: "one d × d product and its SVD per pair",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Rotation, Scaling, RowOrder],
                parameters: &[],
                rows_min: 1,
            },
            Self::PermutationProcrustes => &MetricInfo {
                formula: "min_P ‖X P - X'‖, P a permutation of columns",
                source: "Williams et al. 2021",
                cost: "one d × d product and an assignment of d columns per pair",
                symmetric: true,
                range: (0.0, INF),
                larger_is_more_similar: false,
                identical: 0.0,
                invariances: &[RowOrder, ColumnOrder],
                parameters: &[],
                rows_min: 1,
            },
            Self::HardCorrelationMatch => &MetricInfo {
                formula: "largest mean correlation of columns matched one to one; 0 for a constant column",
                source: "Li et al. 2016",
                cost: "one d × d product and an assignment of d columns per pair",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Scaling, Translation, RowOrder, ColumnOrder],
                parameters: &[],
                rows_min: 2,
            },
            Self::SoftCorrelationMatch => &MetricInfo {
                formula: "mean over both sides of the mean best correlation of a column; 0 for a constant column",
                source: "Li et al. 2016",
                cost: "one d × d product per pair",
                symmetric: true,
                range: (-1.0, 1.0),
                larger_is_more_similar: true,
                identical: 1.0,
                invariances: &[Scaling, Translation, RowOrder, ColumnOrder],
                parameters: &[],
                rows_min: 2,
            },
        }
    }
}
