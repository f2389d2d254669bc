//! What each metric keeps of a layer on a device.

use lsa_common::metric::{Inner, MetricSpec};
use tch::{Kind, TchError, Tensor};

use super::super::matrix::{entries, size};
use super::super::neighbours::Neighbours;
use super::super::quantity::Quantity;
use super::super::rsa;
use super::super::{Part, PartError, Undefined};
use super::pairs::TensorPairs;
use super::vector::TensorVector;

/// The kernel, for CKA.
pub fn kernel(pairs: &mut TensorPairs<'_>) -> Result<Part, PartError> {
    let kernels = pairs.of_distinct(Quantity::Kernel)?;
    let diagonal = pairs.spread(&pairs.kernel_diagonal()?)?;
    Ok(Part::new(TensorVector::new(&pairs.upper(&kernels)?, &diagonal)?))
}

/// The distances less their row and column means plus their grand mean, for distance correlation.
pub fn centred_distances(pairs: &mut TensorPairs<'_>) -> Result<Part, PartError> {
    let distances = pairs.of_distinct(Quantity::Distance)?;
    let (counts, n) = (pairs.counts()?, pairs.n_rows() as f64);
    let means = distances.f_mv(&counts)?.f_div_scalar(n)?;
    let grand_mean = means.f_dot(&counts)?.f_div_scalar(n)?;
    let centred =
        distances.f_sub(&means.f_unsqueeze(1)?)?.f_sub(&means.f_unsqueeze(0)?)?.f_add(&grand_mean)?;
    // Both subtractions round, so that only one half counts for a pair of distinct rows.
    let upper = centred.f_triu(0)?;
    let centred = upper.f_add(&upper.f_triu(1)?.f_transpose(0, 1)?)?;
    let diagonal = pairs.spread(&grand_mean.f_sub(&means.f_mul_scalar(2.0)?)?)?;
    Ok(Part::new(TensorVector::new(&pairs.upper(&centred)?, &diagonal)?))
}

/// Doubled average ranks of the similarities less their mean, for RSA.
pub fn ranks(spec: &MetricSpec, pairs: &mut TensorPairs<'_>) -> Result<Part, PartError> {
    let similarities = similarities(spec, pairs)?;
    let similarities = pairs.upper(&similarities)?;
    let (low, high) =
        (similarities.f_min()?.f_double_value(&[])?, similarities.f_max()?.f_double_value(&[])?);
    if rsa::are_equal(spec, low, high) {
        return Err(Undefined::EqualSimilarities.into());
    }
    let ranks = centred_double_ranks(&similarities)?.ok_or(Undefined::EqualSimilarities)?;
    Ok(Part::new(TensorVector::new(&ranks, &ranks.f_narrow(0, 0, 0)?)?))
}

/// Twice the average ranks of `values`, `[p]`, less their mean; `None` where all are equal.
fn centred_double_ranks(values: &Tensor) -> Result<Option<Tensor>, TchError> {
    let count = values.size()[0];
    let (sorted, order) = values.f_sort(0, false)?;
    let differs = sorted.f_narrow(0, 1, count - 1)?.f_ne_tensor(&sorted.f_narrow(0, 0, count - 1)?)?;
    let first = Tensor::f_ones([1], (Kind::Bool, values.device()))?;
    let starts_here = Tensor::f_cat(&[first, differs], 0)?;
    let starts = starts_here.f_nonzero()?.f_flatten(0, -1)?;
    let n_groups = starts.size()[0];
    if n_groups == 1 {
        return Ok(None);
    }
    let end = Tensor::f_full([1], count, (Kind::Int64, values.device()))?;
    let ends = Tensor::f_cat(&[starts.f_narrow(0, 1, n_groups - 1)?, end], 0)?;
    // Ranks start + 1 to end, twice their mean, less the mean of all of that, count + 1.
    let ranks = starts.f_add(&ends)?.f_sub_scalar(count)?.f_to_kind(Kind::Double)?;
    let group = starts_here.f_cumsum(0, Kind::Int64)?.f_sub_scalar(1)?;
    let mut out = Tensor::f_zeros([count], (Kind::Double, values.device()))?;
    let _ = out.f_index_copy_(0, &order, &ranks.f_index_select(0, &group)?)?;
    Ok(Some(out))
}

/// The k nearest neighbours of every row, equally near ones by index.
pub fn neighbours(spec: &MetricSpec, pairs: &mut TensorPairs<'_>) -> Result<Part, PartError> {
    let (n, k) = (pairs.n_rows(), spec.neighbours() as usize);
    let of_distinct = similarities(spec, pairs)?;
    let mut all = pairs.spread_matrix(&of_distinct)?;
    let _ = all.f_fill_diagonal_(f64::NEG_INFINITY, false)?;
    let (largest, _) = all.f_topk(size(k), 1, true, true)?;
    let least = largest.f_narrow(1, size(k) - 1, 1)?;
    let (above, equal) = (all.f_gt_tensor(&least)?, all.f_eq_tensor(&least)?);
    let n_above = above.f_sum_dim_intlist(1, true, Kind::Int64)?;
    let among_equal = equal.f_cumsum(1, Kind::Int64)?.f_add(&n_above)?;
    let chosen = above.f_logical_or(&equal.f_logical_and(&among_equal.f_le(size(k))?)?)?;
    let places = chosen.f_nonzero()?.f_select(1, 1)?.f_view([size(n), size(k)])?;
    let similarities = entries(&all.f_gather(1, &places, false)?)?;
    let indices: Vec<i64> = Vec::try_from(places.f_flatten(0, -1)?)?;
    let mut nearest = Vec::with_capacity(n * k);
    let mut row: Vec<(f64, i64)> = Vec::with_capacity(k);
    for (similarities, indices) in similarities.chunks_exact(k).zip(indices.chunks_exact(k)) {
        row.clear();
        // Adding 0 turns -0 into 0; the sort is stable, and indices ascend.
        row.extend(similarities.iter().map(|value| value + 0.0).zip(indices.iter().copied()));
        row.sort_by(|a, b| b.0.total_cmp(&a.0));
        nearest.extend(row.iter().map(|(_, index)| u32::try_from(*index).expect("row indices are u32")));
    }
    Ok(Part::new(Neighbours::new(k, nearest)))
}

/// What rows are compared by, larger where they are nearer: `[m, m]`.
fn similarities(spec: &MetricSpec, pairs: &mut TensorPairs<'_>) -> Result<Tensor, TchError> {
    let quantity = super::super::compared_by(spec);
    let values = pairs.of_distinct(quantity)?;
    if spec.inner == Some(Inner::Euclidean) { values.f_neg() } else { Ok(values) }
}
