//! Self-attention over packed texts. Vaswani et al. 2017.
//!
//! Maps, norms and rotations work on packed tokens; only products of queries and keys see texts, group by group
//! (see [`super::attention_plan`]).

use std::cell::OnceCell;

use lsa_common::architecture::parts::{self, Mask};
use tch::{Kind, TchError, Tensor};

use super::attention_plan::{AttentionPlan, BiasKey, Group, softmax};
use super::disentangled::Disentangled;
use super::linear::{self, Linear};
use super::norm::HeadNorm;
use super::relative_bias::RelativeBias;
use super::rotary::Angles;
use super::sinusoidal::Sinusoidal;
use crate::weights::{Weights, WeightsError};

/// What attention needs to know of a batch, and of the model beyond its own block.
pub struct AttentionContext<'a> {
    /// How the texts lie.
    pub plan: &'a AttentionPlan,
    /// The angles of each kind of rotary positions that the model has.
    pub angles: &'a [Angles],
    /// The learned biases that the model has.
    pub biases: &'a [RelativeBias],
    /// The type of each token, `[t]`; none where all are of one type.
    pub types: Option<&'a Tensor>,
    /// The sinusoids of all distances of the longest text, the same for all blocks, kept by the first that needs them.
    pub sinusoids: OnceCell<Tensor>,
}

/// Multi-head attention with the maps before and after it.
pub struct Attention {
    qkv: Linear,
    out: Linear,
    n_heads: i64,
    n_kv_heads: i64,
    head_dim: i64,
    scale: f64,
    clip: Option<f64>,
    head_norm: Option<HeadNorm>,
    rotary: Option<usize>,
    scores: Scores,
    mask: Mask,
}

/// What goes into a score beside the product of query and key.
enum Scores {
    Products,
    SoftCap(f64),
    RelativeBias(usize),
    /// Biases of the keys by position, made for the longest text when first needed: slope and how it is rounded.
    Alibi(Alibi),
    Disentangled(Box<Disentangled>),
    Sinusoidal(Box<Sinusoidal>),
}

struct Alibi {
    /// [heads, 1, 1], float32.
    slopes: Tensor,
    rounded: bool,
    factor: f64,
}

impl Attention {
    /// Takes the maps and norms.
    pub fn load(weights: &mut Weights<'_>, stored: &parts::Attention) -> Result<Self, WeightsError> {
        let (weight, mut bias) = linear::take_projections(weights, stored)?;
        let scores = match &stored.scores {
            parts::Scores::Products => Scores::Products,
            parts::Scores::SoftCap(cap) => Scores::SoftCap(*cap),
            parts::Scores::RelativeBias(place) => Scores::RelativeBias(*place),
            parts::Scores::Alibi(alibi) => Scores::Alibi(Alibi::new(alibi, &weight)?),
            parts::Scores::Disentangled(scores) => {
                if let Some([query, value]) = &scores.extra_bias {
                    let (query, value) = (weights.take(&query.name)?, weights.take(&value.name)?);
                    bias = Some(Tensor::f_cat(&[&query, &query.f_zeros_like()?, &value], 0)?);
                }
                let content = (&weight, bias.as_ref());
                Scores::Disentangled(Box::new(Disentangled::load(weights, scores, stored, content)?))
            }
            parts::Scores::Sinusoidal(scores) => {
                Scores::Sinusoidal(Box::new(Sinusoidal::load(weights, scores)?))
            }
        };
        let norm = stored.head_norm.as_ref();
        Ok(Self {
            head_norm: norm.map(|norm| HeadNorm::load(weights, norm, stored.head_dim)).transpose()?,
            qkv: Linear::new(weight, bias)?,
            out: Linear::load(weights, &stored.out)?,
            n_heads: stored.n_heads.into(),
            n_kv_heads: stored.n_kv_heads.into(),
            head_dim: stored.head_dim.into(),
            scale: stored.scale,
            clip: stored.clip,
            rotary: stored.rotary,
            scores,
            mask: stored.mask,
        })
    }

    /// [t, d] → [t, d], the residual not included.
    pub fn forward(&self, x: &Tensor, context: &AttentionContext<'_>) -> Result<Tensor, TchError> {
        let heads = self.projected(x, context)?;
        let distance_keys = OnceCell::new();
        let of_group = |group: &Group| self.of_group(&heads, &distance_keys, group, context);
        let outputs: Vec<Tensor> = context.plan.groups.iter().map(of_group).collect::<Result<_, _>>()?;
        drop(heads);
        let joined = match &outputs[..] {
            [output] => output.shallow_clone(),
            outputs => Tensor::f_cat(outputs, 0)?,
        };
        self.out.forward(&joined)
    }

    /// Queries, keys and values of every token, ready to be compared: [t, heads + 2 key heads, width].
    fn projected(&self, x: &Tensor, context: &AttentionContext<'_>) -> Result<Tensor, TchError> {
        let mut qkv = self.qkv.forward(x)?;
        if let Some(clip) = self.clip {
            qkv = qkv.f_clamp_(-clip, clip)?;
        }
        let heads = qkv.f_view([-1, self.n_heads + 2 * self.n_kv_heads, self.head_dim])?;
        if let Some(norm) = &self.head_norm {
            let mut query = heads.f_narrow(1, 0, self.n_heads)?;
            let mut key = heads.f_narrow(1, self.n_heads, self.n_kv_heads)?;
            let (normed_query, normed_key) = (norm.query(&query)?, norm.key(&key)?);
            query.f_copy_(&normed_query)?;
            key.f_copy_(&normed_key)?;
        }
        if let Some(rotary) = self.rotary {
            // Values come last and are not rotated.
            context.angles[rotary].rotate(&heads.f_narrow(1, 0, self.n_heads + self.n_kv_heads)?)?;
        }
        Ok(heads)
    }

    /// The heads' outputs [tokens, heads · width] of one group.
    ///
    /// `distance_keys` is for keys of distances, which are the same for all groups.
    fn of_group(
        &self,
        heads: &Tensor,
        distance_keys: &OnceCell<Tensor>,
        group: &Group,
        context: &AttentionContext<'_>,
    ) -> Result<Tensor, TchError> {
        let padded = group.padded(heads.f_narrow(0, group.first_token, group.n_tokens)?)?;
        let n_all = self.n_heads + 2 * self.n_kv_heads;
        // [texts, heads, length, width], without copying.
        let split = padded.f_view([group.n_texts, group.longest, n_all, self.head_dim])?.f_transpose(1, 2)?;
        let query = split.f_narrow(1, 0, self.n_heads)?;
        let key = self.for_each_query(&split.f_narrow(1, self.n_heads, self.n_kv_heads)?)?;
        let value =
            self.for_each_query(&split.f_narrow(1, self.n_heads + self.n_kv_heads, self.n_kv_heads)?)?;
        let output = self.attended([&query, &key, &value], distance_keys, group, context)?;
        let width = self.n_heads * self.head_dim;
        let output = output.f_transpose(1, 2)?.f_reshape([group.n_texts * group.longest, width])?;
        group.packed(output)
    }

    /// Repeats each head of keys or values for the queries that share it.
    fn for_each_query(&self, heads: &Tensor) -> Result<Tensor, TchError> {
        if self.n_heads == self.n_kv_heads {
            return Ok(heads.shallow_clone());
        }
        let shape = heads.size();
        let (n, length, width) = (shape[0], shape[2], shape[3]);
        let each = self.n_heads / self.n_kv_heads;
        heads.f_unsqueeze(2)?.f_expand([n, self.n_kv_heads, each, length, width], false)?.f_reshape([
            n,
            self.n_heads,
            length,
            width,
        ])
    }

    fn attended(
        &self,
        [query, key, value]: [&Tensor; 3],
        distance_keys: &OnceCell<Tensor>,
        group: &Group,
        context: &AttentionContext<'_>,
    ) -> Result<Tensor, TchError> {
        let fused_from = |query: &Tensor, mask: Option<&Tensor>, causal: bool| {
            Tensor::f_scaled_dot_product_attention(query, key, value, mask, 0.0, causal, self.scale, false)
        };
        let fused = |mask: Option<&Tensor>, causal: bool| fused_from(query, mask, causal);
        match &self.scores {
            Scores::Products if group.is_only_causal(self.mask) => fused(None, true),
            Scores::Products => fused(group.allowed(self.mask)?.as_ref(), false),
            Scores::RelativeBias(place) => {
                let bias = |length| context.biases[*place].of(length);
                fused(Some(&group.masked_bias(self.mask, BiasKey::Relative(*place), bias)?), false)
            }
            Scores::Alibi(alibi) => {
                let bias = |length| alibi.of(length, query.kind());
                fused(Some(&group.masked_bias(self.mask, BiasKey::Alibi, bias)?), false)
            }
            Scores::SoftCap(cap) => {
                let products = query.f_matmul(&key.f_transpose(2, 3)?)?.f_mul_scalar_(self.scale)?;
                let capped = { products }.f_div_scalar_(*cap)?.f_tanh_()?.f_mul_scalar_(*cap)?;
                softmax(&group.hide(capped, self.mask)?)?.f_matmul(value)
            }
            Scores::Disentangled(scores) => {
                let scores = scores.of(query, key)?.f_mul_scalar_(self.scale)?;
                softmax(&group.hide(scores, self.mask)?)?.f_matmul(value)
            }
            Scores::Sinusoidal(scores) => {
                let sinusoids = || scores.sinusoids(context.plan.longest());
                let keys = || scores.keys(kept(&context.sinusoids, sinusoids)?);
                let bias = scores.bias(query, kept(distance_keys, keys)?, group, context.types)?;
                let bias = group.hide(bias.f_mul_scalar(self.scale)?, self.mask)?;
                fused_from(&scores.for_contents(query)?, Some(&bias), false)
            }
        }
    }
}

/// What a cell holds, made when it is asked for first.
fn kept(
    cell: &OnceCell<Tensor>,
    make: impl FnOnce() -> Result<Tensor, TchError>,
) -> Result<&Tensor, TchError> {
    if let Some(kept) = cell.get() {
        return Ok(kept);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

impl Alibi {
    fn new(stored: &parts::Alibi, like: &Tensor) -> Result<Self, TchError> {
        let slopes = Tensor::f_from_slice(&stored.slopes)?.f_to_device(like.device())?.f_view([-1, 1, 1])?;
        Ok(Self { slopes, rounded: stored.rounded, factor: stored.factor })
    }

    /// [1, heads, 1, length].
    fn of(&self, length: i64, kind: Kind) -> Result<Tensor, TchError> {
        let places = Tensor::f_arange(length, (Kind::Float, self.slopes.device()))?;
        let bias = if self.rounded {
            self.slopes.f_to_kind(Kind::BFloat16)?.f_mul(&places.f_to_kind(Kind::BFloat16)?)?
        } else {
            self.slopes.f_mul(&places)?
        };
        bias.f_to_kind(kind)?.f_mul_scalar(self.factor)?.f_unsqueeze(0)
    }
}
