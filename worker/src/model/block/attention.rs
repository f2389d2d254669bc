//! Full self-attention over packed texts. Vaswani et al. 2017.
//!
//! Texts of a batch follow each other sorted by length. Attention takes them in groups: texts of equal length
//! are a plain view [g, length, …] of the packed tokens; short runs are joined with their neighbours and padded
//! inside the group, within a bound. A pad repeats the last token of its own text and is masked as a key, and
//! its output is dropped, so nothing of it reaches a result.

use tch::{Device, TchError, Tensor};

use super::linear::Linear;

/// Pads per token that a group may have, as a fraction 1 / this.
const PADDING_DIVISOR_MAX: i64 = 8;

/// How attention goes over the texts of one batch.
pub struct AttentionPlan {
    groups: Vec<Group>,
}

/// Texts that follow each other and go through attention together.
struct Group {
    first_token: i64,
    n_tokens: i64,
    n_texts: i64,
    longest: i64,
    padding: Option<Padding>,
}

/// The way into the padded form and back.
struct Padding {
    /// Which token of the group stands at each padded place, [n_texts · longest].
    gather: Tensor,
    /// Which padded place each token has, [n_tokens].
    scatter: Tensor,
    /// Which keys a text may see, [n_texts, 1, 1, longest], boolean.
    mask: Tensor,
}

impl AttentionPlan {
    /// Groups the texts between `offsets` [n + 1].
    pub fn new(offsets: &[i64], device: Device) -> Result<Self, TchError> {
        let lengths: Vec<i64> = offsets.windows(2).map(|ends| ends[1] - ends[0]).collect();
        let group = |(first, end): (usize, usize)| Group::new(&lengths[first..end], offsets[first], device);
        let groups =
            group_ranges(&lengths, alone_tokens(device)).into_iter().map(group).collect::<Result<_, _>>()?;
        Ok(Self { groups })
    }
}

/// A run of equally long texts with this many tokens is a group of its own.
///
/// Below it, the fixed cost of another call outweighs gathering into padded form: a few microseconds of
/// bookkeeping on a CPU, a handful of kernel launches on a GPU.
fn alone_tokens(device: Device) -> i64 {
    if device.is_cuda() { 4096 } else { 64 }
}

/// Ranges of texts: whole runs of equal length, short runs joined as long as the padding stays within its bound.
fn group_ranges(lengths: &[i64], alone_tokens: i64) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let mut joinable = false;
    let mut start = 0;
    while start < lengths.len() {
        let end = start + lengths[start..].iter().take_while(|length| **length == lengths[start]).count();
        let alone = lengths[start] * (end - start) as i64 >= alone_tokens;
        match ranges.last_mut() {
            Some(last) if joinable && !alone && padding_fits(&lengths[last.0..end]) => last.1 = end,
            _ => ranges.push((start, end)),
        }
        joinable = !alone;
        start = end;
    }
    ranges
}

fn padding_fits(lengths: &[i64]) -> bool {
    let tokens: i64 = lengths.iter().sum();
    let padded = lengths.iter().max().unwrap_or(&0) * lengths.len() as i64;
    (padded - tokens) * PADDING_DIVISOR_MAX <= tokens
}

impl Group {
    fn new(lengths: &[i64], first_token: i64, device: Device) -> Result<Self, TchError> {
        let n_texts = lengths.len() as i64;
        let n_tokens = lengths.iter().sum();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let padding = if n_tokens == n_texts * longest {
            None
        } else {
            let (mut gather, mut scatter, mut mask) = (Vec::new(), Vec::new(), Vec::new());
            let mut token = 0;
            for (text, length) in (0..).zip(lengths) {
                gather.extend((0..longest).map(|place| token + place.min(length - 1)));
                scatter.extend((0..*length).map(|place| text * longest + place));
                mask.extend((0..longest).map(|place| place < *length));
                token += length;
            }
            Some(Padding {
                gather: Tensor::f_from_slice(&gather)?.f_to_device(device)?,
                scatter: Tensor::f_from_slice(&scatter)?.f_to_device(device)?,
                mask: Tensor::f_from_slice(&mask)?.f_view([n_texts, 1, 1, longest])?.f_to_device(device)?,
            })
        };
        Ok(Self { first_token, n_tokens, n_texts, longest, padding })
    }
}

/// Multi-head attention with a linear map before and after it.
pub struct Attention {
    qkv: Linear,
    out: Linear,
    n_heads: i64,
}

impl Attention {
    /// From the map to queries, keys and values side by side, [3 d, d], and the map of the heads' outputs.
    pub fn new(qkv: Linear, out: Linear, n_heads: u32) -> Self {
        Self { qkv, out, n_heads: i64::from(n_heads) }
    }

    /// [t, d] → [t, d], the residual not included.
    pub fn forward(&self, x: &Tensor, plan: &AttentionPlan) -> Result<Tensor, TchError> {
        let qkv = self.qkv.forward(x)?;
        let heads = |group: &Group| self.heads(&qkv.f_narrow(0, group.first_token, group.n_tokens)?, group);
        let outputs: Vec<Tensor> = plan.groups.iter().map(heads).collect::<Result<_, _>>()?;
        drop(qkv);
        let joined = match &outputs[..] {
            [output] => output.shallow_clone(),
            outputs => Tensor::f_cat(outputs, 0)?,
        };
        self.out.forward(&joined)
    }

    /// Queries, keys and values [tokens, 3 d] of one group → the heads' outputs [tokens, d].
    fn heads(&self, qkv: &Tensor, group: &Group) -> Result<Tensor, TchError> {
        let padded = match &group.padding {
            Some(padding) => &qkv.f_index_select(0, &padding.gather)?,
            None => qkv,
        };
        let width = padded.size()[1] / 3;
        let split = padded.f_view([group.n_texts, group.longest, 3, self.n_heads, width / self.n_heads])?;
        // [3, texts, heads, length, width of a head], without copying.
        let split = split.f_permute([2, 0, 3, 1, 4])?;
        let (query, key, value) = (split.f_select(0, 0)?, split.f_select(0, 1)?, split.f_select(0, 2)?);
        let mask = group.padding.as_ref().map(|padding| &padding.mask);
        let output =
            Tensor::f_scaled_dot_product_attention(&query, &key, &value, mask, 0.0, false, None, false)?;
        let output = output.f_transpose(1, 2)?.f_reshape([group.n_texts * group.longest, width])?;
        match &group.padding {
            Some(padding) => output.f_index_select(0, &padding.scatter),
            None => Ok(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn long_runs_stand_alone_and_short_ones_join_within_the_bound() {
        let check = |lengths: &[i64], expected: &[(usize, usize)]| {
            assert_eq!(group_ranges(lengths, 64), expected, "{lengths:?}");
        };
        check(&[], &[]);
        check(&[5], &[(0, 1)]);
        check(&[8, 8, 9, 9], &[(0, 4)]);
        check(&[32, 32, 33, 33], &[(0, 2), (2, 4)]);
        // 8 and 16 would be a third of padding.
        check(&[8, 16], &[(0, 1), (1, 2)]);
        check(&[30, 32, 32, 33], &[(0, 1), (1, 3), (3, 4)]);
        check(&[200, 201], &[(0, 1), (1, 2)]);
    }

    fn random_linear(out: i64, width: i64) -> Linear {
        let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        Linear::new(tensor(&[out, width]), tensor(&[out])).expect("built")
    }

    #[test]
    fn a_pad_never_leaks() {
        // Sums of a few hundred products of unit size, in another order: rounding only.
        const ERROR_MAX: f64 = 1e-4;
        let width = 12;
        let attention = Attention::new(random_linear(3 * width, width), random_linear(width, width), 3);
        let offsets = [0, 7, 15, 23, 32];
        let plan = AttentionPlan::new(&offsets, Device::Cpu).expect("planned");
        assert_eq!(plan.groups.len(), 1, "the texts are to share a padded group");
        let x = Tensor::randn([32, width], (Kind::Float, Device::Cpu));
        // One text without a sound value must leave its neighbours alone.
        let _ = x.narrow(0, 15, 8).fill_(f64::NAN);
        let together = attention.forward(&x, &plan).expect("computed");
        for ends in offsets.windows(2) {
            let length = ends[1] - ends[0];
            let plan = AttentionPlan::new(&[0, length], Device::Cpu).expect("planned");
            let alone = attention.forward(&x.narrow(0, ends[0], length), &plan).expect("computed");
            let error = (together.narrow(0, ends[0], length) - alone).abs().max().double_value(&[]);
            if ends[0] == 15 {
                assert!(error.is_nan());
            } else {
                assert!(error <= ERROR_MAX, "text at {}: {error}", ends[0]);
            }
        }
    }
}
