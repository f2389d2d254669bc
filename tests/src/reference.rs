//! The independent reference of the metrics: numpy in float64, in `tests/reference/`.

use std::path::Path;

use lsa_common::metric::{LayerMetricName, MetricSpec};
use lsa_worker::array_file::npy_bytes;

use crate::python::{run, venv_python};

/// A layer: its width, and its rows one after another.
pub type Rows = (usize, Vec<f64>);

/// A matrix [layers, layers] for each metric, row-major, and the values of the layers for each layer metric.
pub type Reference = (Vec<Vec<f64>>, Vec<Vec<f64>>);

/// What the reference makes of layers over the same rows: per metric a matrix [layers, layers], row-major, and per
/// layer metric a value for each layer; NaN where it is undefined. `Err` where numpy cannot be had.
///
/// # Panics
/// Where the reference fails.
pub fn reference(
    layers: &[Rows],
    metrics: &[MetricSpec],
    layer_metrics: &[LayerMetricName],
) -> Result<Reference, String> {
    let python = venv_python("numpy-2", "numpy>=2,<3")?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    for (place, (width, values)) in layers.iter().enumerate() {
        let npy = npy_bytes(&[values.len() / width, *width], values);
        std::fs::write(folder.path().join(format!("{place}.npy")), npy).map_err(|error| error.to_string())?;
    }
    let wanted = serde_json::json!({ "metrics": metrics, "layer_metrics": layer_metrics });
    std::fs::write(folder.path().join("wanted.json"), wanted.to_string())
        .map_err(|error| error.to_string())?;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference");
    let script = "import sys; sys.path.insert(0, sys.argv[1]); import main; main.main(sys.argv[2])";
    run(&python, script, &[&scripts, folder.path()]);
    let read = |name: &str| {
        let bytes = std::fs::read(folder.path().join(name)).expect("the reference has written it");
        npyz::NpyFile::new(&bytes[..]).and_then(npyz::NpyFile::into_vec::<f64>).expect("float64")
    };
    let matrices = metrics.iter().map(|metric| read(&format!("{}.npy", metric.name))).collect();
    let values = layer_metrics.iter().map(|name| read(&format!("{name}.npy"))).collect();
    Ok((matrices, values))
}
