//! Rotary positions from the ways in which configs have described them over the years.
//!
//! Older files have `rope_theta` and `rope_scaling` (with `type` or `rope_type`), newer ones `rope_parameters` with
//! everything in it, for some families once per layer type. Angles are float32 and computed in the order of
//! operations of the Python library, whose rounding they share.

use super::fields::Fields;
use super::parts::{Pairing, Rotary};
use super::{Architecture, ArchitectureError, MAX_POSITIONS};

/// What a family knows of its rotary positions.
pub(super) struct RotaryDefaults {
    /// Width of a head.
    pub head_dim: u32,
    /// `rope_theta` where the file has none.
    pub theta: f64,
    /// The part of a head that is rotated, where the file does not say.
    pub partial: f64,
    /// Which numbers form a pair.
    pub pairing: Pairing,
    /// `max_position_embeddings`.
    pub max_positions: u32,
    /// `original_max_position_embeddings` where the file has none and the class has a default.
    pub original_positions: Option<u32>,
}

impl RotaryDefaults {
    pub(super) fn new(head_dim: u32, max_positions: u32) -> Self {
        let (theta, partial, pairing) = (10_000.0, 1.0, Pairing::Halves);
        Self { head_dim, theta, partial, pairing, max_positions, original_positions: None }
    }
}

/// The rotary positions of a config in which all layers have the same.
pub(super) fn read(fields: &Fields<'_>, defaults: &RotaryDefaults) -> Result<Rotary, ArchitectureError> {
    match fields.object("rope_parameters")? {
        Some(parameters) => of_object(fields, &parameters, defaults),
        None => match fields.object("rope_scaling")? {
            Some(scaling) => of_object(fields, &scaling, defaults),
            None => plain(fields, fields, defaults),
        },
    }
}

/// The rotary positions of one layer type where `rope_parameters` has an object for each; else none.
pub(super) fn of_layer_type(
    fields: &Fields<'_>,
    layer_type: &str,
    defaults: &RotaryDefaults,
) -> Result<Option<Rotary>, ArchitectureError> {
    let Some(parameters) = fields.object("rope_parameters")? else { return Ok(None) };
    match parameters.object(layer_type)? {
        Some(parameters) => of_object(fields, &parameters, defaults).map(Some),
        None => Ok(None),
    }
}

/// Rotary positions without scaling.
pub(super) fn unscaled(dim: u32, theta: f64, pairing: Pairing) -> Rotary {
    let inv_freq = powers(dim, theta).into_iter().map(|power| 1.0 / power).collect();
    Rotary { pairing, inv_freq, attention_factor: 1.0, long: None }
}

fn plain(
    fields: &Fields<'_>,
    object: &Fields<'_>,
    defaults: &RotaryDefaults,
) -> Result<Rotary, ArchitectureError> {
    let (dim, theta) = dim_and_theta(fields, object, defaults)?;
    Ok(unscaled(dim, theta, defaults.pairing))
}

/// How many numbers of a head are rotated, and the base of the angles.
fn dim_and_theta(
    fields: &Fields<'_>,
    object: &Fields<'_>,
    defaults: &RotaryDefaults,
) -> Result<(u32, f64), ArchitectureError> {
    let place = |names: &[&'static str]| {
        let inside = object.spelling(names);
        if object.has(inside) { (object, inside) } else { (fields, fields.spelling(names)) }
    };
    let (source, name) = place(&["rope_theta", "rotary_emb_base"]);
    let theta = source.positive_or(name, defaults.theta)?;
    let (source, name) = place(&["partial_rotary_factor", "rotary_pct", "rope_pct"]);
    let partial = source.positive_or(name, defaults.partial)?;
    let dim = (f64::from(defaults.head_dim) * partial) as u32;
    if partial > 1.0 || dim < 2 || !dim.is_multiple_of(2) {
        let head_dim = defaults.head_dim;
        return Err(source.refused(name, format!("a part of a head of {head_dim} that is an even number")));
    }
    Ok((dim, theta))
}

fn of_object(
    fields: &Fields<'_>,
    object: &Fields<'_>,
    defaults: &RotaryDefaults,
) -> Result<Rotary, ArchitectureError> {
    let (dim, theta) = dim_and_theta(fields, object, defaults)?;
    let kind_field = object.spelling(&["rope_type", "type"]);
    let rotary = |inv_freq, attention_factor| Rotary {
        pairing: defaults.pairing,
        inv_freq,
        attention_factor,
        long: None,
    };
    let factor = || object.positive_or("factor", 1.0);
    match object.text_or(kind_field, "default")? {
        "default" => Ok(unscaled(dim, theta, defaults.pairing)),
        // Texts never exceed max_position_embeddings, and up to there the angles are the plain ones.
        "dynamic" => Ok(unscaled(dim, theta, defaults.pairing)),
        "linear" => {
            let factor = factor()? as f32;
            let inv_freq = powers(dim, theta).into_iter().map(|power| 1.0 / power / factor).collect();
            Ok(rotary(inv_freq, 1.0))
        }
        "llama3" => Ok(rotary(llama3(object, dim, theta, defaults)?, 1.0)),
        "yarn" => {
            let (inv_freq, attention_factor) = yarn(fields, object, dim, theta, defaults)?;
            Ok(rotary(inv_freq, attention_factor))
        }
        // The older files of Phi-3 say "su".
        "longrope" | "su" => longrope(fields, object, dim, theta, defaults),
        _ => Err(object.refused(kind_field, "default, linear, dynamic, yarn, llama3, longrope")),
    }
}

/// theta^(2 i / dim).
fn powers(dim: u32, theta: f64) -> Vec<f32> {
    let exponents = (0..dim).step_by(2).map(|place| place as f32 / dim as f32);
    exponents.map(|exponent| (theta as f32 as f64).powf(f64::from(exponent)) as f32).collect()
}

/// Llama 3.1: long wavelengths are stretched, those between two bounds partly.
fn llama3(
    object: &Fields<'_>,
    dim: u32,
    theta: f64,
    defaults: &RotaryDefaults,
) -> Result<Vec<f32>, ArchitectureError> {
    let factor = object.positive_or("factor", 8.0)?;
    let low = object.positive_or("low_freq_factor", 1.0)?;
    let high = object.positive_or("high_freq_factor", 4.0)?;
    let original =
        object.positive_or("original_max_position_embeddings", f64::from(defaults.max_positions))?;
    if high <= low {
        return Err(object.refused("high_freq_factor", "a number above \"low_freq_factor\""));
    }
    let scaled = |power: f32| {
        let inv_freq = 1.0 / power;
        let wavelength = 2.0 * std::f64::consts::PI as f32 / inv_freq;
        if f64::from(wavelength) < original / high {
            inv_freq
        } else if f64::from(wavelength) > original / low {
            inv_freq / factor as f32
        } else {
            let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
            (1.0 - smooth) * inv_freq / factor as f32 + smooth * inv_freq
        }
    };
    Ok(powers(dim, theta).into_iter().map(scaled).collect())
}

/// YaRN. Peng et al. 2023.
fn yarn(
    fields: &Fields<'_>,
    object: &Fields<'_>,
    dim: u32,
    theta: f64,
    defaults: &RotaryDefaults,
) -> Result<(Vec<f32>, f64), ArchitectureError> {
    let max_positions = f64::from(defaults.max_positions);
    let original = original_positions(fields, object, defaults)?;
    let factor = object.positive_or("factor", max_positions / original)?;
    let mscale = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let scales = (object.number_or("mscale", 0.0)?, object.number_or("mscale_all_dim", 0.0)?);
    let default = match scales {
        (one, all) if one != 0.0 && all != 0.0 => mscale(one) / mscale(all),
        _ => mscale(1.0),
    };
    let attention_factor = object.positive_or("attention_factor", default)?;
    let fast = object.positive_or("beta_fast", 32.0)?;
    let slow = object.positive_or("beta_slow", 1.0)?;
    let dim_of = |rotations: f64| {
        f64::from(dim) * (original / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (dim_of(fast), dim_of(slow));
    if object.flag_or("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(f64::from(dim) - 1.0));
    if low == high {
        high += 0.001;
    }
    let angle = |(place, power): (u32, f32)| {
        let ramp = ((place as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let (extrapolated, interpolated) = (1.0 / power, 1.0 / (factor as f32 * power));
        let keep = 1.0 - ramp;
        interpolated * (1.0 - keep) + extrapolated * keep
    };
    Ok(((0..).zip(powers(dim, theta)).map(angle).collect(), attention_factor))
}

/// LongRoPE. Ding et al. 2024: angles of their own for texts beyond the original length.
fn longrope(
    fields: &Fields<'_>,
    object: &Fields<'_>,
    dim: u32,
    theta: f64,
    defaults: &RotaryDefaults,
) -> Result<Rotary, ArchitectureError> {
    let original = original_positions(fields, object, defaults)?;
    let factor = object.positive_or("factor", f64::from(defaults.max_positions) / original)?;
    let default = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
    let attention_factor = object.positive_or("attention_factor", default)?;
    let angles = |field: &'static str| {
        let factors = object.numbers(field)?;
        let powers = powers(dim, theta);
        if factors.len() != powers.len() || factors.iter().any(|factor| *factor <= 0.0) {
            return Err(object.refused(field, format!("{} numbers above 0", powers.len())));
        }
        Ok(factors.iter().zip(powers).map(|(factor, power)| 1.0 / (*factor as f32 * power)).collect())
    };
    let (short, long) = (angles("short_factor")?, angles("long_factor")?);
    let long = (original < f64::from(u32::MAX)).then_some((original as u32, long));
    Ok(Rotary { pairing: defaults.pairing, inv_freq: short, attention_factor, long })
}

fn original_positions(
    fields: &Fields<'_>,
    object: &Fields<'_>,
    defaults: &RotaryDefaults,
) -> Result<f64, ArchitectureError> {
    const FIELD: &str = "original_max_position_embeddings";
    let place = if fields.has(FIELD) { fields } else { object };
    let default = defaults.original_positions.unwrap_or(defaults.max_positions);
    place.count_or(FIELD, MAX_POSITIONS, default).map(f64::from)
}

impl Architecture {
    /// The place of rotary positions in the list, added where they are not in it yet.
    pub(super) fn rotary(&mut self, rotary: &Rotary) -> usize {
        let found = self.rotaries.iter().position(|known| known == rotary);
        found.unwrap_or_else(|| {
            self.rotaries.push(rotary.clone());
            self.rotaries.len() - 1
        })
    }
}
