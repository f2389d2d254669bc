//! The rows of a layer, and what several metrics derive from them: each is computed once.

use std::cell::OnceCell;
use std::sync::Arc;

use tch::TchError;

use super::basis::Basis;
use super::layer::Layer;
use super::rows::Rows;
use super::shape::Shape;

/// The rows of a layer and what has been derived from them.
pub struct Shared<'a> {
    /// The layer.
    pub layer: &'a Layer,
    rows: OnceCell<Arc<Rows>>,
    compact_rows: OnceCell<Arc<Rows>>,
    centred_rows: OnceCell<Arc<Rows>>,
    unit_columns: OnceCell<Arc<Rows>>,
    basis: OnceCell<Arc<Basis>>,
    centred_basis: OnceCell<Arc<Basis>>,
    shape: OnceCell<Arc<Shape>>,
}

impl<'a> Shared<'a> {
    /// Nothing is derived yet.
    pub fn new(layer: &'a Layer) -> Self {
        Self {
            layer,
            rows: OnceCell::new(),
            compact_rows: OnceCell::new(),
            centred_rows: OnceCell::new(),
            unit_columns: OnceCell::new(),
            basis: OnceCell::new(),
            centred_basis: OnceCell::new(),
            shape: OnceCell::new(),
        }
    }

    /// All n rows, [n, d].
    pub fn rows(&self) -> Result<Arc<Rows>, TchError> {
        once(&self.rows, || Rows::of(self.layer).map(Arc::new))
    }

    /// All rows up to a rotation, [n, min(n, d)].
    pub fn compact_rows(&self) -> Result<Arc<Rows>, TchError> {
        once(&self.compact_rows, || self.compact(self.rows()?))
    }

    /// All rows less the mean row, [n, d].
    pub fn centred_rows(&self) -> Result<Arc<Rows>, TchError> {
        once(&self.centred_rows, || self.rows()?.centred().map(Arc::new))
    }

    /// The columns less their mean, each of norm 1, or zero where it is constant; [n, d].
    pub fn unit_columns(&self) -> Result<Arc<Rows>, TchError> {
        once(&self.unit_columns, || self.centred_rows()?.of_unit_columns(&*self.rows()?).map(Arc::new))
    }

    /// A basis of the span of the columns.
    pub fn basis(&self) -> Result<Arc<Basis>, TchError> {
        once(&self.basis, || Basis::of(&*self.rows()?).map(Arc::new))
    }

    /// A basis of the span of the centred columns.
    pub fn centred_basis(&self) -> Result<Arc<Basis>, TchError> {
        once(&self.centred_basis, || Basis::of(&*self.centred_rows()?).map(Arc::new))
    }

    /// The shape of the centred rows.
    pub fn shape(&self) -> Result<Arc<Shape>, TchError> {
        once(&self.shape, || Shape::of(&*self.compact(self.centred_rows()?)?).map(Arc::new))
    }

    fn compact(&self, rows: Arc<Rows>) -> Result<Arc<Rows>, TchError> {
        if rows.width > self.layer.n_rows() { rows.compact().map(Arc::new) } else { Ok(rows) }
    }
}

/// What is in the cell; computed if nobody has asked for it yet.
fn once<T>(
    cell: &OnceCell<Arc<T>>,
    compute: impl FnOnce() -> Result<Arc<T>, TchError>,
) -> Result<Arc<T>, TchError> {
    if let Some(computed) = cell.get() {
        return Ok(Arc::clone(computed));
    }
    let computed = compute()?;
    Ok(Arc::clone(cell.get_or_init(|| computed)))
}
