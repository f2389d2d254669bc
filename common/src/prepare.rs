//! Texts of one dataset into the bucket, each with its origin. Who prepares reads the dataset once for everyone else.

use tokio::runtime::Handle;

use crate::dataset::{DatasetError, FileOpener, TextReader, TextsPlan, read_texts};
use crate::failure::FailureClass;
use crate::id::{AttemptId, Digest};
use crate::layout;
use crate::report::Prepared;
use crate::store::{Store, StoreError};
use crate::texts::{FileOrigin, PART_ROWS_MAX, Text, TextsError, encode_part};

/// Why texts could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The files cannot be read as the plan says.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A part cannot be encoded.
    #[error(transparent)]
    Texts(#[from] TextsError),
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator wants no more of it.
    #[error("stopped")]
    Stopped,
}

impl PrepareError {
    /// What the failure means for an attempt.
    pub fn failure_class(&self) -> FailureClass {
        match self {
            Self::Dataset(error) => error.failure_class(),
            Self::Texts(_) => FailureClass::Reject,
            Self::Store(error) => error.failure_class(),
            Self::Stopped => FailureClass::Retry,
        }
    }
}

/// Reads the texts of `plan` and writes them as parts of at most [`PART_ROWS_MAX`] rows under `texts_key`.
///
/// There have to be `n_texts`, where that is known. `go_on` hears after each part how many texts are written. Called from a
/// blocking thread; `runtime` waits for the bucket.
#[expect(clippy::too_many_arguments, reason = "each is one thing, and one caller has them all")]
pub fn prepare(
    runtime: &Handle,
    store: &Store,
    texts_key: Digest,
    plan: &TextsPlan,
    n_texts: Option<u32>,
    files: &dyn FileOpener,
    attempt: AttemptId,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Prepared, PrepareError> {
    let mut reader = read_texts(plan, n_texts, files)?;
    let mut parts = Vec::new();
    let mut n_texts = 0u64;
    loop {
        let part: Vec<Text> = reader.by_ref().take(PART_ROWS_MAX).collect::<Result<_, _>>()?;
        if part.is_empty() {
            break;
        }
        n_texts += part.len() as u64;
        let key = layout::texts_part(texts_key, parts.len(), attempt);
        parts.push(runtime.block_on(store.put(&key, encode_part(&part, &origins(plan, &reader))?))?);
        if !go_on(n_texts) {
            return Err(PrepareError::Stopped);
        }
    }
    let tally = reader.tally();
    Ok(Prepared {
        parts,
        n_texts,
        n_blank: tally.n_blank,
        n_bad: tally.n_bad,
        n_duplicates: tally.n_duplicates,
        columns: reader.columns().to_vec(),
        warnings: reader.warnings().to_vec(),
    })
}

fn origins(plan: &TextsPlan, reader: &TextReader<'_>) -> Vec<FileOrigin> {
    let files = (0..).zip(&plan.files).zip(reader.columns());
    files.filter_map(|((file, source), columns)| FileOrigin::new(file, source, columns.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::dataset::testing::file_name;
    use crate::dataset::{LocalFiles, ReadLimits, ReadSettings, Sampling, local_plan, survey};
    use crate::key::texts_key;
    use crate::texts::{decode_part, describe_part};

    #[test]
    fn parts_hold_the_texts_of_all_files() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lines = |n: usize| (0..n).map(|i| format!("{{\"text\": \"text {i}\"}}\n")).collect::<String>();
        std::fs::write(folder.path().join("a.jsonl"), lines(PART_ROWS_MAX + 5)).expect("write a file");
        std::fs::write(folder.path().join("b.jsonl"), lines(7)).expect("write a file");
        let settings = ReadSettings {
            num_samples: 1_000_000,
            sampling: Sampling::First,
            dedupe: false,
            skip_bad_rows: false,
            limits: ReadLimits::default(),
        };
        let name = file_name(format!("{}/*.jsonl", folder.path().display()));
        let files = LocalFiles::default();
        let found = survey(local_plan(&name, settings).expect("a plan"), &files).expect("a survey");
        let (spec, store) = (found.spec, Store::memory());
        let (key, handle) = (texts_key(&spec.plan), runtime.handle());
        let heard = Cell::new(0);
        let run = |n_texts, stop: bool| {
            let go_on = |n| {
                heard.set(n);
                !stop
            };
            prepare(handle, &store, key, &spec.plan, n_texts, &files, AttemptId(1), &go_on)
        };
        assert!(matches!(run(Some(spec.n_texts), true), Err(PrepareError::Stopped)));
        assert!(matches!(run(Some(spec.n_texts - 1), false), Err(PrepareError::Dataset(_))));
        let prepared = run(Some(spec.n_texts), false).expect("texts are written");
        assert_eq!((prepared.n_texts, heard.get()), (PART_ROWS_MAX as u64 + 12, PART_ROWS_MAX as u64 + 12));
        // What the second file repeats is only counted.
        assert_eq!((prepared.n_duplicates, prepared.parts.len()), (7, 2));
        let part = runtime.block_on(store.get_verified(&prepared.parts[1])).expect("the part is there");
        let (origins, n) = describe_part(part.clone()).expect("a part");
        assert_eq!((origins.len(), n), (2, 12));
        assert_eq!(origins[1].content, spec.plan.files[1].content.clone().expect("digested"));
        assert!(origins.iter().all(|origin| origin.name.is_none() && origin.columns.is_some()));
        let last = &decode_part(part, 11..12).expect("a text")[0];
        assert_eq!((last.file, last.row, last.text.as_str()), (1, 6, "text 6"));
    }
}
