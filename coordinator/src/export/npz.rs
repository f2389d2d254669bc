//! `similarities.npz`: every matrix of an experiment in one archive that `numpy.load` opens.

use std::io::{self, Cursor, Write as _};

use npyz::WriterBuilder as _;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use crate::merge::ExperimentResult;

/// The archive: per metric `<Metric>` (mean) and `<Metric>_std` [L, L] and `<Metric>_trials` [T, L, L], float64,
/// and `layers` `[L]`, int64, the hidden-state index of each row.
pub fn similarities(result: &ExperimentResult) -> io::Result<Vec<u8>> {
    let side = result.layers.len() as u64;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let layers: Vec<i64> = result.layers.iter().map(|layer| i64::from(*layer)).collect();
    add(&mut archive, "layers", npy(&[side], layers)?)?;
    for metric in &result.metrics {
        let name = metric.metric.name;
        let n_trials = metric.trials.len() as u64;
        add(&mut archive, name.as_str(), npy(&[side, side], metric.mean.iter().copied())?)?;
        add(&mut archive, &format!("{name}_std"), npy(&[side, side], metric.std.iter().copied())?)?;
        let trials = metric.trials.iter().flatten().copied();
        add(&mut archive, &format!("{name}_trials"), npy(&[n_trials, side, side], trials)?)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// How entries are stored in every archive of this crate: as they are, with the earliest time that zip knows.
pub(super) fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .system(System::Unix)
        .unix_permissions(0o644)
}

fn add(archive: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, npy: Vec<u8>) -> io::Result<()> {
    let large = npy.len() as u64 >= u64::from(u32::MAX);
    archive.start_file(format!("{name}.npy"), stored().large_file(large))?;
    archive.write_all(&npy)
}

fn npy<T: npyz::AutoSerialize>(shape: &[u64], values: impl IntoIterator<Item = T>) -> io::Result<Vec<u8>> {
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
    use crate::export::samples::result;

    #[test]
    fn holds_every_matrix() {
        let result = result(3, true);
        let bytes = similarities(&result).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes.as_slice())).unwrap();
        assert_eq!(archive.len(), 1 + 4 * 3);
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
    }
}
