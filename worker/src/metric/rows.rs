//! The rows of a layer as one matrix, in the forms that metrics start from.

use std::hash::{DefaultHasher, Hasher};

use tch::{Kind, TchError, Tensor};

use super::layer::{CONSTANT_RATIO, Layer};
use super::matrix::{Matrix, size};
use super::unordered::Content;

/// All n rows of a layer, equal ones included, or what was made of them column by column.
pub struct Rows {
    /// The rows, [n, d].
    pub values: Matrix,
    /// The number d of columns.
    pub width: usize,
    /// The rows given are `values` times two to this power.
    pub scale_exponent: i32,
    /// Tells them from other rows.
    pub content: u64,
}

impl Rows {
    /// The rows as they were given, but for the power of two.
    pub fn of(layer: &Layer) -> Result<Self, TchError> {
        let shape = [size(layer.n_distinct()), size(layer.width)];
        let distinct = Tensor::f_from_slice(&layer.values)?.f_view(shape)?;
        let places: Vec<i64> = layer.distinct_of.iter().map(|place| i64::from(*place)).collect();
        let values = distinct.f_index_select(0, &Tensor::f_from_slice(&places)?)?;
        Ok(Self {
            values: Matrix::new(&values)?,
            width: layer.width,
            scale_exponent: layer.scale_exponent,
            content: digest(layer),
        })
    }

    /// The rows less the mean row.
    pub fn centred(&self) -> Result<Self, TchError> {
        let less_mean = |values: &Tensor| values.f_sub(&values.f_mean_dim(0i64, true, Kind::Double)?);
        // The second round takes away what the first left by rounding.
        self.with(&less_mean(&less_mean(&self.values.tensor())?)?)
    }

    /// Rows with the same inner products and at most n columns: these rows in the coordinates of their own span.
    pub fn compact(&self) -> Result<Self, TchError> {
        let (_, triangle) = Tensor::f_linalg_qr(&self.values.tensor().f_transpose(0, 1)?, "r")?;
        self.with(&triangle.f_transpose(0, 1)?)
    }

    /// The columns of these centred rows, each of norm 1, so that their inner products are correlations.
    ///
    /// A column whose entries are equal up to rounding, by what it is in `given`, the rows before they were centred, is
    /// zero: its correlation with any other is 0.
    pub fn of_unit_columns(&self, given: &Self) -> Result<Self, TchError> {
        let peaks = |rows: &Self| rows.values.tensor().f_abs()?.f_amax(0i64, true);
        let (peaks, given_peaks) = (peaks(self)?, peaks(given)?);
        let constant = peaks.f_le_tensor(&given_peaks.f_mul_scalar(CONSTANT_RATIO)?)?;
        // Dividing by the largest entry first keeps the squares inside the range of float64.
        let columns = self.values.tensor().f_div(&peaks)?;
        let norms = columns.f_square()?.f_sum_dim_intlist(0i64, true, Kind::Double)?.f_sqrt()?;
        self.with(&columns.f_div(&norms)?.f_masked_fill(&constant, 0.0)?)
    }

    fn with(&self, values: &Tensor) -> Result<Self, TchError> {
        let (_, width) = values.size2()?;
        let width = usize::try_from(width).expect("a count of columns");
        let (scale_exponent, content) = (self.scale_exponent, self.content);
        Ok(Self { values: Matrix::new(values)?, width, scale_exponent, content })
    }
}

impl Content for Rows {
    fn content(&self) -> (usize, u64) {
        (self.width, self.content)
    }
}

/// A number that differs for layers with different rows, but for chance.
fn digest(layer: &Layer) -> u64 {
    let mut hasher = DefaultHasher::new();
    layer.distinct_of.iter().for_each(|place| hasher.write_u32(*place));
    layer.values.iter().for_each(|value| hasher.write_u64((value + 0.0).to_bits()));
    hasher.finish()
}
