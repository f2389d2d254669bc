//! `metrics`: what can be computed, and what is known of each.

use std::collections::BTreeMap;

use lsa_common::metric::{LayerMetricName, MetricName, MetricSpec, plain};
use serde::Serialize;
use serde_json::Value;

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
    range: (f64, Option<f64>),
    larger_is_more_similar: bool,
    identical: f64,
    invariant_to: Vec<&'static str>,
    parameters: BTreeMap<&'static str, Value>,
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
            range: (info.range.0, Some(info.range.1).filter(|top| top.is_finite())),
            larger_is_more_similar: info.larger_is_more_similar,
            identical: info.identical,
            invariant_to: info.invariances.iter().map(|invariance| invariance.as_str()).collect(),
            parameters: spec.parameters().into_iter().collect(),
            rows_min: spec.rows_min(),
        }
    }

    fn to_text(&self) -> String {
        let default = if self.default { " (computed unless others are asked for)" } else { "" };
        let parameters: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!("{name} = {}", plain(value))).collect();
        let parameters = match parameters.is_empty() {
            true => String::new(),
            false => format!("\n  parameters {}", parameters.join(", ")),
        };
        let top = self.range.1.map_or_else(|| "any".to_owned(), |top| top.to_string());
        format!(
            "{}{default}\n  formula    {}\n  source     {}\n  cost       {}\n  range      {} to {}, {}, {}\n  \
             invariant  to {}{parameters}\n  rows       at least {}\n",
            self.name,
            self.formula,
            self.source,
            self.cost,
            self.range.0,
            top,
            if self.larger_is_more_similar { "larger is more similar" } else { "smaller is more similar" },
            if self.symmetric { "symmetric" } else { "not symmetric" },
            self.invariant_to.join(", "),
            self.rows_min
        )
    }
}

/// A quantity of single layers as it is listed.
#[derive(Serialize)]
struct ListedLayerMetric {
    name: &'static str,
    of_single_layers: bool,
    formula: &'static str,
    source: &'static str,
    cost: &'static str,
}

impl ListedLayerMetric {
    fn new(name: LayerMetricName) -> Self {
        let info = name.info();
        Self {
            name: name.as_str(),
            of_single_layers: true,
            formula: info.formula,
            source: info.source,
            cost: info.cost,
        }
    }

    fn to_text(&self) -> String {
        let source = match self.source {
            "" => String::new(),
            source => format!("\n  source     {source}"),
        };
        format!(
            "{} (of single layers: --layer-metrics)\n  formula    {}{source}\n  cost       {}\n",
            self.name, self.formula, self.cost
        )
    }
}

/// One entry of the list.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Metric(Listed),
    LayerMetric(ListedLayerMetric),
}

/// All metrics and quantities of single layers, as text or JSON.
///
/// In the formulas X is [n, d] with one row per text, Xc is X less its mean row, a prime marks the other layer, and ‖·‖
/// is the Frobenius norm, ‖·‖_* the sum of the singular values.
pub fn list(args: MetricsArgs) -> String {
    let metrics = MetricName::ALL.into_iter().map(|name| Entry::Metric(Listed::new(name)));
    let layer_metrics = LayerMetricName::ALL.into_iter().map(ListedLayerMetric::new).map(Entry::LayerMetric);
    let entries: Vec<Entry> = metrics.chain(layer_metrics).collect();
    if args.json {
        let mut json = serde_json::to_string_pretty(&entries).expect("plain data with finite numbers");
        json.push('\n');
        return json;
    }
    let text = |entry: &Entry| match entry {
        Entry::Metric(metric) => metric.to_text(),
        Entry::LayerMetric(metric) => metric.to_text(),
    };
    entries.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_with_what_is_known_of_it() {
        let text = list(MetricsArgs { json: false });
        let json: serde_json::Value = serde_json::from_str(&list(MetricsArgs { json: true })).unwrap();
        let n_metrics = MetricName::ALL.len();
        assert_eq!(json.as_array().unwrap().len(), n_metrics + LayerMetricName::ALL.len());
        for (place, name) in LayerMetricName::ALL.into_iter().enumerate() {
            assert!(text.contains(name.info().formula), "{text}");
            assert_eq!(json[n_metrics + place]["name"], name.as_str());
        }
        for (place, name) in MetricName::ALL.into_iter().enumerate() {
            assert!(text.contains(&format!("{name}")) && text.contains(name.info().formula), "{text}");
            assert_eq!(json[place]["name"], name.as_str());
        }
        assert_eq!(json[2]["parameters"], serde_json::json!({ "k": 10, "inner": "cosine" }));
        assert!(text.contains("parameters inner = cosine, k = 10"), "{text}");
    }

    #[test]
    fn the_documentation_has_every_metric_as_it_is() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let text = std::fs::read_to_string(file).unwrap();
        let row = |name: &str, formula: &str| format!("| `{name}` | {} |", formula.replace('|', "\\|"));
        for name in MetricName::ALL {
            let info = name.info();
            assert!(text.contains(&row(name.as_str(), info.formula)), "{name}: formula");
            let invariances: Vec<&str> = info.invariances.iter().map(|i| i.as_str()).collect();
            assert!(text.contains(&row(name.as_str(), &invariances.join(", "))), "{name}: invariances");
        }
        for name in LayerMetricName::ALL {
            assert!(text.contains(&row(name.as_str(), name.info().formula)), "{name}");
        }
    }
}
