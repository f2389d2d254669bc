//! Packed hidden states [t, d] → one float32 row per text, [n, d].
//!
//! Sums run in float32 whatever the compute dtype, from the first token to the last. There are no pads in a
//! packed batch, so none can be counted.

use lsa_common::model::Pooling;
use tch::{Device, Kind, TchError, Tensor};

/// A trained pooler: first tokens [n, d] → [n, d].
pub type TrainedPooler<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor, TchError>;

/// One layer of one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRows {
    /// For each pooling asked for, in that order: [n, d], row-major.
    pub rows: Vec<Vec<f32>>,
    /// Texts, counted from 0 in the batch, with a hidden state or a pooled value that is not finite.
    pub nonfinite: Vec<usize>,
}

/// Pools one layer.
///
/// `hidden` is [t, d] in any floating-point dtype, `offsets` [n + 1] with no empty text. Fails if
/// [`Pooling::Pooler`] is asked for and `pooler` is absent, or if libtorch fails.
pub fn pool(
    hidden: &Tensor,
    offsets: &[i64],
    poolings: &[Pooling],
    pooler: Option<TrainedPooler<'_>>,
) -> Result<LayerRows, TchError> {
    let trained = if poolings.contains(&Pooling::Pooler) {
        let pooler =
            pooler.ok_or_else(|| TchError::Torch("the checkpoint has no trained pooler".to_owned()))?;
        let first = positions(&offsets[..offsets.len() - 1], hidden.device())?;
        Some(to_host(&pooler(&hidden.f_index_select(0, &first)?)?)?)
    } else {
        None
    };
    let mut pooled = if hidden.device() == Device::Cpu {
        on_cpu(hidden, offsets, poolings)?
    } else {
        by_tensor_operations(hidden, offsets, poolings)?
    };
    if let Some(trained) = trained {
        for (rows, _) in
            pooled.rows.iter_mut().zip(poolings).filter(|(_, pooling)| **pooling == Pooling::Pooler)
        {
            rows.clone_from(&trained);
        }
    }
    let width = usize::try_from(hidden.size()[1]).unwrap_or(0).max(1);
    for rows in &pooled.rows {
        let texts = rows.chunks_exact(width).enumerate();
        pooled
            .nonfinite
            .extend(texts.filter(|(_, row)| row.iter().any(|x| !x.is_finite())).map(|(text, _)| text));
    }
    pooled.nonfinite.sort_unstable();
    pooled.nonfinite.dedup();
    Ok(pooled)
}

/// All poolings and the check for non-finite values in one pass over the tokens.
///
/// An operation per pooling would read the hidden states from memory once each.
fn on_cpu(hidden: &Tensor, offsets: &[i64], poolings: &[Pooling]) -> Result<LayerRows, TchError> {
    let hidden = hidden.f_to_kind(Kind::Float)?.f_contiguous()?;
    let width = hidden.size()[1] as usize;
    // SAFETY: a contiguous float32 tensor on the CPU is `numel` floats from `data_ptr` on, and `hidden` lives on.
    let values = unsafe { std::slice::from_raw_parts(hidden.data_ptr().cast::<f32>(), hidden.numel()) };
    let n_texts = offsets.len() - 1;
    let mut rows: Vec<Vec<f32>> = poolings.iter().map(|_| Vec::with_capacity(n_texts * width)).collect();
    let mut nonfinite = Vec::new();
    let (mut sum, mut max) = (vec![0f32; width], vec![0f32; width]);
    let with_mean = poolings.contains(&Pooling::Mean);
    let with_max = poolings.contains(&Pooling::Max);
    for (text, ends) in offsets.windows(2).enumerate() {
        let (start, end) = (ends[0] as usize, ends[1] as usize);
        let tokens = &values[start * width..end * width];
        if !all_finite(tokens) {
            nonfinite.push(text);
        }
        let (first, last) = (&tokens[..width], &tokens[tokens.len() - width..]);
        if with_mean {
            sum.fill(0.0);
            for token in tokens.chunks_exact(width) {
                sum.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
            }
            let n_tokens = (end - start) as f32;
            sum.iter_mut().for_each(|sum| *sum /= n_tokens);
        }
        if with_max {
            max.copy_from_slice(first);
            for token in tokens.chunks_exact(width) {
                max.iter_mut().zip(token).for_each(|(max, x)| *max = if *x > *max { *x } else { *max });
            }
        }
        for (rows, pooling) in rows.iter_mut().zip(poolings) {
            match pooling {
                Pooling::Mean => rows.extend_from_slice(&sum),
                Pooling::Max => rows.extend_from_slice(&max),
                Pooling::Cls => rows.extend_from_slice(first),
                Pooling::LastToken => rows.extend_from_slice(last),
                // Filled in by the caller.
                Pooling::Pooler => {}
            }
        }
    }
    Ok(LayerRows { rows, nonfinite })
}

/// Whether no value has all bits of its exponent set; written without branches, so that it vectorises.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let found = values.iter().fold(0u32, |found, x| found | u32::from(x.to_bits() & EXPONENT == EXPONENT));
    found == 0
}

/// The same on the device where the hidden states are; only pooled rows travel.
fn by_tensor_operations(
    hidden: &Tensor,
    offsets: &[i64],
    poolings: &[Pooling],
) -> Result<LayerRows, TchError> {
    let hidden = hidden.f_to_kind(Kind::Float)?.f_contiguous()?;
    let device = hidden.device();
    let lengths: Vec<i64> = offsets.windows(2).map(|ends| ends[1] - ends[0]).collect();
    let lengths = positions(&lengths, device)?;
    let reduced = |how: &str, initial: f64| {
        let none = None::<&Tensor>;
        Tensor::f_segment_reduce(&hidden, how, Some(&lengths), none, none, 0, true, initial)
    };
    let mut rows = Vec::new();
    for pooling in poolings {
        rows.push(match pooling {
            Pooling::Mean => to_host(&reduced("mean", 0.0)?)?,
            Pooling::Max => to_host(&reduced("max", f64::NEG_INFINITY)?)?,
            Pooling::Cls => {
                let first = positions(&offsets[..offsets.len() - 1], device)?;
                to_host(&hidden.f_index_select(0, &first)?)?
            }
            Pooling::LastToken => {
                let last: Vec<i64> = offsets[1..].iter().map(|end| end - 1).collect();
                to_host(&hidden.f_index_select(0, &positions(&last, device)?)?)?
            }
            // Filled in by the caller.
            Pooling::Pooler => Vec::new(),
        });
    }
    let worst = to_host(&hidden.f_abs()?.f_amax([1i64].as_slice(), false)?)?;
    let sound = |ends: &[i64]| worst[ends[0] as usize..ends[1] as usize].iter().all(|x| x.is_finite());
    let texts = offsets.windows(2).enumerate();
    let nonfinite = texts.filter(|(_, ends)| !sound(ends)).map(|(text, _)| text).collect();
    Ok(LayerRows { rows, nonfinite })
}

fn positions(values: &[i64], device: Device) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(values)?.f_to_device(device)
}

/// The values of a tensor as float32, row-major.
fn to_host(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let tensor = tensor.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0f32; tensor.numel()];
    let n_values = values.len();
    tensor.f_copy_data(&mut values, n_values)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_BUT_POOLER: [Pooling; 4] = [Pooling::Mean, Pooling::Cls, Pooling::Max, Pooling::LastToken];

    #[test]
    fn poolings_of_a_small_batch() {
        let hidden = Tensor::from_slice(&[1f32, -8., 3., -2., 5., -9., 7., 0.]).view([4, 2]);
        let pooled = pool(&hidden, &[0, 3, 4], &ALL_BUT_POOLER, None).expect("pooled");
        assert_eq!(pooled.rows[0], [3., -19. / 3., 7., 0.]);
        assert_eq!(pooled.rows[1], [1., -8., 7., 0.]);
        assert_eq!(pooled.rows[2], [5., -2., 7., 0.]);
        assert_eq!(pooled.rows[3], [5., -9., 7., 0.]);
        assert!(pooled.nonfinite.is_empty());
    }

    #[test]
    fn a_trained_pooler_sees_first_tokens_and_an_absent_one_is_an_error() {
        let hidden = Tensor::from_slice(&[1f32, 2., 3.]).view([3, 1]);
        let double = |first: &Tensor| first.f_add(first);
        let pooled =
            pool(&hidden, &[0, 2, 3], &[Pooling::Pooler, Pooling::Cls], Some(&double)).expect("pooled");
        assert_eq!(pooled.rows, [vec![2., 6.], vec![1., 3.]]);
        assert!(pool(&hidden, &[0, 3], &[Pooling::Pooler], None).is_err());
    }

    #[test]
    fn nonfinite_values_are_found_wherever_they_hide() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let hidden = Tensor::from_slice(&[1f32, 2., bad, 3., 4., 5.]).view([6, 1]);
            for pool in [on_cpu, by_tensor_operations] {
                // The middle token of the first text: no pooling but the mean looks at it, and -∞ hides from max.
                let pooled = pool(&hidden, &[0, 4, 6], &[Pooling::Cls]).expect("pooled");
                assert_eq!(pooled.nonfinite, [0], "{bad}");
            }
        }
        let hidden = Tensor::from_slice(&[f32::MAX, f32::MAX]).view([2, 1]);
        assert_eq!(pool(&hidden, &[0, 2], &[Pooling::Mean], None).expect("pooled").nonfinite, [0]);
    }

    #[test]
    fn both_ways_agree() {
        // Both add up in the same order; only the division may round differently.
        const ERROR_MAX: f32 = 1e-6;
        let hidden = Tensor::randn([40, 7], (Kind::BFloat16, Device::Cpu));
        let offsets = [0, 1, 13, 14, 40];
        let one = on_cpu(&hidden, &offsets, &ALL_BUT_POOLER).expect("pooled");
        let other = by_tensor_operations(&hidden, &offsets, &ALL_BUT_POOLER).expect("pooled");
        assert_eq!(one.nonfinite, other.nonfinite);
        for (a, b) in one.rows.iter().flatten().zip(other.rows.iter().flatten()) {
            assert!((a - b).abs() <= ERROR_MAX, "{a} {b}");
        }
    }
}
