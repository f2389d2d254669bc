//! Tokens → the input of block 0.

use lsa_common::architecture::parts::{self, PositionRule, ProjectionPlace};
use tch::{Kind, TchError, Tensor};

use super::linear::Linear;
use super::norm::Norm;
use crate::batch::Batch;
use crate::weights::{Weights, WeightsError};

/// The sum of a row for the token, a row for its position, and rows that are the same everywhere.
pub struct Embedding {
    tokens: Tensor,
    scale: Option<f64>,
    positions: Option<(Tensor, PositionRule)>,
    /// What is the same at every position; part of the table where there is one.
    shift: Option<Tensor>,
    norm: Option<Norm>,
    projection: Option<(Linear, ProjectionPlace)>,
}

impl Embedding {
    /// Takes the tables.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::Embedding) -> Result<Self, WeightsError> {
        let tokens = weights.take(&stored.tokens.name)?;
        let mut shift: Option<Tensor> = None;
        for constant in &stored.constants {
            let row = weights.take(&constant.table.name)?.f_select(0, i64::from(constant.row))?;
            shift = Some(match shift {
                Some(sum) => sum.f_add(&row)?,
                None => row,
            });
        }
        let positions = match &stored.positions {
            None => None,
            Some(positions) => {
                let table = weights.take(&positions.table.name)?;
                // The shift is the same in every row, and of one width with the table unless tokens alone are mapped.
                let table = match shift.take() {
                    Some(shift) => table.f_add(&shift)?,
                    None => table,
                };
                Some((table, positions.rule))
            }
        };
        let norm = stored.norm.as_ref().map(|norm| Norm::load(weights, norm)).transpose()?;
        let projection = match &stored.projection {
            None => None,
            Some((linear, place)) => Some((Linear::load(weights, linear)?, *place)),
        };
        Ok(Self { tokens, scale: stored.scale, positions, shift, norm, projection })
    }

    /// The tokens of a batch, whose ids are on the device as well, → [t, d], float32.
    pub fn forward(&self, batch: &Batch, ids: &Tensor) -> Result<Tensor, TchError> {
        let mut x = self.tokens.f_index_select(0, ids)?.f_to_kind(Kind::Float)?;
        if let Some(scale) = self.scale {
            x = x.f_mul_scalar_(scale)?;
        }
        x = self.projected(x, ProjectionPlace::Tokens)?;
        if let Some((table, rule)) = &self.positions {
            let rows = Tensor::f_from_slice(&position_rows(batch, *rule))?.f_to_device(ids.device())?;
            x = x.f_add_(&table.f_index_select(0, &rows)?)?;
        }
        if let Some(shift) = &self.shift {
            x = x.f_add_(shift)?;
        }
        x = self.projected(x, ProjectionPlace::BeforeNorm)?;
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        self.projected(x, ProjectionPlace::AfterNorm)
    }

    fn projected(&self, x: Tensor, here: ProjectionPlace) -> Result<Tensor, TchError> {
        match &self.projection {
            Some((linear, place)) if *place == here => linear.forward(&x)?.f_to_kind(Kind::Float),
            Some(_) | None => Ok(x),
        }
    }
}

/// The row of the position table that each token takes.
fn position_rows(batch: &Batch, rule: PositionRule) -> Vec<i64> {
    match rule {
        PositionRule::Place { offset } => {
            batch.positions().into_iter().map(|place| place + i64::from(offset)).collect()
        }
        PositionRule::CountUnlessPadding { padding_idx } => {
            let padding_idx = i64::from(padding_idx);
            let text = |ends: &[i64]| {
                let mut counted = padding_idx;
                let row = move |id: &i64| {
                    if *id == padding_idx {
                        padding_idx
                    } else {
                        counted += 1;
                        counted
                    }
                };
                batch.ids[ends[0] as usize..ends[1] as usize].iter().map(row).collect::<Vec<i64>>()
            };
            batch.offsets.windows(2).flat_map(text).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_positions() {
        let batch = Batch::pack([&[5, 1, 7][..], &[8, 9]]);
        let check = |rule, expected: &[i64]| assert_eq!(position_rows(&batch, rule), expected, "{rule:?}");
        check(PositionRule::Place { offset: 0 }, &[0, 1, 2, 0, 1]);
        check(PositionRule::Place { offset: 2 }, &[2, 3, 4, 2, 3]);
        // A padding token inside a text takes its own row and is not counted.
        check(PositionRule::CountUnlessPadding { padding_idx: 1 }, &[2, 1, 3, 2, 3]);
    }
}
