//! Procrustes distance of centred layers, their size included:
//! min_Q ‖Xc Q - X'c‖ = √(‖Xc‖² + ‖X'c‖² - 2 ‖Xcᵀ X'c‖_*), Q orthogonal. The narrower layer gets columns of zeros.
//!
//! With c the distance of both at Frobenius norm 1, it is √((‖Xc‖ - ‖X'c‖)² + ‖Xc‖ ‖X'c‖ c²).
//!
//! Williams, Kunz, Kornblith and Linderman, "Generalized Shape Metrics on Neural Representations", 2021, section 2.

use std::sync::Arc;

use lsa_common::metric::MetricSpec;

use super::layer::times_power_of_two;
use super::shape::{Shape, chords};
use super::shared::Shared;
use super::{Failed, Part, PartError, Sides};

/// The shape of the layer.
pub fn prepare(_spec: &MetricSpec, shared: &Shared<'_>) -> Result<Part, PartError> {
    Ok(Part::new(shared.shape()?))
}

/// The distance of all pairs of layers, in the unit of their entries.
pub fn combine(sides: &Sides<'_>) -> Result<Vec<f64>, Failed> {
    let chords = chords(sides)?;
    let (a, b) = sides.parts::<Arc<Shape>>();
    let b = b.as_ref().unwrap_or(&a);
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| a.zip(*b)));
    let distances =
        pairs.zip(chords.iter()).map(|(pair, chord)| pair.map_or(f64::NAN, |(a, b)| sized(a, b, *chord)));
    Ok(distances.collect())
}

/// The distance of two layers whose shapes are that far apart.
fn sized(a: &Shape, b: &Shape, chord: f64) -> f64 {
    // In units of the larger layer's power of two, in which nothing overflows.
    let unit = a.scale_exponent.max(b.scale_exponent);
    let [a, b] = [a, b].map(|shape| times_power_of_two(shape.norm, shape.scale_exponent - unit));
    times_power_of_two((a - b).hypot((a * b).sqrt() * chord), unit)
}
