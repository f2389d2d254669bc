//! Similarities and distances of all pairs of distinct rows as `[m, m]` matrices; the formulas and the pairs that are
//! computed from the rows themselves are those of [`super::super::quantity`].

use tch::{Device, Kind, TchError, Tensor};

use super::super::layer::Layer;
use super::super::matrix::size;
use super::super::quantity::{AMPLIFIED, CANCELLED, Normaliser, PARALLEL, Quantity, RowTerms};

/// Entries of rows that are gathered at once, for the pairs that are computed from them: 128 MiB.
const GATHERED_ENTRIES: i64 = 1 << 24;

/// One layer on a device.
///
/// Matrices are those of the distinct rows and are exactly symmetric; what is made of them is looked up by distinct row,
/// so that equal rows tie exactly.
pub struct TensorPairs<'a> {
    layer: &'a Layer,
    device: Device,
    terms: RowTerms,
    /// Inner products of the rows, centred over rows and columns: `[m, m]`.
    gram: Tensor,
    /// For each row given, which of the distinct rows it is: `[n]`.
    distinct_of: Tensor,
    /// The quantity that was asked for last.
    last: Option<(Quantity, Tensor)>,
    upper_places: Option<Tensor>,
}

impl<'a> TensorPairs<'a> {
    /// Brings a layer to the device.
    pub fn new(layer: &'a Layer, device: Device) -> Result<Self, TchError> {
        let m = u32::try_from(layer.n_distinct()).expect("row indices are u32");
        let terms = RowTerms::new(layer, &(0..m).collect::<Vec<u32>>());
        let shape = [i64::from(m), size(layer.width)];
        let centred = upload(&layer.centred, device)?.f_view(shape)?;
        let upper = centred.f_matmul(&centred.f_transpose(0, 1)?)?.f_triu(1)?;
        let gram = upper.f_add(&upper.f_transpose(0, 1)?)?;
        gram.f_diagonal(0, 0, 1)?.f_copy_(&upload(&terms.gram_diagonal, device)?)?;
        let distinct_of: Vec<i64> = layer.distinct_of.iter().map(|i| i64::from(*i)).collect();
        let distinct_of = Tensor::f_from_slice(&distinct_of)?.f_to_device(device)?;
        Ok(Self { layer, device, terms, gram, distinct_of, last: None, upper_places: None })
    }

    /// The number n of rows given.
    pub fn n_rows(&self) -> usize {
        self.layer.n_rows()
    }

    /// How many of the rows given each distinct row stands for: `[m]`.
    pub fn counts(&self) -> Result<Tensor, TchError> {
        upload(&self.layer.counts, self.device)
    }

    /// The quantity of all pairs of distinct rows, not to be written to: `[m, m]`.
    pub fn of_distinct(&mut self, quantity: Quantity) -> Result<Tensor, TchError> {
        if let Some((last, values)) = &self.last
            && *last == quantity
        {
            return Ok(values.shallow_clone());
        }
        self.last = None;
        let values = match quantity {
            Quantity::Kernel => self.kernels()?,
            Quantity::Distance => self.distances()?,
            Quantity::Cosine => self.cosines(true)?,
            Quantity::Pearson => self.cosines(false)?,
        };
        self.last = Some((quantity, values.shallow_clone()));
        Ok(values)
    }

    /// The strict upper triangle over the rows given of a matrix of distinct rows, row by row: `[n (n - 1) / 2]`.
    pub fn upper(&mut self, of_distinct: &Tensor) -> Result<Tensor, TchError> {
        if self.upper_places.is_none() {
            let n = size(self.n_rows());
            let places = Tensor::f_triu_indices(n, n, 1, (Kind::Int64, self.device))?;
            let rows = self.distinct_of.f_index_select(0, &places.f_select(0, 0)?)?;
            let columns = self.distinct_of.f_index_select(0, &places.f_select(0, 1)?)?;
            self.upper_places = Some(rows.f_mul_scalar(size(self.layer.n_distinct()))?.f_add(&columns)?);
        }
        let places = self.upper_places.as_ref().expect("made above");
        of_distinct.f_flatten(0, -1)?.f_index_select(0, places)
    }

    /// Entries of distinct rows for the rows given: `[m]` to `[n]`.
    pub fn spread(&self, of_distinct: &Tensor) -> Result<Tensor, TchError> {
        of_distinct.f_index_select(0, &self.distinct_of)
    }

    /// A matrix of distinct rows for the rows given: `[m, m]` to `[n, n]`.
    pub fn spread_matrix(&self, of_distinct: &Tensor) -> Result<Tensor, TchError> {
        of_distinct.f_index_select(0, &self.distinct_of)?.f_index_select(1, &self.distinct_of)
    }

    fn kernels(&self) -> Result<Tensor, TchError> {
        let offsets = self.products_of(&self.terms.row_offset)?;
        self.gram.f_add(&offsets.f_mul_scalar(self.layer.width as f64)?)
    }

    fn distances(&mut self) -> Result<Tensor, TchError> {
        let kernels = self.of_distinct(Quantity::Kernel)?;
        let sizes = self.sums_of(&self.terms.kernel_diagonal)?;
        let mut squares = sizes.f_sub(&kernels.f_mul_scalar(2.0)?)?;
        let cancelled = squares.f_lt_tensor(&sizes.f_mul_scalar(CANCELLED)?)?;
        self.replace(&mut squares, &cancelled, &self.rows()?, |a, b| {
            a.f_sub(b)?.f_square()?.f_sum_dim_intlist(1, false, Kind::Double)
        })?;
        let _ = squares.f_fill_diagonal_(0.0, false)?;
        squares.f_sqrt()
    }

    /// Cosines of the rows themselves or, with `of_rows` false, of the rows less their means.
    fn cosines(&self, of_rows: bool) -> Result<Tensor, TchError> {
        let terms = &self.terms;
        let normaliser = if of_rows { &terms.cosine } else { &terms.pearson };
        let mut inner =
            self.gram.f_add(&self.sums_of(&terms.mean_product)?)?.f_add_scalar(terms.means_product)?;
        if of_rows {
            inner =
                inner.f_add(&self.products_of(&terms.row_mean)?.f_mul_scalar(self.layer.width as f64)?)?;
        }
        self.replace_amplified(&mut inner, normaliser, of_rows)?;
        let cosines = inner.f_mul(&self.products_of(&normaliser.inverse)?)?;
        let parallel = cosines.f_abs()?.f_ge(PARALLEL)?;
        let cosines = cosines.f_sign()?.f_where_self(&parallel, &cosines)?;
        let own: Vec<f64> = normaliser.inverse.iter().map(|i| if *i == 0.0 { 0.0 } else { 1.0 }).collect();
        cosines.f_diagonal(0, 0, 1)?.f_copy_(&upload(&own, self.device)?)?;
        Ok(cosines)
    }

    /// Computes the inner products that lose too many digits from the rows.
    fn replace_amplified(
        &self,
        inner: &mut Tensor,
        normaliser: &Normaliser,
        of_rows: bool,
    ) -> Result<(), TchError> {
        if normaliser.amplification_max * normaliser.amplification_max <= AMPLIFIED {
            return Ok(());
        }
        let amplified = self.products_of(&normaliser.amplification)?.f_gt(AMPLIFIED)?;
        let mut rows = self.rows()?;
        if !of_rows {
            rows = rows.f_sub(&upload(&self.layer.row_means, self.device)?.f_unsqueeze(1)?)?;
        }
        self.replace(inner, &amplified, &rows, |a, b| a.f_mul(b)?.f_sum_dim_intlist(1, false, Kind::Double))
    }

    /// Puts `value` of two sets of rows, `[pairs, d]` each, in place of the named entries off the diagonal.
    fn replace(
        &self,
        matrix: &mut Tensor,
        named: &Tensor,
        rows: &Tensor,
        value: impl Fn(&Tensor, &Tensor) -> Result<Tensor, TchError>,
    ) -> Result<(), TchError> {
        let pairs = named.f_triu(1)?.f_nonzero()?;
        let (n_pairs, step) = (pairs.size()[0], (GATHERED_ENTRIES / size(self.layer.width)).max(1));
        for start in (0..n_pairs).step_by(usize::try_from(step).expect("a count of pairs")) {
            let some = pairs.f_narrow(0, start, step.min(n_pairs - start))?;
            let (i, j) = (some.f_select(1, 0)?, some.f_select(1, 1)?);
            let values = value(&rows.f_index_select(0, &i)?, &rows.f_index_select(0, &j)?)?;
            let _ = matrix.f_index_put_(&[Some(&i), Some(&j)], &values, false)?;
            let _ = matrix.f_index_put_(&[Some(&j), Some(&i)], &values, false)?;
        }
        Ok(())
    }

    /// The distinct rows, scaled: `[m, d]`.
    fn rows(&self) -> Result<Tensor, TchError> {
        let shape = [size(self.layer.n_distinct()), size(self.layer.width)];
        upload(&self.layer.values, self.device)?.f_view(shape)
    }

    /// `v_i v_j` for all pairs.
    fn products_of(&self, values: &[f64]) -> Result<Tensor, TchError> {
        let values = upload(values, self.device)?;
        values.f_unsqueeze(1)?.f_mul(&values.f_unsqueeze(0)?)
    }

    /// `v_i + v_j` for all pairs.
    fn sums_of(&self, values: &[f64]) -> Result<Tensor, TchError> {
        let values = upload(values, self.device)?;
        values.f_unsqueeze(1)?.f_add(&values.f_unsqueeze(0)?)
    }

    /// The inner product of each distinct row less the mean row with itself: `[m]`.
    pub fn kernel_diagonal(&self) -> Result<Tensor, TchError> {
        upload(&self.terms.kernel_diagonal, self.device)
    }
}

fn upload(values: &[f64], device: Device) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(values)?.f_to_device(device)
}
