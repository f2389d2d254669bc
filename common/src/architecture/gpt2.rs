//! GPT-2. Radford et al. 2019: pre-norm, learned positions, weights stored as [in, out].

use serde_json::Value;

use super::fields::Fields;
use super::parts::{
    Activation, Attention, Block, Embedding, FeedForward, FusedOrder, Linear, Mask, Norm, Parameter,
    PositionRule, Positions, Projections, Sublayer,
};
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["wte.weight"];

/// The sizes of a model in the manner of GPT-2; the names are those of config.json.
pub(super) struct Gpt2 {
    pub vocab_size: u32,
    pub n_positions: u32,
    pub n_embd: u32,
    pub n_layer: u32,
    pub n_head: u32,
    pub n_inner: u32,
    pub activation_function: Activation,
    pub layer_norm_epsilon: f64,
}

impl Gpt2 {
    pub(super) fn read(fields: &Fields<'_>, activation: &'static str) -> Result<Self, ArchitectureError> {
        let name = |names: &[&'static str]| fields.spelling(names);
        let n_embd = fields.count_or(name(&["n_embd", "hidden_size"]), WIDTH_MAX, 768)?;
        let n_head = fields.count_or(name(&["n_head", "num_attention_heads"]), WIDTH_MAX, 12)?;
        fields.divides("n_head", n_head, "n_embd", n_embd)?;
        Ok(Self {
            vocab_size: fields.count_or("vocab_size", ROWS_MAX, 50257)?,
            n_positions: fields.count_or(
                name(&["n_positions", "max_position_embeddings"]),
                MAX_POSITIONS,
                1024,
            )?,
            n_embd,
            n_layer: fields.count_or(name(&["n_layer", "num_hidden_layers"]), BLOCKS_MAX, 12)?,
            n_head,
            n_inner: fields.count_or("n_inner", INNER_MAX, 4 * n_embd)?,
            activation_function: fields.activation_or("activation_function", activation)?,
            layer_norm_epsilon: fields.epsilon_or("layer_norm_epsilon", 1e-5)?,
        })
    }

    /// Tokens and learned positions, no blocks yet, a final norm.
    pub(super) fn architecture(&self, model_type: &'static str) -> Architecture {
        let table = Parameter::new("wpe.weight", &[self.n_positions, self.n_embd]);
        let embedding = Embedding {
            positions: Some(Positions { table, rule: PositionRule::Place { offset: 0 } }),
            ..Embedding::of_tokens(ANCHOR[0], self.vocab_size, self.n_embd)
        };
        let mut found = Architecture::new(model_type, self.n_embd, ANCHOR, embedding);
        found.naming.ignored = &[".attn.bias", ".attn.masked_bias"];
        found.position_limit = Some(self.n_positions);
        found.final_norm = Some(self.norm("ln_f"));
        found
    }

    pub(super) fn norm(&self, name: impl Into<String>) -> Norm {
        Norm::layer(name, self.n_embd, self.layer_norm_epsilon)
    }

    /// Block `h.{i}`, its maps stored as `stored` says.
    pub(super) fn block(&self, block: u32, attention: Attention, stored: fn(Linear) -> Linear) -> Block {
        let name = |part: &str| format!("h.{block}.{part}");
        let up = stored(Linear::new(name("mlp.c_fc"), self.n_embd, self.n_inner, true));
        let down = stored(Linear::new(name("mlp.c_proj"), self.n_inner, self.n_embd, true));
        Block::new(
            Sublayer::pre(self.norm(name("ln_1")), attention),
            Sublayer::pre(self.norm(name("ln_2")), FeedForward::plain(up, down, self.activation_function)),
        )
    }
}

pub(super) fn architecture(
    model_type: &'static str,
    fields: &Fields<'_>,
) -> Result<Architecture, ArchitectureError> {
    fields.only("add_cross_attention", &Value::from(false))?;
    let sizes = Gpt2::read(fields, "gelu_new")?;
    let scaled = fields.flag_or("scale_attn_weights", true)?;
    let by_layer = fields.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    let mut found = sizes.architecture(model_type);
    let width = sizes.n_embd;
    for block in 0..sizes.n_layer {
        let name = |part: &str| format!("h.{block}.{part}");
        let linear = Linear::new(name("attn.c_attn"), width, 3 * width, true).transposed();
        let projections = Projections::Fused { linear, order: FusedOrder::Concatenated };
        let out = Linear::new(name("attn.c_proj"), width, width, true).transposed();
        let mut attention = Attention::new(sizes.n_head, width / sizes.n_head, projections, out);
        attention.mask = Mask::CAUSAL;
        if !scaled {
            attention.scale = 1.0;
        }
        if by_layer {
            attention.scale /= f64::from(block + 1);
        }
        found.push(sizes.block(block, attention, Linear::transposed));
    }
    Ok(found)
}
