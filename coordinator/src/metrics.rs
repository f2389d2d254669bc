//! `metrics`: what can be computed, and what is known of each.

use lsa_common::metric::{MetricName, MetricSpec};
use serde::Serialize;

/// What `metrics` takes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct MetricsArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// A metric as it is listed.
#[derive(Serialize)]
struct Listed {
    name: &'static str,
    default: bool,
    formula: &'static str,
    source: &'static str,
    cost: &'static str,
    symmetric: bool,
    range: (f64, f64),
    larger_is_more_similar: bool,
    identical: f64,
    invariant_to: Vec<&'static str>,
    k: Option<u32>,
    rows_min: u32,
}

impl Listed {
    fn new(name: MetricName) -> Self {
        let (info, spec) = (name.info(), MetricSpec::new(name));
        Self {
            name: name.as_str(),
            default: MetricName::DEFAULT.contains(&name),
            formula: info.formula,
            source: info.source,
            cost: info.cost,
            symmetric: info.symmetric,
            range: info.range,
            larger_is_more_similar: info.larger_is_more_similar,
            identical: info.identical,
            invariant_to: info.invariances.iter().map(|invariance| invariance.as_str()).collect(),
            k: spec.k,
            rows_min: spec.rows_min(),
        }
    }

    fn to_text(&self) -> String {
        let default = if self.default { " (computed unless others are asked for)" } else { "" };
        let parameter = self.k.map_or_else(String::new, |k| format!("\n  parameter  k = {k}"));
        format!(
            "{}{default}\n  formula    {}\n  source     {}\n  cost       {}\n  range      {} to {}, {}, {}\n  \
             invariant  to {}{parameter}\n  rows       at least {}\n",
            self.name,
            self.formula,
            self.source,
            self.cost,
            self.range.0,
            self.range.1,
            if self.larger_is_more_similar { "larger is more similar" } else { "smaller is more similar" },
            if self.symmetric { "symmetric" } else { "not symmetric" },
            self.invariant_to.join(", "),
            self.rows_min
        )
    }
}

/// All metrics, as text or JSON.
///
/// In the formulas X is [n, d] with one row per text, Xc is X less its mean row, a prime marks the other layer, and ‖·‖
/// is the Frobenius norm.
pub fn list(args: MetricsArgs) -> String {
    let metrics: Vec<Listed> = MetricName::ALL.into_iter().map(Listed::new).collect();
    if args.json {
        let mut json = serde_json::to_string_pretty(&metrics).expect("plain data with finite numbers");
        json.push('\n');
        return json;
    }
    metrics.iter().map(Listed::to_text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_with_what_is_known_of_it() {
        let text = list(MetricsArgs { json: false });
        let json: serde_json::Value = serde_json::from_str(&list(MetricsArgs { json: true })).unwrap();
        assert_eq!(json.as_array().unwrap().len(), MetricName::ALL.len());
        for (place, name) in MetricName::ALL.into_iter().enumerate() {
            assert!(text.contains(&format!("{name}")) && text.contains(name.info().formula), "{text}");
            assert_eq!(json[place]["name"], name.as_str());
        }
        assert_eq!((&json[2]["k"], &json[0]["k"]), (&10.into(), &serde_json::Value::Null));
    }
}
