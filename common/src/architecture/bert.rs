//! BERT (Devlin et al. 2019) and those that kept its blocks: RoBERTa, XLM-RoBERTa, CamemBERT, Longformer, BigBird,
//! ERNIE, ELECTRA.

use serde_json::Value;

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{
    Activation, ConstantRow, Embedding, Linear, Mask, Parameter, Pooler, PositionRule, Positions,
    ProjectionPlace, Projections,
};
use super::{Architecture, ArchitectureError, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["embeddings.word_embeddings.weight"];
const BUFFERS: &[&str] = &[".position_ids", ".token_type_ids"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    bert(model_type, fields, &Encoder::BASE, PositionRule::Place { offset: 0 })
}

/// Positions are counted from the padding token's id; the table is as much longer.
pub(super) fn roberta(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Encoder { vocab_size: 50265, ..Encoder::BASE };
    let padding_idx = fields.index_or("pad_token_id", 1)?;
    bert(model_type, fields, &defaults, PositionRule::CountUnlessPadding { padding_idx })
}

/// With a row for the task where the config says so; a text of its own is of task 0.
pub(super) fn ernie(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let mut found = architecture(model_type, fields)?;
    if fields.flag_or("use_task_id", false)? {
        let rows = fields.count_or("task_type_vocab_size", ROWS_MAX, 3)?;
        let table = Parameter::new("embeddings.task_type_embeddings.weight", &[rows, found.hidden_size]);
        found.embedding.constants.push(ConstantRow { table, row: 0 });
    }
    Ok(found)
}

/// An embedding of a width of its own, and no pooler.
pub(super) fn electra(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults =
        Encoder { hidden_size: 256, num_attention_heads: 4, intermediate_size: 1024, ..Encoder::BASE };
    let sizes = checked(fields, &defaults)?;
    let width = fields.count_or("embedding_size", WIDTH_MAX, 128)?;
    let mut embedding = embedding(fields, &sizes, width, PositionRule::Place { offset: 0 })?;
    if width != sizes.hidden_size {
        let projection = Linear::new("embeddings_project", width, sizes.hidden_size, true);
        embedding.projection = Some((projection, ProjectionPlace::AfterNorm));
    }
    Ok(assembled(model_type, &sizes, embedding))
}

/// RoBERTa with a window around each token; without tokens of global attention, whose maps are left out.
pub(super) fn longformer(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    const FIELD: &str = "attention_window";
    let mut found = architecture(model_type, fields)?;
    let padding_idx = fields.index_or("pad_token_id", 1)?;
    counted_from_padding(&mut found, fields, padding_idx)?;
    found.naming.ignored = &[
        ".position_ids",
        ".query_global.weight",
        ".query_global.bias",
        ".key_global.weight",
        ".key_global.bias",
        ".value_global.weight",
        ".value_global.bias",
    ];
    let windows: Vec<f64> = match fields.get(FIELD) {
        Some(Value::Array(_)) => fields.numbers(FIELD)?,
        _ => vec![f64::from(fields.count_or(FIELD, MAX_POSITIONS, 512)?); found.blocks.len()],
    };
    let is_window =
        |window: &f64| *window >= 2.0 && *window <= f64::from(MAX_POSITIONS) && window % 2.0 == 0.0;
    if windows.len() != found.blocks.len() || !windows.iter().all(is_window) {
        return Err(fields.refused(FIELD, "an even number, or one for each of \"num_hidden_layers\""));
    }
    for (block, window) in found.blocks.iter_mut().zip(windows) {
        block.attention.map.mask = Mask::around(window as u32 / 2);
    }
    Ok(found)
}

/// Full attention up to the length from which on the Python library looks at random blocks of keys.
pub(super) fn big_bird(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Encoder {
        vocab_size: 50358,
        hidden_act: Activation::GeluTanh,
        max_position_embeddings: 4096,
        ..Encoder::BASE
    };
    let sizes = checked(fields, &defaults)?;
    let mut embedding = embedding(fields, &sizes, sizes.hidden_size, PositionRule::Place { offset: 0 })?;
    embedding.scale =
        fields.flag_or("rescale_embeddings", false)?.then(|| f64::from(sizes.hidden_size).sqrt());
    let mut found = assembled(model_type, &sizes, embedding);
    let bias = fields.flag_or("use_bias", true)?;
    for block in &mut found.blocks {
        if let Projections::Separate(linears) = &mut block.attention.map.projections {
            linears.iter_mut().for_each(|linear| linear.bias = bias);
        }
    }
    match fields.text_or("attention_type", "block_sparse")? {
        "original_full" => {}
        "block_sparse" => {
            let block_size = fields.count_or("block_size", 1 << 12, 64)?;
            let n_random = fields.count_or("num_random_blocks", 1 << 12, 3)?;
            let limit = (5 + 2 * n_random) * block_size;
            found.position_limit = Some(limit.min(sizes.max_position_embeddings));
        }
        _ => return Err(fields.refused("attention_type", "original_full, block_sparse")),
    }
    let dense = Linear::new("pooler", sizes.hidden_size, sizes.hidden_size, true);
    found.pooler = Some(Pooler { dense, activation: Activation::Tanh });
    Ok(found)
}

fn bert(
    model_type: &'static str,
    fields: &Fields<'_>,
    defaults: &Encoder,
    rule: PositionRule,
) -> Result<Architecture, ArchitectureError> {
    let sizes = checked(fields, defaults)?;
    let embedding = embedding(fields, &sizes, sizes.hidden_size, rule)?;
    let mut found = assembled(model_type, &sizes, embedding);
    if let PositionRule::CountUnlessPadding { padding_idx } = rule {
        counted_from_padding(&mut found, fields, padding_idx)?;
    }
    let dense = Linear::new("pooler.dense", sizes.hidden_size, sizes.hidden_size, true);
    found.pooler = Some(Pooler { dense, activation: Activation::Tanh });
    Ok(found)
}

/// Positions begin behind the row of the padding token.
fn counted_from_padding(
    found: &mut Architecture,
    fields: &Fields<'_>,
    padding_idx: u32,
) -> Result<(), ArchitectureError> {
    const FIELD: &str = "max_position_embeddings";
    let first = padding_idx.saturating_add(1);
    let Some(positions) = &mut found.embedding.positions else { return Ok(()) };
    positions.rule = PositionRule::CountUnlessPadding { padding_idx };
    let limit = positions.table.shape[0].checked_sub(first).filter(|limit| *limit > 0);
    found.position_limit =
        Some(limit.ok_or_else(|| fields.refused(FIELD, format!("more than the {first} first rows")))?);
    Ok(())
}

fn checked(fields: &Fields<'_>, defaults: &Encoder) -> Result<Encoder, ArchitectureError> {
    fields.only("position_embedding_type", &Value::from("absolute"))?;
    fields.only("is_decoder", &Value::from(false))?;
    fields.only("add_cross_attention", &Value::from(false))?;
    Encoder::read(fields, defaults)
}

/// Tokens, positions and type 0, normed; also the embedding of ALBERT and RoFormer.
pub(super) fn embedding(
    fields: &Fields<'_>,
    sizes: &Encoder,
    width: u32,
    rule: PositionRule,
) -> Result<Embedding, ArchitectureError> {
    let types = fields.count_or("type_vocab_size", ROWS_MAX, 2)?;
    let table = |name: &str, rows: u32| Parameter::new(format!("embeddings.{name}.weight"), &[rows, width]);
    let positions = table("position_embeddings", sizes.max_position_embeddings);
    let norm = super::parts::Norm::layer("embeddings.LayerNorm", width, sizes.layer_norm_eps);
    Ok(Embedding {
        positions: Some(Positions { table: positions, rule }),
        constants: vec![ConstantRow { table: table("token_type_embeddings", types), row: 0 }],
        norm: Some(norm),
        ..Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width)
    })
}

/// The embedding followed by blocks `encoder.layer.{i}`.
pub(super) fn assembled(model_type: &'static str, sizes: &Encoder, embedding: Embedding) -> Architecture {
    let mut found = Architecture::new(model_type, sizes.hidden_size, ANCHOR, embedding);
    found.naming.ignored = BUFFERS;
    found.position_limit = Some(sizes.max_position_embeddings);
    for block in 0..sizes.num_hidden_layers {
        found.push(sizes.block(&format!("encoder.layer.{block}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    const SMALL: &str = r#"{"model_type": "bert", "hidden_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 80, "vocab_size": 703, "max_position_embeddings": 67}"#;

    #[test]
    fn facts_follow_from_the_config() {
        let found = read(SMALL.as_bytes()).expect("supported");
        assert_eq!((found.n_layers(), found.hidden_size, found.position_limit), (4, 48, Some(67)));
        assert_eq!(found.flop_linear(), 3 * 2 * (4 * 48 * 48 + 2 * 48 * 80));
        assert_eq!(found.flop_per_length(), 3 * 4 * 48);
        assert_eq!(found.layout().tensors.len(), 5 + 3 * 16);
    }

    #[test]
    fn values_without_an_implementation_are_refused_by_name() {
        let check = |field: &str, value: &str, expected: &str| {
            let mut config: Value = serde_json::from_str(SMALL).expect("json");
            config[field] = serde_json::from_str(value).expect("json");
            let error = read(config.to_string().as_bytes()).expect_err(value).to_string();
            assert!(
                error.contains(&format!("\"{field}\" is {value}")) && error.contains(expected),
                "{error}"
            );
        };
        check("hidden_act", r#""gelu_10""#, "gelu_new");
        check("position_embedding_type", r#""relative_key""#, "absolute");
        check("is_decoder", "true", "false");
        check("num_attention_heads", "5", "divisor of \"hidden_size\" 48");
        check("num_hidden_layers", "0", "from 1 to 1024");
        check("num_hidden_layers", "4000000000", "from 1 to 1024");
        check("hidden_size", "-3", "whole number");
        check("layer_norm_eps", "\"x\"", "number");
    }
}
