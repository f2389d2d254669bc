//! Scores of contents with relative positions. He et al. 2021, sec. 3.1.

use lsa_common::architecture::parts::{self, PositionMap};
use tch::{Kind, TchError, Tensor};

use super::linear;
use super::norm::Norm;
use super::relative_bias::distances;
use crate::weights::{Weights, WeightsError};

/// Relative positions as keys and as queries, which depend on weights alone.
pub struct Disentangled {
    /// [heads, 2 · span, width], compared with queries.
    keys: Option<Tensor>,
    /// [heads, 2 · span, width], compared with keys.
    queries: Option<Tensor>,
    span: i64,
    buckets: Option<(i64, i64)>,
}

impl Disentangled {
    /// Takes the maps and applies them to the embedding of relative positions.
    ///
    /// `content` is the fused map of queries, keys and values, which files may share with positions.
    pub fn load(
        weights: &mut Weights<'_>,
        stored: &parts::Disentangled,
        attention: &parts::Attention,
        (weight, bias): (&Tensor, Option<&Tensor>),
    ) -> Result<Self, WeightsError> {
        let mut table = weights.share(&stored.table.name)?;
        if let Some(norm) = &stored.table_norm {
            table = Norm::shared(weights, norm)?.forward(&table)?.f_to_kind(weight.kind())?;
        }
        let width = i64::from(attention.width());
        let head_dim = i64::from(attention.head_dim);
        // Queries come first in the fused map, keys second.
        let mut mapped = |map: &PositionMap, part: i64| {
            let mapped = match map {
                PositionMap::Own(linear) => {
                    let (weight, bias) = linear::take(weights, linear)?;
                    table.f_linear(&weight, bias.as_ref())?
                }
                PositionMap::Shared => {
                    let rows = |all: &Tensor| all.f_narrow(0, part * width, width);
                    table.f_linear(&rows(weight)?, bias.map(rows).transpose()?.as_ref())?
                }
            };
            let by_head = mapped.f_view([-1, i64::from(attention.n_heads), head_dim])?;
            Ok::<Tensor, WeightsError>(by_head.f_transpose(0, 1)?.f_contiguous()?)
        };
        Ok(Self {
            keys: stored.position_key.as_ref().map(|map| mapped(map, 1)).transpose()?,
            queries: stored.position_query.as_ref().map(|map| mapped(map, 0)).transpose()?,
            span: stored.span.into(),
            buckets: stored.buckets.map(|(count, distance)| (count.into(), distance.into())),
        })
    }

    /// Queries and keys [texts, heads, length, width] → scores [texts, heads, length, length], not yet scaled.
    pub fn of(&self, query: &Tensor, key: &Tensor) -> Result<Tensor, TchError> {
        let shape = query.size();
        let (n, heads, length) = (shape[0], shape[1], shape[2]);
        let rows = self.rows(length, query)?.f_view([1, 1, length, length])?;
        let rows = rows.f_expand([n, heads, length, length], false)?;
        let mut scores = query.f_matmul(&key.f_transpose(2, 3)?)?;
        if let Some(keys) = &self.keys {
            let all = query.f_matmul(&keys.f_transpose(1, 2)?)?;
            scores = scores.f_add_(&all.f_gather(3, &rows, false)?)?;
        }
        if let Some(queries) = &self.queries {
            let all = key.f_matmul(&queries.f_transpose(1, 2)?)?;
            // Row j of the product belongs to key j, whose distance from query i is that of (i, j).
            let of_keys = all.f_gather(3, &rows.f_transpose(2, 3)?.f_contiguous()?, false)?;
            scores = scores.f_add_(&of_keys.f_transpose(2, 3)?)?;
        }
        Ok(scores)
    }

    /// The row of the table for each pair of query and key, [length, length].
    fn rows(&self, length: i64, like: &Tensor) -> Result<Tensor, TchError> {
        // Here a distance is query less key.
        let distances = distances(length, like.device())?.f_neg()?;
        let distances = match self.buckets {
            Some((count, max_distance)) => bucketed(&distances, count, max_distance)?,
            None => distances,
        };
        distances.f_add_scalar(self.span)?.f_clamp(0, 2 * self.span - 1)
    }
}

/// Distances beyond half of the buckets become logarithmic.
///
/// The logarithm is libtorch's, in float32: at the bounds between buckets rounding decides.
fn bucketed(distances: &Tensor, n_buckets: i64, max_distance: i64) -> Result<Tensor, TchError> {
    let half = n_buckets / 2;
    let magnitude = distances.f_abs()?;
    let near = magnitude.f_lt(half)?;
    let one = Tensor::f_from_slice(&[half - 1])?.f_to_device(distances.device())?;
    let magnitude = one.f_where_self(&near, &magnitude)?;
    let range = Tensor::f_from_slice(&[((max_distance - 1) as f64 / half as f64) as f32])?
        .f_to_device(distances.device())?
        .f_log()?;
    let far = magnitude
        .f_to_kind(Kind::Float)?
        .f_div_scalar(half)?
        .f_log()?
        .f_div(&range)?
        .f_mul_scalar(half - 1)?
        .f_ceil()?
        .f_add_scalar(half)?
        .f_mul(&distances.f_sign()?.f_to_kind(Kind::Float)?)?
        .f_to_kind(Kind::Int64)?;
    distances.f_where_self(&magnitude.f_le(half)?, &far)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_stay_and_far_ones_share() {
        let distances = Tensor::from_slice(&[0i64, 3, -3, 4, -4, 5, -5, 8, 15, -15, 40]);
        let found: Vec<i64> = bucketed(&distances, 8, 16).expect("computed").try_into().expect("numbers");
        assert_eq!(found, [0, 3, -3, 4, -4, 5, -5, 6, 7, -7, 10]);
    }
}
