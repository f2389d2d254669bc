//! A learned bias by bucketed distance. Raffel et al. 2020.

use lsa_common::architecture::parts;
use tch::{Device, Kind, TchError, Tensor};

use crate::weights::{Weights, WeightsError};

/// The table of one bias, shared by the blocks that refer to it.
pub struct RelativeBias {
    /// [buckets, heads].
    table: Tensor,
    n_buckets: i64,
    max_distance: i64,
}

impl RelativeBias {
    /// Takes the table.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::RelativeBias) -> Result<Self, WeightsError> {
        Ok(Self {
            table: weights.take(&stored.table.name)?,
            n_buckets: i64::from(stored.n_buckets),
            max_distance: i64::from(stored.max_distance),
        })
    }

    /// The bias of every pair of a text of `length` tokens, [1, heads, length, length].
    pub fn of(&self, length: i64) -> Result<Tensor, TchError> {
        let device = self.table.device();
        let buckets = buckets(&distances(length, device)?, self.n_buckets, self.max_distance)?;
        let rows = self.table.f_index_select(0, &buckets.f_flatten(0, -1)?)?;
        rows.f_view([length, length, -1])?.f_permute([2, 0, 1])?.f_unsqueeze(0)?.f_contiguous()
    }
}

/// Key position less query position, [length, length], int64.
pub fn distances(length: i64, device: Device) -> Result<Tensor, TchError> {
    let places = Tensor::f_arange(length, (Kind::Int64, device))?;
    places.f_unsqueeze(0)?.f_sub(&places.f_unsqueeze(1)?)
}

/// Half of the buckets for each direction; of these, half for distances of their own, the rest logarithmic.
///
/// The logarithm is libtorch's, in float32: at the bounds between buckets rounding decides.
fn buckets(distances: &Tensor, n_buckets: i64, max_distance: i64) -> Result<Tensor, TchError> {
    let half = n_buckets / 2;
    let exact = half / 2;
    let forward = distances.f_gt(0)?.f_to_kind(Kind::Int64)?.f_mul_scalar(half)?;
    let distance = distances.f_abs()?;
    let log_range = (max_distance as f64 / exact as f64).ln();
    let far = distance
        .f_to_kind(Kind::Float)?
        .f_div_scalar(exact)?
        .f_log()?
        .f_div_scalar(log_range)?
        .f_mul_scalar(half - exact)?
        // The logarithm of 0 would have no integer; near distances are not taken from here.
        .f_clamp_min(0.0)?
        .f_to_kind(Kind::Int64)?
        .f_add_scalar(exact)?
        .f_clamp_max(half - 1)?;
    distance.f_where_self(&distance.f_lt(exact)?, &far)?.f_add(&forward)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_buckets_of_their_own() {
        let distances =
            Tensor::from_slice(&[0i64, -1, -7, -8, -15, -16, -127, -128, -5000, 1, 7, 8, 16, 200]);
        let found: Vec<i64> = buckets(&distances, 32, 128).expect("computed").try_into().expect("numbers");
        assert_eq!(found, [0, 1, 7, 8, 9, 10, 15, 15, 15, 17, 23, 24, 26, 31]);
    }
}
