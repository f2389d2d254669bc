//! What experiments are called: the name of a directory that people read.

use std::collections::HashMap;

use lsa_common::id::Digest;

use super::Request;

/// The longest name in bytes: with endings it stays far below the 255 of common file systems.
pub const NAME_BYTES_MAX: usize = 120;

/// Lower case; every run of other characters than letters and digits becomes `_`, at the ends nothing.
pub fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('_') {
            slug.push('_');
        }
    }
    slug.truncate(slug.trim_end_matches('_').len());
    slug
}

/// Names the experiments, each differently: model, pooling and dataset; where that is not enough the owner of the
/// model and the folder and column of the file are told too; where even that is not, a digest of all settings.
pub(super) fn give_names(requests: &mut [Request]) {
    for request in &mut *requests {
        request.name = bounded(&short_name(request));
    }
    for group in collisions(requests) {
        let (first, rest) = group.split_first().expect("a collision has at least two");
        let models_differ = rest.iter().any(|idx| requests[*idx].model != requests[*first].model);
        let datasets_differ = rest.iter().any(|idx| requests[*idx].dataset != requests[*first].dataset);
        for idx in group {
            requests[idx].name = bounded(&long_name(&requests[idx], models_differ, datasets_differ));
        }
    }
    for idx in collisions(requests).into_iter().flatten() {
        let digest = settings_digest(&requests[idx]).short();
        requests[idx].name = bounded(&format!("{}_{digest}", requests[idx].name));
    }
}

/// Groups of experiments that share a name.
fn collisions(requests: &[Request]) -> Vec<Vec<usize>> {
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (idx, request) in requests.iter().enumerate() {
        by_name.entry(&request.name).or_default().push(idx);
    }
    by_name.into_values().filter(|group| group.len() > 1).collect()
}

fn short_name(request: &Request) -> String {
    slug(&format!("{} {} {}", model_parts(request).1, request.pooling, request.dataset.stem()))
}

fn long_name(request: &Request, tell_owner: bool, tell_folder: bool) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let (owner, model) = model_parts(request);
    let stem = request.dataset.stem();
    if tell_owner {
        parts.extend(owner);
    }
    parts.push(model);
    if tell_owner {
        parts.extend(request.model.revision.as_deref());
    }
    parts.push(request.pooling.as_str());
    if tell_folder {
        parts.extend(request.dataset.folder());
    }
    parts.push(&stem);
    if tell_folder {
        parts.extend(request.dataset.column());
    }
    slug(&parts.join(" "))
}

/// The owner, or the folder above a folder, and the last part of a model's id.
fn model_parts(request: &Request) -> (Option<&str>, &str) {
    let mut parts = request.model.id.rsplit('/').filter(|part| !matches!(*part, "" | "." | ".."));
    let name = parts.next().unwrap_or(&request.model.id);
    (parts.next(), name)
}

/// A long name ends in a digest of all of it.
fn bounded(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let digest = Digest::of(name.as_bytes()).short();
    // A slug is ASCII, so that every byte is a character.
    format!("{}_{digest}", name[..NAME_BYTES_MAX - 1 - digest.len()].trim_end_matches('_'))
}

fn settings_digest(request: &Request) -> Digest {
    let Request { model, dataset, data, extraction, similarity, .. } = request;
    let settings = serde_json::to_vec(&(model, dataset, data, extraction, similarity));
    Digest::of(&settings.expect("settings are plain data"))
}

#[cfg(test)]
mod tests {
    use super::super::{DataSettings, ExtractionSettings, ModelName, SimilaritySettings};
    use super::*;
    use lsa_common::model::Pooling;

    fn request(model: &str, pooling: Pooling, dataset: &str) -> Request {
        let (id, revision) = model.split_once('@').map_or((model, None), |(id, r)| (id, Some(r.to_owned())));
        Request {
            name: String::new(),
            model: ModelName { id: id.to_owned(), revision },
            pooling,
            dataset: dataset.parse().expect("a valid dataset"),
            data: DataSettings::default(),
            extraction: ExtractionSettings::default(),
            similarity: SimilaritySettings::default(),
            place: None,
        }
    }

    fn names(requests: &[Request]) -> Vec<String> {
        let mut requests = requests.to_vec();
        give_names(&mut requests);
        requests.into_iter().map(|request| request.name).collect()
    }

    #[test]
    fn slugs() {
        let check = |text: &str, expected: &str| assert_eq!(slug(text), expected, "{text:?}");
        check("bert-base-uncased mean c4", "bert_base_uncased_mean_c4");
        check("A..b__C", "a_b_c");
        check("../x", "x");
        check("größe", "gr_e");
        check("模型", "");
    }

    #[test]
    fn names_tell_model_pooling_and_dataset() {
        let check = |model: &str, pooling: Pooling, dataset: &str, expected: &str| {
            assert_eq!(names(&[request(model, pooling, dataset)]), [expected], "{model} {dataset}");
        };
        check("bert-base-uncased", Pooling::Mean, "file:c4.txt", "bert_base_uncased_mean_c4");
        check(
            "BAAI/bge-large-en-v1.5",
            Pooling::LastToken,
            "file:d/R.v2.jsonl.gz#body",
            "bge_large_en_v1_5_last_token_r_v2",
        );
        check("./models/minilm/", Pooling::Cls, "file:a.csv", "minilm_cls_a");
    }

    #[test]
    fn colliding_names_tell_more() {
        let check = |requests: &[(&str, &str)], expected: &[&str]| {
            let requests: Vec<Request> = requests.iter().map(|(m, d)| request(m, Pooling::Mean, d)).collect();
            assert_eq!(names(&requests), expected);
        };
        check(&[("a/m", "file:t.txt"), ("b/m", "file:t.txt")], &["a_m_mean_t", "b_m_mean_t"]);
        check(&[("m", "file:x/t.txt"), ("m", "file:y/t.txt")], &["m_mean_x_t", "m_mean_y_t"]);
        check(&[("m", "file:t.csv#a"), ("m", "file:t.csv#b")], &["m_mean_t_a", "m_mean_t_b"]);
        check(&[("m@v1", "file:t.txt"), ("m@v2", "file:t.txt")], &["m_v1_mean_t", "m_v2_mean_t"]);
        check(&[("m", "file:t.txt"), ("n", "file:t.txt")], &["m_mean_t", "n_mean_t"]);
    }

    #[test]
    fn settings_alone_give_a_digest_that_does_not_depend_on_the_order() {
        let plain = request("m", Pooling::Mean, "file:t.txt");
        let mut other = plain.clone();
        other.data.max_length = 128;
        let forward = names(&[plain.clone(), other.clone()]);
        assert!(forward.iter().all(|name| name.starts_with("m_mean_t_") && name.len() == 21), "{forward:?}");
        assert_ne!(forward[0], forward[1]);
        let mut backward = names(&[other, plain]);
        backward.reverse();
        assert_eq!(forward, backward);
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let long = "x".repeat(200);
        let requests = ["a", "b"].map(|end| request(&format!("{long}{end}"), Pooling::Mean, "file:t.txt"));
        let names = names(&requests);
        assert!(names.iter().all(|name| name.len() == NAME_BYTES_MAX), "{names:?}");
        assert_ne!(names[0], names[1]);
    }
}
