//! Which similarity metrics are asked for: names and parameters as data, no arithmetic.

use serde::{Deserialize, Serialize};

mod catalogue;
mod name;

pub use catalogue::{Invariance, MetricInfo};
pub use name::MetricName;

/// The neighbours that metrics over neighbours look at unless told otherwise, as in ReSi.
pub const K_DEFAULT: u32 = 10;

/// A metric with its parameters; `k` is set where the metric counts neighbours, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Which metric.
    pub name: MetricName,
    /// Neighbours counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub k: Option<u32>,
}

impl MetricSpec {
    /// The metric with its default parameters.
    pub fn new(name: MetricName) -> Self {
        Self { name, k: name.info().counts_neighbours.then_some(K_DEFAULT) }
    }

    /// The fewest rows on which the metric is defined.
    pub fn rows_min(&self) -> u32 {
        match self.k {
            Some(k) => k.saturating_add(1),
            None => self.name.info().rows_min,
        }
    }

    /// Why the metric is undefined on `n` rows, if it is.
    pub fn refuses(&self, n: u64) -> Option<String> {
        let rows_min = self.rows_min();
        (n < u64::from(rows_min)).then(|| match self.k {
            Some(k) => format!("{} with k = {k} needs at least {rows_min} rows (k + 1), got {n}", self.name),
            None => format!("{} needs at least {rows_min} rows, got {n}", self.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_whatever_their_case_and_stored_as_written() {
        for name in MetricName::ALL {
            assert_eq!(MetricName::parse(&name.as_str().to_lowercase()), Some(name));
            let spec = MetricSpec::new(name);
            let stored = serde_json::to_string(&spec).unwrap();
            assert!(stored.starts_with(&format!("{{\"name\":\"{name}\"")), "{stored}");
            assert_eq!(serde_json::from_str::<MetricSpec>(&stored).unwrap(), spec);
        }
        assert_eq!(MetricName::parse("Cosine"), None);
    }
}
