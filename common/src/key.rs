//! Content keys: a digest of all that changes the bytes of texts, embeddings and matrices.
//!
//! Same key, same bytes. A *base key* leaves out the numeric profile of the worker: resolving, planning and the job
//! id know no worker yet. The *full key*, under which objects are stored, is a digest of base key and profile.

use serde::Serialize;

use crate::dataset::TextsPlan;
use crate::id::Digest;
use crate::job::{ExtractionSettings, SimilaritySettings};
use crate::model::{PinnedModel, Pooling};

/// Raised whenever the way in which batches are formed changes.
pub const BATCH_RULE: u32 = 1;

/// The digest of `value` in canonical JSON (fields in declared order), apart from every other `kind`.
pub fn digest_of(kind: &str, value: &impl Serialize) -> Digest {
    let json = serde_json::to_vec(&(kind, value)).expect("key material has string keys and finite numbers");
    Digest::of(&json)
}

/// The key of prepared texts: content and selection, not where the files lie. Every file's content is known.
pub fn texts_key(texts: &TextsPlan) -> Digest {
    digest_of("texts", &texts.identity())
}

/// The key of a model's files: names and content.
pub fn model_files_key(model: &PinnedModel) -> Digest {
    let mut files: Vec<_> = model.files.iter().map(|file| (&file.name, file.sha256)).collect();
    files.sort();
    digest_of("model files", &files)
}

/// The base key of an extraction: model files, texts and settings; poolings are committed one by one and not in it.
pub fn extraction_base_key(model: &PinnedModel, texts_key: Digest, settings: &ExtractionSettings) -> Digest {
    let mut files: Vec<_> = model.files.iter().map(|file| (&file.name, file.sha256)).collect();
    files.sort();
    digest_of("extraction", &(files, texts_key, settings, BATCH_RULE, "float32"))
}

/// The base key of a comparison of the rows of some extractions; the number of trials is not in it, so that more trials reuse the first ones.
pub fn comparison_base_key(
    extractions: &[Digest],
    pooling: Pooling,
    settings: &SimilaritySettings,
) -> Digest {
    let SimilaritySettings { metrics, layer_metrics, sample_size, trials: _, compare: _, calibrate, seed } =
        settings;
    digest_of("comparison", &(extractions, pooling, metrics, layer_metrics, sample_size, calibrate, seed))
}

/// The key under which an extraction's objects are stored, once a profile is bound.
pub fn extraction_key(base_key: Digest, numeric_profile: &str) -> Digest {
    digest_of("profiled extraction", &(base_key, numeric_profile))
}

/// The key under which a comparison's objects are stored, once profiles are bound.
pub fn comparison_key(base_key: Digest, extraction_keys: &[Digest], numeric_profile: &str) -> Digest {
    digest_of("profiled comparison", &(base_key, extraction_keys, numeric_profile))
}
