//! `layers.csv`: what was measured of single layers, for spreadsheets.

use std::fmt::Write as _;

use crate::merge::{Estimates, ExperimentResult};

/// The file: a header, then one line per quantity and layer; a number that is undefined is empty.
pub fn csv(result: &ExperimentResult) -> String {
    let mut text = "metric,layer,mean,std,ci_low,ci_high,trials,reason\n".to_owned();
    let number = |value: f64| if value.is_nan() { String::new() } else { value.to_string() };
    for metric in &result.layer_metrics {
        for (place, layer) in result.layers.iter().enumerate() {
            let Estimates { mean, std, ci_low, ci_high } = &metric.estimates;
            let numbers = [mean, std, ci_low, ci_high].map(|values| number(values[place])).join(",");
            let reason = result.undefined.get(layer).filter(|_| mean[place].is_nan());
            let reason = reason.map(|reason| quoted(reason)).unwrap_or_default();
            writeln!(text, "{},{layer},{numbers},{},{reason}", metric.name, metric.trials.len())
                .expect("writing to a String never fails");
        }
    }
    text
}

/// A text as one field (RFC 4180).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::samples::calibrated;

    #[test]
    fn one_line_per_quantity_and_layer() {
        let mut result = calibrated(2);
        result.layer_metrics[1].estimates = Estimates {
            mean: vec![0.5, f64::NAN],
            std: vec![0.25, f64::NAN],
            ci_low: vec![-1e-9, f64::NAN],
            ci_high: vec![f64::NAN; 2],
        };
        result.undefined.insert(1, "all rows, \"each\", are equal".to_owned());
        let text = csv(&result);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 4);
        assert_eq!(lines[3], "NormMean,0,0.5,0.25,-0.000000001,,3,");
        assert_eq!(lines[4], "NormMean,1,,,,,3,\"all rows, \"\"each\"\", are equal\"");
    }
}
