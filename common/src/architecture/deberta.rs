//! DeBERTa (He et al. 2021) and its versions 2 and 3 (He et al. 2023): attention that compares contents with
//! relative positions.

use serde_json::Value;

use super::encoder::Encoder;
use super::fields::Fields;
use super::parts::{
    Attention, ConstantRow, Convolution, Disentangled, Embedding, FusedOrder, Linear, Norm, Parameter,
    PositionMap, PositionRule, Positions, ProjectionPlace, Projections, Scores,
};
use super::{Architecture, ArchitectureError, MAX_POSITIONS, WIDTH_MAX, bert};

const ANCHOR: &[&str] = &["embeddings.word_embeddings.weight"];

const BASE: Encoder = Encoder { layer_norm_eps: 1e-7, ..Encoder::BASE };

/// What a config says of relative attention.
struct Relative {
    to_position: bool,
    from_position: bool,
    /// Kinds of scores, contents with contents included; the scale counts them.
    n_kinds: u32,
    max_positions: u32,
}

pub(super) fn version_1(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("talking_head", &Value::from(false))?;
    let sizes = Encoder::read(fields, &Encoder { vocab_size: 50265, ..BASE })?;
    let relative = relative(fields, &sizes)?;
    let mut found = embedded(model_type, fields, &sizes)?;
    found.position_limit = Some(sizes.max_position_embeddings);
    let width = sizes.hidden_size;
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layer.{block}.{part}");
        let own = |part: &str, bias| {
            PositionMap::Own(Linear::new(name(&format!("attention.self.{part}")), width, width, bias))
        };
        let scores = Disentangled {
            table: Parameter::new("encoder.rel_embeddings.weight", &[2 * relative.max_positions, width]),
            table_norm: None,
            span: relative.max_positions,
            buckets: None,
            position_key: relative.to_position.then(|| own("pos_proj", false)),
            position_query: relative.from_position.then(|| own("pos_q_proj", true)),
            extra_bias: Some(
                ["q_bias", "v_bias"]
                    .map(|part| Parameter::new(name(&format!("attention.self.{part}")), &[width])),
            ),
        };
        let linear = Linear::new(name("attention.self.in_proj"), width, 3 * width, false);
        let projections = Projections::Fused { linear, order: FusedOrder::PerKeyHead };
        let mut part = sizes.block(&format!("encoder.layer.{block}"));
        part.attention.map = Attention {
            scores: Scores::Disentangled(Box::new(scores)),
            scale: scale(&sizes, &relative),
            ..Attention::new(sizes.num_attention_heads, sizes.head_dim(), projections, part.attention.map.out)
        };
        found.push(part);
    }
    Ok(found)
}

pub(super) fn version_2(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let defaults = Encoder {
        vocab_size: 128_100,
        hidden_size: 1536,
        num_hidden_layers: 24,
        num_attention_heads: 24,
        intermediate_size: 6144,
        ..BASE
    };
    let sizes = Encoder::read(fields, &defaults)?;
    fields.only("attention_head_size", &Value::from(sizes.head_dim()))?;
    let relative = relative(fields, &sizes)?;
    let mut found = embedded(model_type, fields, &sizes)?;
    let width = sizes.hidden_size;
    // -1 stands for none.
    let n_buckets = match fields.number_or("position_buckets", -1.0)? {
        count if count > 0.0 => Some(fields.count("position_buckets", MAX_POSITIONS)?),
        _ => None,
    };
    if n_buckets.is_some_and(|count| count < 4 || count / 2 >= relative.max_positions - 1) {
        return Err(fields.refused("position_buckets", "from 4 to less than twice the largest distance"));
    }
    let span = n_buckets.unwrap_or(relative.max_positions);
    let norms = fields.text_or("norm_rel_ebd", "none")?.to_lowercase();
    let shared = fields.flag_or("share_att_key", false)?;
    let table_norm = match norms.split('|').map(str::trim).collect::<Vec<_>>()[..] {
        ["none"] => None,
        ["layer_norm"] => Some(Norm::layer("encoder.LayerNorm", width, sizes.layer_norm_eps)),
        _ => return Err(fields.refused("norm_rel_ebd", "none, layer_norm")),
    };
    for block in 0..sizes.num_hidden_layers {
        let name = |part: &str| format!("encoder.layer.{block}.attention.self.{part}");
        let map = |part: &str| {
            if shared {
                PositionMap::Shared
            } else {
                PositionMap::Own(Linear::new(name(part), width, width, true))
            }
        };
        let scores = Disentangled {
            table: Parameter::new("encoder.rel_embeddings.weight", &[2 * span, width]),
            table_norm: table_norm.clone(),
            span,
            buckets: n_buckets.map(|count| (count, relative.max_positions)),
            position_key: relative.to_position.then(|| map("pos_key_proj")),
            position_query: relative.from_position.then(|| map("pos_query_proj")),
            extra_bias: None,
        };
        let projections =
            ["query_proj", "key_proj", "value_proj"].map(|part| Linear::new(name(part), width, width, true));
        let mut part = sizes.block(&format!("encoder.layer.{block}"));
        part.attention.map = Attention {
            scores: Scores::Disentangled(Box::new(scores)),
            scale: scale(&sizes, &relative),
            projections: Projections::Separate(projections),
            ..part.attention.map
        };
        if block == 0 {
            part.convolution = convolution(fields, &sizes)?;
        }
        found.push(part);
    }
    Ok(found)
}

fn scale(sizes: &Encoder, relative: &Relative) -> f64 {
    1.0 / f64::from(sizes.head_dim() * relative.n_kinds).sqrt()
}

fn relative(fields: &Fields<'_>, sizes: &Encoder) -> Result<Relative, ArchitectureError> {
    const FIELD: &str = "pos_att_type";
    let with_positions = fields.flag_or("relative_attention", false)?;
    let kinds: Vec<&str> = match fields.get(FIELD) {
        None => Vec::new(),
        Some(Value::String(kinds)) => kinds.split('|').map(str::trim).collect(),
        Some(_) => fields.texts_if_any(FIELD)?.unwrap_or_default(),
    };
    let (to_position, from_position) = (kinds.contains(&"c2p"), kinds.contains(&"p2c"));
    let n_known = u32::from(to_position) + u32::from(from_position);
    // Without positions there is one kind of score, and the scale of several would be meant for nothing.
    if n_known as usize != kinds.len() || !with_positions {
        return Err(fields.refused(FIELD, "\"c2p\" and \"p2c\", each once, with \"relative_attention\" true"));
    }
    // -1 stands for as many as positions.
    let max_positions = match fields.number_or("max_relative_positions", -1.0)? {
        count if count >= 1.0 => fields.count("max_relative_positions", MAX_POSITIONS)?,
        _ => sizes.max_position_embeddings,
    };
    if max_positions < 2 {
        return Err(fields.refused("max_relative_positions", "2 or more, or -1"));
    }
    Ok(Relative { to_position, from_position, n_kinds: 1 + n_known, max_positions })
}

fn embedded(
    model_type: &'static str,
    fields: &Fields<'_>,
    sizes: &Encoder,
) -> Result<Architecture, ArchitectureError> {
    let width = fields.count_or("embedding_size", WIDTH_MAX, sizes.hidden_size)?;
    let table = |name: &str, rows: u32| Parameter::new(format!("embeddings.{name}.weight"), &[rows, width]);
    let mut embedding = Embedding {
        norm: Some(sizes.norm("embeddings.LayerNorm")),
        ..Embedding::of_tokens(ANCHOR[0], sizes.vocab_size, width)
    };
    if fields.flag_or("position_biased_input", true)? {
        let table = table("position_embeddings", sizes.max_position_embeddings);
        embedding.positions = Some(Positions { table, rule: PositionRule::Place { offset: 0 } });
    }
    let types = fields.index_or("type_vocab_size", 0)?;
    if types > 0 {
        embedding.constants.push(ConstantRow { table: table("token_type_embeddings", types), row: 0 });
    }
    if width != sizes.hidden_size {
        let projection = Linear::new("embeddings.embed_proj", width, sizes.hidden_size, false);
        embedding.projection = Some((projection, ProjectionPlace::BeforeNorm));
    }
    let none = Encoder { num_hidden_layers: 0, ..*sizes };
    let with_positions = embedding.positions.is_some();
    let mut found = bert::assembled(model_type, &none, embedding);
    if !with_positions {
        found.position_limit = None;
    }
    // Files keep a table that the config switches off.
    found.naming.ignored = if with_positions {
        &[".position_ids"]
    } else {
        &[".position_ids", "embeddings.position_embeddings.weight"]
    };
    Ok(found)
}

fn convolution(fields: &Fields<'_>, sizes: &Encoder) -> Result<Option<Convolution>, ArchitectureError> {
    let kernel = fields.index_or("conv_kernel_size", 0)?;
    if kernel == 0 {
        return Ok(None);
    }
    if kernel > 255 || kernel.is_multiple_of(2) {
        return Err(fields.refused("conv_kernel_size", "an odd number up to 255, or 0"));
    }
    let width = sizes.hidden_size;
    let groups = fields.count_or("conv_groups", width, 1)?;
    fields.divides("conv_groups", groups, "hidden_size", width)?;
    Ok(Some(Convolution {
        weight: Parameter::new("encoder.conv.conv.weight", &[width, width / groups, kernel]),
        bias: Parameter::new("encoder.conv.conv.bias", &[width]),
        groups,
        activation: fields.activation_or("conv_act", "tanh")?,
        norm: sizes.norm("encoder.conv.LayerNorm"),
    }))
}
