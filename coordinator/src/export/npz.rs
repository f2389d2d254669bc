//! `similarities.npz`: every matrix of an experiment in one archive that `numpy.load` opens.

use std::io::{self, Cursor, Write as _};

use npyz::WriterBuilder as _;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use crate::merge::{Estimates, ExperimentResult, MetricResult};

/// The archive, float64 but for `layers` `[L]`, int64, the hidden-state index of each row.
///
/// Per metric `<Metric>` (mean), `<Metric>_std`, `<Metric>_ci_low` and `<Metric>_ci_high` [L, L], `<Metric>_trials`
/// [T, L, L], and `<Metric>_null` and `<Metric>_calibrated` [L, L] where it is calibrated. Per quantity of layers
/// `layer_<Name>`, with the same endings, `[L]`, and `layer_<Name>_trials` [T, L].
pub fn similarities(result: &ExperimentResult) -> io::Result<Vec<u8>> {
    let side = result.layers.len() as u64;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let layers: Vec<i64> = result.layers.iter().map(|layer| i64::from(*layer)).collect();
    add(&mut archive, "layers", npy(&[side], layers)?)?;
    for metric in &result.metrics {
        add_metric(&mut archive, metric, &[side, side])?;
    }
    for metric in &result.layer_metrics {
        let name = format!("layer_{}", metric.name);
        add_estimates(&mut archive, &name, &[side], &metric.estimates, &metric.trials)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// Adds the matrices of a metric, which have that shape: mean, spread, interval, those of trials, and calibrated ones.
pub(super) fn add_metric(
    archive: &mut ZipWriter<Cursor<Vec<u8>>>,
    metric: &MetricResult,
    shape: &[u64; 2],
) -> io::Result<()> {
    let name = metric.metric.name.as_str();
    add_estimates(archive, name, shape, &metric.estimates, &metric.trials)?;
    if let Some(calibration) = &metric.calibration {
        for (ending, matrix) in [("null", &calibration.null), ("calibrated", &calibration.calibrated)] {
            add(archive, &format!("{name}_{ending}"), npy(shape, matrix.iter().copied())?)?;
        }
    }
    Ok(())
}

fn add_estimates(
    archive: &mut ZipWriter<Cursor<Vec<u8>>>,
    name: &str,
    shape: &[u64],
    estimates: &Estimates,
    trials: &[Vec<f64>],
) -> io::Result<()> {
    let Estimates { mean, std, ci_low, ci_high } = estimates;
    for (ending, values) in [("", mean), ("_std", std), ("_ci_low", ci_low), ("_ci_high", ci_high)] {
        add(archive, &format!("{name}{ending}"), npy(shape, values.iter().copied())?)?;
    }
    let shape = [&[trials.len() as u64], shape].concat();
    add(archive, &format!("{name}_trials"), npy(&shape, trials.iter().flatten().copied())?)
}

/// How entries are stored in every archive of this crate: as they are, with the earliest time that zip knows.
pub(super) fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .system(System::Unix)
        .unix_permissions(0o644)
}

/// Adds an entry `<name>.npy`.
pub(super) fn add(archive: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, npy: Vec<u8>) -> io::Result<()> {
    let large = npy.len() as u64 >= u64::from(u32::MAX);
    archive.start_file(format!("{name}.npy"), stored().large_file(large))?;
    archive.write_all(&npy)
}

/// An array of that shape, row-major, as a `.npy` file.
pub(super) fn npy<T: npyz::AutoSerialize>(
    shape: &[u64],
    values: impl IntoIterator<Item = T>,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd()?;
    writer.extend(values)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::export::samples::{calibrated, result};

    #[test]
    fn holds_every_matrix() {
        let result = result(3, true);
        let bytes = similarities(&result).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes.as_slice())).unwrap();
        assert_eq!(archive.len(), 1 + 4 * 5);
        let mut read = |name: &str| {
            let mut npy = Vec::new();
            archive.by_name(name).unwrap().read_to_end(&mut npy).unwrap();
            let file = npyz::NpyFile::new(npy.as_slice()).unwrap();
            (file.shape().to_vec(), file.into_vec::<f64>().unwrap_or_default())
        };
        let (shape, trials) = read("RSA_trials.npy");
        assert_eq!(shape, [3, 3, 3]);
        let expected: Vec<f64> = result.metrics[1].trials.concat();
        assert!(trials.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
        let (shape, mean) = read("CKA.npy");
        assert_eq!((shape, mean[4]), (vec![3, 3], 1.0));
        assert_eq!(read("layers.npy").0, [3]);
        let (shape, low) = read("DistanceCorrelation_ci_low.npy");
        assert_eq!((shape, low[5]), (vec![3, 3], result.metrics[3].estimates.ci_low[5]));
    }

    #[test]
    fn holds_what_was_asked_for_besides() {
        let result = calibrated(3);
        let bytes = similarities(&result).unwrap();
        let archive = zip::ZipArchive::new(Cursor::new(bytes.as_slice())).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names.len(), 1 + 4 * 7 + 2 * 5);
        for expected in
            ["CKA_null.npy", "RSA_calibrated.npy", "layer_NormMean.npy", "layer_NormMean_trials.npy"]
        {
            assert!(names.iter().any(|name| name == expected), "{expected} is missing: {names:?}");
        }
    }
}
