//! Which experiments of a job were compared across models, and what their directory and models are called. Pure.

use std::collections::{BTreeMap, BTreeSet};

use lsa_common::dataset::DatasetName;
use lsa_common::id::Digest;
use lsa_common::job::{Compare, JobSpec};
use lsa_common::model::short_name;

use super::ComparedModel;
use crate::grid::name::slug;
use crate::scheduler::event::MergeKeys;

/// Experiments whose trials hold the matrices of all their models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name of its directory: dataset and pooling, where two groups share that with a digest.
    pub name: String,
    /// One experiment per model, in the order of their layers in the matrices.
    pub experiments: Vec<usize>,
}

/// The groups of a job, by what its experiments were merged from; a group lacks none of its models.
pub fn groups(spec: &JobSpec, merged: &BTreeMap<usize, MergeKeys>) -> Vec<Group> {
    // By comparison: which experiment has the layers from there on.
    let mut found: BTreeMap<Digest, BTreeMap<u32, usize>> = BTreeMap::new();
    for (number, keys) in merged {
        let across = spec.experiments.get(*number).is_some_and(|e| e.similarity.compare == Compare::Across);
        if across {
            found.entry(keys.comparison_key).or_default().entry(keys.first_layer).or_insert(*number);
        }
    }
    let mut groups: Vec<(Digest, Group)> = Vec::new();
    for (key, members) in found {
        let experiments: Vec<usize> = members.into_values().collect();
        let layers = |number: &usize| spec.experiments[*number].extraction.layers.len();
        let whole =
            experiments.iter().map(layers).sum::<usize>() == merged[&experiments[0]].n_layers as usize;
        if whole && experiments.len() > 1 {
            let first = &spec.experiments[experiments[0]];
            let dataset = &spec.texts[first.texts].plan.dataset;
            let stem = dataset.parse::<DatasetName>().map_or_else(|_| dataset.clone(), |name| name.stem());
            let name = slug(&format!("{stem} {}", first.pooling));
            groups.push((key, Group { name, experiments }));
        }
    }
    let names: Vec<String> = groups.iter().map(|(_, group)| group.name.clone()).collect();
    let told_apart = |(key, mut group): (Digest, Group)| {
        if names.iter().filter(|name| **name == group.name).count() > 1 {
            group.name = format!("{}_{}", group.name, key.short());
        }
        group
    };
    groups.into_iter().map(told_apart).collect()
}

/// The models of a group, each under a name that no other has, in the order in which the job names them.
pub fn models(spec: &JobSpec, group: &Group) -> Vec<ComparedModel> {
    let ids: Vec<&str> = group
        .experiments
        .iter()
        .map(|number| spec.models[spec.experiments[*number].model].id.as_str())
        .collect();
    let different = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    let short: Vec<String> = ids.iter().map(|id| slug(short_name(id))).collect();
    let long: Vec<String> = ids.iter().map(|id| slug(id)).collect();
    let own: Vec<String> =
        group.experiments.iter().map(|number| spec.experiments[*number].name.clone()).collect();
    let names = [short, long].into_iter().find(|names| different(names)).unwrap_or(own);

    let mut first = 0;
    let mut models: Vec<(usize, ComparedModel)> = Vec::new();
    for ((number, id), name) in group.experiments.iter().zip(ids).zip(names) {
        let experiment = &spec.experiments[*number];
        let layers = experiment.extraction.layers.clone();
        let last = spec.models[experiment.model].facts.n_layers.saturating_sub(1).max(1);
        let depths = layers.iter().map(|layer| f64::from(*layer) / f64::from(last)).collect();
        let n_layers = layers.len();
        models.push((*number, ComparedModel { name, id: id.to_owned(), layers, depths, first }));
        first += n_layers;
    }
    models.sort_by_key(|(number, _)| *number);
    models.into_iter().map(|(_, model)| model).collect()
}
