//! GPT-Neo. Black et al. 2021: every other block sees a window, scores are not scaled.

use super::fields::Fields;
use super::parts::{
    Attention, Block, Embedding, FeedForward, Linear, Mask, Norm, Parameter, PositionRule, Positions,
    Projections, Sublayer,
};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["wte.weight"];

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    let name = |names: &[&'static str]| fields.spelling(names);
    let width = fields.count_or("hidden_size", WIDTH_MAX, 2048)?;
    let n_heads = fields.count_or(name(&["num_heads", "num_attention_heads"]), WIDTH_MAX, 16)?;
    fields.divides("num_heads", n_heads, "hidden_size", width)?;
    let n_blocks = fields.count_or(name(&["num_layers", "num_hidden_layers"]), BLOCKS_MAX, 24)?;
    let inner = fields.count_or("intermediate_size", INNER_MAX, 4 * width)?;
    let n_positions = fields.count_or("max_position_embeddings", MAX_POSITIONS, 2048)?;
    let window = fields.count_or("window_size", MAX_POSITIONS, 256)?;
    let eps = fields.epsilon_or("layer_norm_epsilon", 1e-5)?;
    let activation = fields.activation_or("activation_function", "gelu_new")?;
    let masks = masks(fields, n_blocks, window)?;
    let embedding = Embedding {
        positions: Some(Positions {
            table: Parameter::new("wpe.weight", &[n_positions, width]),
            rule: PositionRule::Place { offset: 0 },
        }),
        ..Embedding::of_tokens(ANCHOR[0], fields.count_or("vocab_size", ROWS_MAX, 50257)?, width)
    };
    let mut found = Architecture::new(model_type, width, ANCHOR, embedding);
    found.naming.ignored = &[".attention.bias", ".attention.masked_bias"];
    found.position_limit = Some(n_positions);
    found.final_norm = Some(Norm::layer("ln_f", width, eps));
    for (block, mask) in masks.into_iter().enumerate() {
        let name = |part: &str| format!("h.{block}.{part}");
        let projections = ["q_proj", "k_proj", "v_proj"]
            .map(|part| Linear::new(name(&format!("attn.attention.{part}")), width, width, false));
        let out = Linear::new(name("attn.attention.out_proj"), width, width, true);
        let attention = Attention {
            scale: 1.0,
            mask,
            ..Attention::new(n_heads, width / n_heads, Projections::Separate(projections), out)
        };
        let up = Linear::new(name("mlp.c_fc"), width, inner, true);
        let down = Linear::new(name("mlp.c_proj"), inner, width, true);
        found.push(Block::new(
            Sublayer::pre(Norm::layer(name("ln_1"), width, eps), attention),
            Sublayer::pre(Norm::layer(name("ln_2"), width, eps), FeedForward::plain(up, down, activation)),
        ));
    }
    Ok(found)
}

/// The mask of each block: from `attention_types`, [[["global", "local"], 12]], or the older `attention_layers`.
fn masks(fields: &Fields<'_>, n_blocks: u32, window: u32) -> Result<Vec<Mask>, ArchitectureError> {
    let types = fields.spelling(&["attention_types", "attention_layers"]);
    let names: Vec<String> = match fields.get(types) {
        None => (0..n_blocks).map(|block| ["global", "local"][(block % 2) as usize].to_owned()).collect(),
        Some(value) => expanded(value, n_blocks as usize)
            .ok_or_else(|| fields.refused(types, "lists of \"global\" and \"local\" with how often"))?,
    };
    let mask = |name: &String| match name.as_str() {
        "global" => Ok(Mask::CAUSAL),
        "local" => Ok(Mask::sliding(window)),
        _ => Err(fields.refused(types, "\"global\" and \"local\"")),
    };
    let masks: Vec<Mask> = names.iter().map(mask).collect::<Result<_, _>>()?;
    if masks.len() != n_blocks as usize {
        return Err(fields.refused(types, format!("as many as \"num_layers\" {n_blocks}")));
    }
    Ok(masks)
}

fn expanded(value: &serde_json::Value, most: usize) -> Option<Vec<String>> {
    let list = value.as_array()?;
    let names = |list: &[serde_json::Value]| -> Option<Vec<String>> {
        list.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    if let Some(plain) = names(list) {
        return Some(plain);
    }
    let mut all = Vec::new();
    for entry in list {
        let [kinds, times] = entry.as_array()?.as_slice() else { return None };
        let kinds = names(kinds.as_array()?)?;
        // One more than fits is enough to be told that they are too many.
        for _ in 0..times.as_u64()?.min(most as u64 + 1) {
            all.extend(kinds.iter().cloned());
        }
        if all.len() > most {
            break;
        }
    }
    Some(all)
}
