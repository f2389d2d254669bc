//! x W' + b, and how weights that belong together become one product, whatever the file's layout.

use lsa_common::architecture::parts::{self, FusedOrder, Inner, Projections};
use tch::{Device, Kind, TchError, Tensor};

use crate::device;
use crate::weights::{Weights, WeightsError};

/// An affine map of the last dimension.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    /// Whether weight and bias are in oneDNN's layout, and inputs and outputs are to be copied into it and back.
    in_onednn: bool,
}

impl Linear {
    /// Takes a map as it is stored.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::Linear) -> Result<Self, WeightsError> {
        let (weight, bias) = take(weights, stored)?;
        Ok(Self::new(weight, bias)?)
    }

    /// A map by a weight [out, in] and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self, TchError> {
        let on_cpu = weight.device() == Device::Cpu && weight.kind() == Kind::Float;
        if on_cpu && device::float32_products_by_onednn() {
            let weight = weight.f_to_mkldnn(Kind::Float)?;
            let bias = bias.map(|bias| bias.f_to_mkldnn(Kind::Float)).transpose()?;
            return Ok(Self { weight, bias, in_onednn: true });
        }
        Ok(Self { weight, bias, in_onednn: false })
    }

    /// [t, in] of any dtype → [t, out] in the dtype of the weight.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        #[cfg(test)]
        counter::add(x);
        if self.in_onednn {
            let product = x.f_to_mkldnn(Kind::Float)?.f_mkldnn_linear(&self.weight, self.bias.as_ref())?;
            return product.f_to_dense(Kind::Float, false);
        }
        x.f_to_kind(self.weight.kind())?.f_linear(&self.weight, self.bias.as_ref())
    }

    /// The dtype in which it computes.
    pub fn kind(&self) -> Kind {
        if self.in_onednn { Kind::Float } else { self.weight.kind() }
    }
}

/// The weight [out, in] and the bias of a map.
pub fn take(
    weights: &mut Weights<'_>,
    stored: &parts::Linear,
) -> Result<(Tensor, Option<Tensor>), WeightsError> {
    let weight = take_weight(weights, stored)?;
    let bias = stored.bias.then(|| weights.take(&stored.bias_name())).transpose()?;
    Ok((weight, bias))
}

fn take_weight(weights: &mut Weights<'_>, stored: &parts::Linear) -> Result<Tensor, WeightsError> {
    let weight = weights.take(&stored.weight_name())?;
    let weight = if stored.heads.is_some() { weight.f_flatten(1, -1)? } else { weight };
    if stored.transposed { Ok(weight.f_transpose(0, 1)?.f_contiguous()?) } else { Ok(weight) }
}

/// Queries, keys and values as one weight [(heads + 2 key heads) · width, d] in that order, and its bias.
pub fn take_projections(
    weights: &mut Weights<'_>,
    attention: &parts::Attention,
) -> Result<(Tensor, Option<Tensor>), WeightsError> {
    match &attention.projections {
        Projections::Separate(linears) => take_side_by_side(weights, linears),
        Projections::Fused { linear, order } => {
            let (weight, bias) = take(weights, linear)?;
            match order {
                FusedOrder::Concatenated => Ok((weight, bias)),
                FusedOrder::PerKeyHead => Ok((
                    concatenated(&weight, attention)?,
                    bias.map(|bias| concatenated(&bias, attention)).transpose()?,
                )),
            }
        }
    }
}

/// Rows in the order of key heads (its queries, its key, its value) → all queries, all keys, all values.
fn concatenated(rows: &Tensor, attention: &parts::Attention) -> Result<Tensor, TchError> {
    let [n_kv, head_dim] = [attention.n_kv_heads, attention.head_dim].map(i64::from);
    let group = i64::from(attention.n_heads) / n_kv;
    let mut shape = vec![n_kv, group + 2, head_dim];
    shape.extend(&rows.size()[1..]);
    let by_head = rows.f_reshape(&shape)?;
    let part = |start, length| {
        let mut shape = vec![n_kv * length * head_dim];
        shape.extend(&rows.size()[1..]);
        by_head.f_narrow(1, start, length)?.f_reshape(&shape)
    };
    Tensor::f_cat(&[part(0, group)?, part(group, 1)?, part(group + 1, 1)?], 0)
}

/// Gate and what it multiplies as one weight, the gate first; or the one map that there is.
pub fn take_inner(
    weights: &mut Weights<'_>,
    inner: &Inner,
) -> Result<(Tensor, Option<Tensor>), WeightsError> {
    match inner {
        Inner::Plain(linear) | Inner::GatedFused { linear, gate_first: true } => take(weights, linear),
        Inner::Gated { gate, up } => take_side_by_side(weights, [gate, up]),
        Inner::GatedFused { linear, gate_first: false } => {
            let (weight, bias) = take(weights, linear)?;
            let swapped = |rows: &Tensor| {
                let half = rows.size()[0] / 2;
                Tensor::f_cat(&[rows.f_narrow(0, half, half)?, rows.f_narrow(0, 0, half)?], 0)
            };
            Ok((swapped(&weight)?, bias.as_ref().map(swapped).transpose()?))
        }
    }
}

/// Several maps of the same input as one, their outputs side by side: one large product, not many.
fn take_side_by_side<'a>(
    weights: &mut Weights<'_>,
    linears: impl IntoIterator<Item = &'a parts::Linear>,
) -> Result<(Tensor, Option<Tensor>), WeightsError> {
    let linears: Vec<&parts::Linear> = linears.into_iter().collect();
    let weight = if linears.iter().any(|linear| linear.transposed) {
        let taken = linears.iter().map(|linear| take_weight(weights, linear));
        Tensor::f_cat(&taken.collect::<Result<Vec<_>, _>>()?, 0)?
    } else {
        let names: Vec<String> = linears.iter().map(|linear| linear.weight_name()).collect();
        weights.take_stacked(&names)?
    };
    let biased = linears.iter().filter(|linear| linear.bias).map(|linear| linear.bias_name());
    let biases: Vec<String> = biased.collect();
    let bias = if biases.is_empty() { None } else { Some(weights.take_stacked(&biases)?) };
    Ok((weight, bias))
}

/// Counts rows, so that a test can tell whether padding is computed.
#[cfg(test)]
pub mod counter {
    use std::cell::RefCell;

    use tch::Tensor;

    thread_local! {
        static ROWS: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes the rows of a product.
    pub fn add(x: &Tensor) {
        ROWS.with_borrow_mut(|rows| rows.push(x.size()[0]));
    }

    /// The rows of each product of this thread since the last call.
    pub fn take() -> Vec<i64> {
        ROWS.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_libraries_give_the_same_product() {
        // Sums of 100 products of unit size, in another order.
        const ERROR_MAX: f64 = 1e-4;
        let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        for bias in [None, Some(tensor(&[7]))] {
            let (x, weight) = (tensor(&[33, 100]), tensor(&[7, 100]));
            let expected = x.linear(&weight, bias.as_ref());
            let found = Linear::new(weight, bias).and_then(|linear| linear.forward(&x)).expect("computed");
            let error = (found - expected).abs().max().double_value(&[]);
            assert!(error <= ERROR_MAX, "{error}");
        }
    }

    #[test]
    fn rows_per_key_head_are_put_in_order() {
        let linear = |name: &str| parts::Linear {
            name: name.to_owned(),
            width_in: 1,
            width_out: 1,
            bias: false,
            transposed: false,
            heads: None,
        };
        let attention = parts::Attention {
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 1,
            projections: Projections::Fused { linear: linear("in"), order: FusedOrder::PerKeyHead },
            out: linear("out"),
            scale: 1.0,
            clip: None,
            head_norm: None,
            rotary: None,
            scores: parts::Scores::Products,
            mask: parts::Mask { causal: false, reach: None },
        };
        // Key head 0 has queries 0 and 1, key 10, value 20; key head 1 has 2, 3, 11, 21.
        let rows = Tensor::from_slice(&[0i64, 1, 10, 20, 2, 3, 11, 21]);
        let found: Vec<i64> = concatenated(&rows, &attention).expect("shaped").try_into().expect("numbers");
        assert_eq!(found, [0, 1, 2, 3, 10, 11, 20, 21]);
    }
}
