//! Lists → experiments: every combination of `[grid]`, then the entries of `[[experiment]]`.

use std::collections::HashMap;

use lsa_common::dataset::DatasetName;
use lsa_common::model::Pooling;

use super::fault::{Faults, Place};
use super::schema::{Combinations, Settings, Single};
use super::{DataSettings, ExtractionSettings, ModelName, Request, RunSettings, SimilaritySettings, name};

/// A value and where it was named.
pub(super) struct Named<T> {
    pub(super) value: T,
    pub(super) place: Option<Place>,
}

/// The experiments, named; none where they are too many. Models stand outermost and poolings innermost, so that
/// what shares an extraction stands together.
pub(super) fn requests(
    combinations: Option<&Combinations>,
    base: &Settings,
    singles: Vec<Single>,
    run: &RunSettings,
    faults: &mut Faults,
) -> Option<Vec<Request>> {
    let sizes = combinations.map_or([0; 3], |c| [c.models.len(), c.datasets.len(), c.poolings.len()]);
    let n_experiments =
        sizes.iter().fold(1usize, |product, size| product.saturating_mul(*size)) + singles.len();
    if n_experiments > run.max_experiments as usize {
        let [models, datasets, poolings] = sizes;
        let beside = match singles.len() {
            0 => String::new(),
            n_singles => format!(" + {n_singles} single experiments"),
        };
        let message = format!(
            "{models} models × {poolings} poolings × {datasets} datasets{beside} = {n_experiments}, more than \
             run.max_experiments = {}; shorten the lists, or raise it if that is meant",
            run.max_experiments
        );
        let place = combinations.and_then(|c| c.models.first()).and_then(|first| first.place.clone());
        faults.add(place.or_else(|| singles.first().map(|single| single.place.clone())).as_ref(), message);
        return None;
    }
    let mut requests = Vec::with_capacity(n_experiments);
    if let Some(Combinations { models, poolings, datasets }) = combinations {
        for model in models {
            for dataset in datasets {
                for pooling in poolings {
                    let place = [&model.place, &dataset.place, &pooling.place].into_iter().flatten().next();
                    let names = (model.value.clone(), pooling.value, dataset.value.clone());
                    requests.push(request(names, base.clone(), place.cloned()));
                }
            }
        }
    }
    for Single { model, pooling, dataset, settings, place } in singles {
        requests.push(request((model, pooling, dataset), settings, Some(place)));
    }
    refuse_duplicates(&requests, faults);
    if requests.is_empty() || !faults.is_empty() {
        return None;
    }
    name::give_names(&mut requests);
    Some(requests)
}

fn request(
    (model, pooling, dataset): (ModelName, Pooling, DatasetName),
    settings: Settings,
    place: Option<Place>,
) -> Request {
    let Settings { data, extraction, similarity, .. } = settings;
    Request { name: String::new(), model, pooling, dataset, data, extraction, similarity, place }
}

/// All that makes an experiment what it is.
type Identity<'r> = (
    &'r ModelName,
    Pooling,
    &'r DatasetName,
    &'r DataSettings,
    &'r ExtractionSettings,
    &'r SimilaritySettings,
);

fn refuse_duplicates(requests: &[Request], faults: &mut Faults) {
    let mut first: HashMap<Identity<'_>, &Request> = HashMap::new();
    for request in requests {
        let Request { model, pooling, dataset, data, extraction, similarity, .. } = request;
        if let Some(earlier) = first.insert((model, *pooling, dataset, data, extraction, similarity), request)
        {
            let at = match &earlier.place {
                Some(Place::File { line, .. }) => format!(" (line {line})"),
                Some(Place::Flag(_)) | None => String::new(),
            };
            let message = format!(
                "the experiment {model}, {pooling}, {dataset} is already there{at} with the same settings; remove one"
            );
            faults.add(request.place.as_ref(), message);
        }
    }
}
