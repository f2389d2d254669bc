//! Rotary positions. Su et al. 2021.

use lsa_common::architecture::parts::{self, Pairing};
use tch::{Device, Kind, TchError, Tensor};

use crate::batch::Batch;

/// Cosine and sine of every token's angles, made once for a batch.
pub struct Angles {
    pairing: Pairing,
    /// Numbers of a head that are rotated.
    width: i64,
    /// [t, 1, pairs].
    cos: Tensor,
    sin: Tensor,
}

impl Angles {
    /// The angles of the tokens of a batch; `positions` is `[t]`.
    ///
    /// Angles and their cosines are float32 whatever the compute dtype, as in the Python library.
    pub fn new(
        rotary: &parts::Rotary,
        batch: &Batch,
        positions: &Tensor,
        kind: Kind,
    ) -> Result<Self, TchError> {
        let device = positions.device();
        let places = positions.f_to_kind(Kind::Float)?.f_unsqueeze(1)?;
        let angles = |inv_freq: &[f32]| {
            let inv_freq = Tensor::f_from_slice(inv_freq)?.f_to_device(device)?;
            places.f_mul(&inv_freq.f_unsqueeze(0)?)
        };
        let mut found = angles(&rotary.inv_freq)?;
        if let Some((longest, inv_freq)) = &rotary.long
            && let Some(is_long) = in_long_texts(batch, *longest, device)?
        {
            found = angles(inv_freq)?.f_where_self(&is_long.f_unsqueeze(1)?, &found)?;
        }
        let scaled =
            |wave: Tensor| { wave }.f_mul_scalar_(rotary.attention_factor)?.f_to_kind(kind)?.f_unsqueeze(1);
        Ok(Self {
            pairing: rotary.pairing,
            width: 2 * rotary.inv_freq.len() as i64,
            cos: scaled(found.f_cos()?)?,
            sin: scaled(found.f_sin()?)?,
        })
    }

    /// Rotates heads [t, heads, width] in place; numbers beyond the rotated ones stay.
    pub fn rotate(&self, heads: &Tensor) -> Result<(), TchError> {
        let rotated = heads.f_narrow(2, 0, self.width)?;
        let half = self.width / 2;
        let (mut a, mut b) = match self.pairing {
            Pairing::Halves => (rotated.f_narrow(2, 0, half)?, rotated.f_narrow(2, half, half)?),
            Pairing::Neighbours => {
                (rotated.f_slice(2, 0, self.width, 2)?, rotated.f_slice(2, 1, self.width, 2)?)
            }
        };
        let new_a = a.f_mul(&self.cos)?.f_sub_(&b.f_mul(&self.sin)?)?;
        let new_b = b.f_mul(&self.cos)?.f_add_(&a.f_mul(&self.sin)?)?;
        a.f_copy_(&new_a)?;
        b.f_copy_(&new_b)
    }
}

/// Which tokens belong to texts of more than `longest` tokens, `[t]`; none if there is no such text.
fn in_long_texts(batch: &Batch, longest: u32, device: Device) -> Result<Option<Tensor>, TchError> {
    let lengths = batch.offsets.windows(2).map(|ends| ends[1] - ends[0]);
    let is_long: Vec<bool> = lengths
        .flat_map(|length| std::iter::repeat_n(length > i64::from(longest), length as usize))
        .collect();
    if !is_long.contains(&true) {
        return Ok(None);
    }
    Tensor::f_from_slice(&is_long)?.f_to_device(device).map(Some)
}
