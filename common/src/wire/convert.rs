//! Between wire types and the crate's own.

use super::{WireError, work};
use crate::artifact::{decode_trial, encode_trial};
use crate::dataset::Columns;
use crate::failure::FailureClass;
use crate::id::{AttemptId, Digest, UnitId};
use crate::model::Pooling;
use crate::record::{ExtractNotes, ShardLayer, StoredObject};
use crate::report::{Damaged, Extracted, Failure, Outcome, Prepared};

/// The unit and attempt that a message is about.
pub fn attempt_from_pb(unit_id: &str, attempt_id: &str) -> Result<(UnitId, AttemptId), WireError> {
    let unit = unit_id.parse().map_err(|e| WireError::invalid("unit_id", e))?;
    let attempt = attempt_id.parse().map_err(|e| WireError::invalid("attempt_id", e))?;
    Ok((unit, attempt))
}

fn digest_from_pb(field: &'static str, text: &str) -> Result<Digest, WireError> {
    text.parse().map_err(|e| WireError::invalid(field, e))
}

fn pooling_from_pb(field: &'static str, text: &str) -> Result<Pooling, WireError> {
    Pooling::parse(text).ok_or_else(|| WireError::invalid(field, format!("unknown pooling {text:?}")))
}

fn object_from_pb(object: work::WrittenObject) -> Result<StoredObject, WireError> {
    let sha256 = digest_from_pb("report.object.sha256", &object.sha256)?;
    Ok(StoredObject { key: object.key, size: object.size, sha256 })
}

fn object_to_pb(object: StoredObject) -> work::WrittenObject {
    work::WrittenObject { key: object.key, size: object.size, sha256: object.sha256.to_string() }
}

fn columns_from_pb(columns: work::ReadColumns) -> Option<Columns> {
    let work::ReadColumns { names, joined } = columns;
    (!names.is_empty()).then_some(Columns { names, joined })
}

fn columns_to_pb(columns: Option<Columns>) -> work::ReadColumns {
    columns.map_or_else(work::ReadColumns::default, |Columns { names, joined }| work::ReadColumns {
        names,
        joined,
    })
}

/// What a report says.
pub fn outcome_from_pb(outcome: work::report::Outcome) -> Result<Outcome, WireError> {
    use work::report::Outcome as Pb;
    Ok(match outcome {
        Pb::Prepared(prepared) => Outcome::Prepared(Prepared {
            parts: prepared.parts.into_iter().map(object_from_pb).collect::<Result<_, _>>()?,
            n_texts: prepared.n_texts,
            n_blank: prepared.n_blank,
            n_bad: prepared.n_bad,
            n_duplicates: prepared.n_duplicates,
            columns: prepared.columns.into_iter().map(columns_from_pb).collect(),
            warnings: prepared.warnings,
        }),
        Pb::Mirrored(_) => Outcome::Mirrored,
        Pb::Extracted(extracted) => Outcome::Extracted(extracted_from_pb(extracted)?),
        Pb::Compared(compared) => {
            let trial = |result: work::TrialResult| {
                let (matrices, _) = decode_trial(&result.object)
                    .map_err(|e| WireError::invalid("report.compared.trials.object", e))?;
                Ok((result.trial, matrices))
            };
            Outcome::Compared(compared.trials.into_iter().map(trial).collect::<Result<_, _>>()?)
        }
        Pb::Failed(failed) => Outcome::Failed(failure_from_pb(failed)?),
        Pb::HandedBack(_) => Outcome::HandedBack,
    })
}

fn extracted_from_pb(extracted: work::Extracted) -> Result<Extracted, WireError> {
    let layer = |layer: work::LayerRows| {
        let object = layer.object.ok_or_else(|| WireError::missing("report.extracted.layers.object"))?;
        Ok(ShardLayer { layer: layer.layer, width: layer.width, object: object_from_pb(object)? })
    };
    let pooling = |rows: work::PoolingRows| {
        let pooling = pooling_from_pb("report.extracted.pooling", &rows.pooling)?;
        let layers = rows.layers.into_iter().map(layer).collect::<Result<_, WireError>>()?;
        Ok((pooling, layers))
    };
    let notes = extracted.notes.ok_or_else(|| WireError::missing("report.extracted.notes"))?;
    Ok(Extracted {
        poolings: extracted.poolings.into_iter().map(pooling).collect::<Result<_, WireError>>()?,
        notes: ExtractNotes {
            n_tokens: notes.n_tokens,
            n_truncated: notes.n_truncated,
            rows_without_tokens: notes.rows_without_tokens,
            rows_redone: notes.rows_redone.into_iter().collect(),
            split: notes.split,
        },
    })
}

fn failure_from_pb(failed: work::Failed) -> Result<Failure, WireError> {
    let failure_class = match failed.failure_class() {
        work::FailureClass::Unspecified => {
            let fault = format!("unknown value {}", failed.failure_class);
            return Err(WireError::invalid("report.failed.failure_class", fault));
        }
        work::FailureClass::Retry => FailureClass::Retry,
        work::FailureClass::Reject => FailureClass::Reject,
        work::FailureClass::Fatal => FailureClass::Fatal,
    };
    let damaged = match failed.damaged.and_then(|damaged| damaged.what) {
        None => None,
        Some(work::damaged::What::TextsKey(key)) => {
            Some(Damaged::Texts(digest_from_pb("report.failed.damaged.texts_key", &key)?))
        }
        Some(work::damaged::What::Shard(shard)) => Some(Damaged::Shard {
            extraction_key: digest_from_pb(
                "report.failed.damaged.shard.extraction_key",
                &shard.extraction_key,
            )?,
            pooling: pooling_from_pb("report.failed.damaged.shard.pooling", &shard.pooling)?,
            shard: shard.shard,
        }),
    };
    Ok(Failure { failure_class, message: failed.message, damaged, panicked: failed.panicked })
}

/// A report on the wire.
pub fn outcome_to_pb(outcome: Outcome) -> work::report::Outcome {
    use work::report::Outcome as Pb;
    match outcome {
        Outcome::Prepared(prepared) => Pb::Prepared(work::Prepared {
            parts: prepared.parts.into_iter().map(object_to_pb).collect(),
            n_texts: prepared.n_texts,
            n_blank: prepared.n_blank,
            n_bad: prepared.n_bad,
            n_duplicates: prepared.n_duplicates,
            columns: prepared.columns.into_iter().map(columns_to_pb).collect(),
            warnings: prepared.warnings,
        }),
        Outcome::Mirrored => Pb::Mirrored(work::Mirrored {}),
        Outcome::Extracted(extracted) => Pb::Extracted(extracted_to_pb(extracted)),
        Outcome::Compared(trials) => {
            let trial =
                |(trial, matrices)| work::TrialResult { trial, object: encode_trial(&matrices, None).into() };
            Pb::Compared(work::Compared { trials: trials.into_iter().map(trial).collect() })
        }
        Outcome::Failed(failure) => Pb::Failed(failure_to_pb(failure)),
        Outcome::HandedBack => Pb::HandedBack(work::HandedBack {}),
    }
}

fn extracted_to_pb(extracted: Extracted) -> work::Extracted {
    let layer = |layer: ShardLayer| work::LayerRows {
        layer: layer.layer,
        width: layer.width,
        object: Some(object_to_pb(layer.object)),
    };
    let pooling = |(pooling, layers): (Pooling, Vec<ShardLayer>)| work::PoolingRows {
        pooling: pooling.as_str().to_owned(),
        layers: layers.into_iter().map(layer).collect(),
    };
    let notes = extracted.notes;
    work::Extracted {
        poolings: extracted.poolings.into_iter().map(pooling).collect(),
        notes: Some(work::ExtractNotes {
            n_tokens: notes.n_tokens,
            n_truncated: notes.n_truncated,
            rows_without_tokens: notes.rows_without_tokens,
            rows_redone: notes.rows_redone.into_iter().collect(),
            split: notes.split,
        }),
    }
}

fn failure_to_pb(failure: Failure) -> work::Failed {
    let failure_class = match failure.failure_class {
        FailureClass::Retry => work::FailureClass::Retry,
        FailureClass::Reject => work::FailureClass::Reject,
        FailureClass::Fatal => work::FailureClass::Fatal,
    };
    let damaged = failure.damaged.map(|damaged| match damaged {
        Damaged::Texts(key) => work::damaged::What::TextsKey(key.to_string()),
        Damaged::Shard { extraction_key, pooling, shard } => work::damaged::What::Shard(work::DamagedShard {
            extraction_key: extraction_key.to_string(),
            pooling: pooling.as_str().to_owned(),
            shard,
        }),
    });
    work::Failed {
        failure_class: failure_class.into(),
        message: failure.message,
        damaged: damaged.map(|what| work::Damaged { what: Some(what) }),
        panicked: failure.panicked,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metric::{MetricName, MetricSpec};
    use crate::trial_matrices::TrialMatrices;

    fn object(name: &str) -> StoredObject {
        StoredObject { key: name.to_owned(), size: 3, sha256: Digest::of(name.as_bytes()) }
    }

    #[test]
    fn outcomes_come_back() {
        let layer = ShardLayer { layer: 2, width: 8, object: object("a") };
        let notes =
            ExtractNotes { n_tokens: 9, rows_redone: BTreeMap::from([(1, 2)]), ..ExtractNotes::default() };
        let damaged = Damaged::Shard { extraction_key: Digest::of(b"x"), pooling: Pooling::Max, shard: 4 };
        let matrices = TrialMatrices {
            n_layers: 1,
            matrices: vec![(MetricSpec::new(MetricName::Rsa), vec![1.0])],
            nulls: Vec::new(),
            layer_metrics: Vec::new(),
            undefined: BTreeMap::new(),
        };
        let outcomes = [
            Outcome::Prepared(Prepared {
                parts: vec![object("p")],
                n_texts: 5,
                n_blank: 1,
                n_bad: 2,
                n_duplicates: 3,
                columns: vec![None, Some(Columns { names: vec!["title".to_owned()], joined: true })],
                warnings: vec!["look".to_owned()],
            }),
            Outcome::Extracted(Extracted { poolings: vec![(Pooling::Cls, vec![layer])], notes }),
            Outcome::Compared(vec![(3, matrices)]),
            Outcome::Failed(Failure {
                failure_class: FailureClass::Reject,
                message: "no".to_owned(),
                damaged: Some(damaged),
                panicked: true,
            }),
            Outcome::HandedBack,
        ];
        for outcome in outcomes {
            assert_eq!(outcome_from_pb(outcome_to_pb(outcome.clone())), Ok(outcome));
        }
    }

    #[test]
    fn what_a_peer_may_not_send_is_named() {
        let check = |failed: work::Failed, field: &str| {
            let error = outcome_from_pb(work::report::Outcome::Failed(failed)).expect_err(field);
            assert_eq!(error.field, field);
        };
        check(work::Failed::default(), "report.failed.failure_class");
        check(work::Failed { failure_class: 99, ..work::Failed::default() }, "report.failed.failure_class");
        let key = work::Damaged { what: Some(work::damaged::What::TextsKey("zz".to_owned())) };
        let failed = work::Failed { failure_class: 1, damaged: Some(key), ..work::Failed::default() };
        check(failed, "report.failed.damaged.texts_key");
    }
}
