//! How attention goes over the packed texts of a batch.
//!
//! Texts of a batch follow each other sorted by length. Attention takes them in groups: texts of equal length
//! are a plain view [g, length, …] of the packed tokens; short runs are joined with their neighbours and padded
//! inside the group, within a bound. A pad repeats the last token of its own text and is masked as a key, and
//! its output is dropped, so nothing of it reaches a result.

use std::cell::RefCell;
use std::collections::BTreeMap;

use lsa_common::architecture::parts::Mask;
use tch::{Device, Kind, TchError, Tensor};

use super::relative_bias::distances;

/// Pads per token that a group may have, as a fraction 1 / this.
const PADDING_DIVISOR_MAX: i64 = 8;

/// How attention goes over the texts of one batch.
pub struct AttentionPlan {
    /// The groups, one after the other through the batch.
    pub groups: Vec<Group>,
}

/// Texts that follow each other and go through attention together.
pub struct Group {
    /// Where the group begins in the batch.
    pub first_token: i64,
    /// Its tokens, pads left out.
    pub n_tokens: i64,
    /// Its texts.
    pub n_texts: i64,
    /// Tokens of the longest text.
    pub longest: i64,
    device: Device,
    padding: Option<Padding>,
    /// Masks and biases that blocks have asked for: those of one kind are the same for all blocks.
    kept: RefCell<BTreeMap<(MaskKey, Option<BiasKey>), Tensor>>,
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

type MaskKey = (bool, Option<u32>);

/// Which bias it is that a model adds to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BiasKey {
    /// A learned one, by its place in the model.
    Relative(usize),
    /// The linear one; a model has one at most.
    Alibi,
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

    /// Tokens of the longest text of the batch.
    pub fn longest(&self) -> i64 {
        self.groups.iter().map(|group| group.longest).max().unwrap_or(0)
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
        Ok(Self { first_token, n_tokens, n_texts, longest, device, padding, kept: RefCell::default() })
    }

    /// Tokens [n_tokens, …] of this group → [n_texts · longest, …].
    pub fn padded(&self, tokens: Tensor) -> Result<Tensor, TchError> {
        match &self.padding {
            Some(padding) => tokens.f_index_select(0, &padding.gather),
            None => Ok(tokens),
        }
    }

    /// The way back.
    pub fn packed(&self, padded: Tensor) -> Result<Tensor, TchError> {
        match &self.padding {
            Some(padding) => padded.f_index_select(0, &padding.scatter),
            None => Ok(padded),
        }
    }

    /// Which tokens of a text differ, by a number for each token `[t]` of the batch:
    /// [n_texts, 1, longest, longest], boolean.
    pub fn differing(&self, numbers: &Tensor) -> Result<Tensor, TchError> {
        let numbers = self.padded(numbers.f_narrow(0, self.first_token, self.n_tokens)?)?;
        let of_key = numbers.f_view([self.n_texts, 1, 1, self.longest])?;
        of_key.f_ne_tensor(&of_key.f_transpose(2, 3)?)
    }

    /// Whether no token is kept from a key other than by being behind it.
    pub fn is_only_causal(&self, mask: Mask) -> bool {
        // Pads come after all tokens of their text, which a causal mask hides anyway.
        mask.causal && !self.is_cut_off(mask)
    }

    /// Whether some pairs of a text are farther apart than the mask reaches.
    fn is_cut_off(&self, mask: Mask) -> bool {
        mask.reach.is_some_and(|reach| i64::from(reach) < self.longest - 1)
    }

    /// Which keys a query may see, boolean, [1 or n_texts, 1, longest, longest]; none where it is all of them.
    pub fn allowed(&self, mask: Mask) -> Result<Option<Tensor>, TchError> {
        let key = ((mask.causal, mask.reach), None);
        if let Some(kept) = self.kept.borrow().get(&key) {
            return Ok(Some(kept.shallow_clone()));
        }
        let mut allowed: Option<Tensor> = None;
        let mut and = |more: Tensor| {
            allowed = Some(match allowed.take() {
                Some(so_far) => so_far.f_logical_and(&more)?,
                None => more,
            });
            Ok::<(), TchError>(())
        };
        if mask.causal || self.is_cut_off(mask) {
            let distances =
                distances(self.longest, self.device)?.f_view([1, 1, self.longest, self.longest])?;
            if mask.causal {
                and(distances.f_le(0)?)?;
            }
            if let Some(reach) = mask.reach.filter(|_| self.is_cut_off(mask)) {
                and(distances.f_abs()?.f_le(i64::from(reach))?)?;
            }
        }
        if let Some(padding) = self.padding.as_ref().filter(|_| !mask.causal) {
            and(padding.mask.shallow_clone())?;
        }
        if let Some(allowed) = &allowed {
            self.kept.borrow_mut().insert(key, allowed.shallow_clone());
        }
        Ok(allowed)
    }

    /// A bias [1, heads, 1 or longest, longest] with -∞ where a query may not look, made once for all blocks.
    pub fn masked_bias(
        &self,
        mask: Mask,
        key: BiasKey,
        bias: impl FnOnce(i64) -> Result<Tensor, TchError>,
    ) -> Result<Tensor, TchError> {
        let key = ((mask.causal, mask.reach), Some(key));
        if let Some(kept) = self.kept.borrow().get(&key) {
            return Ok(kept.shallow_clone());
        }
        let mut bias = bias(self.longest)?;
        if let Some(allowed) = self.allowed(mask)? {
            let hidden = Tensor::f_full([1i64], f64::NEG_INFINITY, (bias.kind(), bias.device()))?;
            bias = bias.f_where_self(&allowed, &hidden)?;
        }
        self.kept.borrow_mut().insert(key, bias.shallow_clone());
        Ok(bias)
    }

    /// Hides scores [n_texts, heads, longest, longest] that a query may not see.
    pub fn hide(&self, scores: Tensor, mask: Mask) -> Result<Tensor, TchError> {
        match self.allowed(mask)? {
            Some(allowed) => { scores }.f_masked_fill_(&allowed.f_logical_not()?, f64::NEG_INFINITY),
            None => Ok(scores),
        }
    }
}

/// Softmax of scores over the keys, in float32 whatever their dtype.
pub fn softmax(scores: &Tensor) -> Result<Tensor, TchError> {
    scores.f_softmax(-1, Kind::Float)?.f_to_kind(scores.kind())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn masks_of_a_group() {
        let plan = AttentionPlan::new(&[0, 3], Device::Cpu).expect("planned");
        let check = |causal, reach, expected: Option<[bool; 9]>| {
            let allowed = plan.groups[0].allowed(Mask { causal, reach }).expect("made");
            let found: Option<Vec<bool>> =
                allowed.map(|allowed| Vec::<bool>::try_from(allowed.flatten(0, -1)).expect("flags"));
            assert_eq!(found, expected.map(Vec::from), "{causal} {reach:?}");
        };
        let (x, o) = (true, false);
        check(false, None, None);
        check(false, Some(2), None);
        check(false, Some(1), Some([x, x, o, x, x, x, o, x, x]));
        check(true, None, Some([x, o, o, x, x, o, x, x, x]));
        check(true, Some(1), Some([x, o, o, x, x, o, o, x, x]));
        check(true, Some(0), Some([x, o, o, o, x, o, o, o, x]));
    }
}
