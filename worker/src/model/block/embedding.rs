//! Token and learned position embeddings.

use tch::{TchError, Tensor};

use crate::weights::{Weights, WeightsError};

/// The sum of a row for the token and a row for its position.
pub struct Embedding {
    tokens: Tensor,
    positions: Tensor,
}

impl Embedding {
    /// Takes both tables; `shift` `[d]` is added to every row of the positions, for what is the same everywhere.
    pub fn load(
        weights: &mut Weights,
        tokens: &str,
        positions: &str,
        shift: &Tensor,
    ) -> Result<Self, WeightsError> {
        let tokens = weights.take(tokens)?;
        let positions = weights.take(positions)?.f_add(shift)?;
        Ok(Self { tokens, positions })
    }

    /// Ids and positions `[t]` → [t, d].
    pub fn forward(&self, ids: &Tensor, positions: &Tensor) -> Result<Tensor, TchError> {
        self.tokens.f_index_select(0, ids)?.f_add_(&self.positions.f_index_select(0, positions)?)
    }
}
