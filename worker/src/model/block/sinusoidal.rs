//! Scores of contents with sinusoids of their distance, and with segments. Dai et al. 2019, sec. 3.3; Yang et al. 2019,
//! sec. 2.4.

use lsa_common::architecture::parts;
use tch::{Device, Kind, TchError, Tensor};

use super::attention_plan::Group;
use super::linear::Linear;
use crate::weights::{Weights, WeightsError};

/// What sinusoids and segments are compared with.
pub struct Sinusoidal {
    /// Sinusoids → keys of all heads side by side.
    key: Linear,
    width: i64,
    n_heads: i64,
    /// What is added to queries before they meet contents, distances and segments: [heads, 1, width of a head] each.
    content_bias: Tensor,
    distance_bias: Tensor,
    segment_bias: Tensor,
    /// The key of another segment less that of the same one, [heads, width of a head, 1].
    ///
    /// What the key of the same segment gives is the same for all tokens that a query looks at, and softmax forgets it.
    other_segment: Tensor,
    max_distance: Option<i64>,
}

impl Sinusoidal {
    /// Takes the map and the biases.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::Sinusoidal) -> Result<Self, WeightsError> {
        let mut bias = |parameter: &parts::Parameter| {
            Ok::<Tensor, WeightsError>(weights.take(&parameter.name)?.f_unsqueeze(1)?)
        };
        let content_bias = bias(&stored.content_bias)?;
        let distance_bias = bias(&stored.distance_bias)?;
        let segment_bias = bias(&stored.segment_bias)?;
        let segments = weights.take_float32(&stored.segments.name)?;
        let other_segment = segments.f_select(0, 1)?.f_sub(&segments.f_select(0, 0)?)?;
        Ok(Self {
            key: Linear::load(weights, &stored.key)?,
            width: stored.key.width_in.into(),
            n_heads: content_bias.size()[0],
            other_segment: other_segment.f_to_kind(content_bias.kind())?.f_unsqueeze(2)?,
            content_bias,
            distance_bias,
            segment_bias,
            max_distance: stored.max_distance.map(i64::from),
        })
    }

    /// The sinusoids of the distances from `length - 1` down to `1 - length`, [2 · length - 1, width], float32.
    pub fn sinusoids(&self, length: i64) -> Result<Tensor, TchError> {
        sinusoids(length, self.width, self.max_distance, self.content_bias.device())
    }

    /// Sinusoids → the keys of as many distances, [heads, distances, width of a head].
    pub fn keys(&self, sinusoids: &Tensor) -> Result<Tensor, TchError> {
        let keys = self.key.forward(sinusoids)?;
        keys.f_view([sinusoids.size()[0], self.n_heads, -1])?.f_transpose(0, 1)
    }

    /// Queries as they meet contents.
    pub fn for_contents(&self, query: &Tensor) -> Result<Tensor, TchError> {
        query.f_add(&self.content_bias)
    }

    /// What is added to a group's products of contents, before they are scaled: [texts, heads, length, length].
    ///
    /// `query` is [texts, heads, length, width of a head]; `keys` are those of the distances of the longest text of the
    /// batch; `types` those of its tokens, none where they are all the same.
    pub fn bias(
        &self,
        query: &Tensor,
        keys: &Tensor,
        group: &Group,
        types: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let (n_texts, length) = (group.n_texts, group.longest);
        let n_distances = 2 * length - 1;
        let keys = keys.f_narrow(1, (keys.size()[1] - n_distances) / 2, n_distances)?;
        let products =
            query.f_add(&self.distance_bias)?.f_matmul(&keys.f_transpose(1, 2)?)?.f_contiguous()?;
        // The distance of query i from key j, i - j, is in column length - 1 - i + j: each row begins one further left.
        let strides = [self.n_heads * length * n_distances, length * n_distances, n_distances - 1, 1];
        let bias = products.f_as_strided([n_texts, self.n_heads, length, length], strides, length - 1)?;
        let Some(types) = types else { return Ok(bias) };
        let of_queries = query.f_add(&self.segment_bias)?.f_matmul(&self.other_segment)?;
        bias.f_add(&of_queries.f_mul(&group.differing(types)?)?)
    }
}

/// Half of each row are sines, half cosines. Frequencies and angles are libtorch's, in float32: rounding them in
/// another way shows at large distances.
fn sinusoids(length: i64, width: i64, max_distance: Option<i64>, device: Device) -> Result<Tensor, TchError> {
    let floats = (Kind::Float, device);
    let exponents = Tensor::f_arange_start_step(0, width, 2, floats)?.f_div_scalar(width)?;
    let frequencies = Tensor::f_pow_scalar(10_000, &exponents)?.f_reciprocal()?;
    let mut distances = Tensor::f_arange_start_step(length - 1, -length, -1, floats)?;
    if let Some(max_distance) = max_distance {
        distances = distances.f_clamp(-max_distance, max_distance)?;
    }
    let angles = distances.f_unsqueeze(1)?.f_mul(&frequencies)?;
    Tensor::f_cat(&[angles.f_sin()?, angles.f_cos()?], 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distances_from_far_behind_to_far_ahead() {
        let found = sinusoids(4, 4, Some(2), Device::Cpu).expect("computed");
        assert_eq!(found.size(), [7, 4]);
        for (row, distance) in (0..).zip([2f64, 2., 1., 0., -1., -2., -2.]) {
            let angles = [distance, distance / 100.0];
            let expected = [angles.map(f64::sin), angles.map(f64::cos)].concat();
            let found: Vec<f64> = found.get(row).try_into().expect("numbers");
            // The rounding of float32.
            let agrees = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(agrees, "row {row}: {found:?}, expected {expected:?}");
        }
    }
}
