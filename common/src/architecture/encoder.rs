//! What encoders in the manner of BERT have in common: sizes, and blocks with a norm after each half.

use super::fields::Fields;
use super::parts::{Activation, Attention, Block, FeedForward, Linear, Norm, Projections, Sublayer};
use super::{ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

/// The sizes of an encoder; the names are those of config.json.
pub(super) struct Encoder {
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    pub intermediate_size: u32,
    pub hidden_act: Activation,
    pub max_position_embeddings: u32,
    pub layer_norm_eps: f64,
}

impl Encoder {
    /// Defaults of bert-base, which most classes have taken over.
    pub(super) const BASE: Self = Self {
        vocab_size: 30522,
        hidden_size: 768,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        intermediate_size: 3072,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 512,
        layer_norm_eps: 1e-12,
    };

    /// Reads the usual fields; `defaults` are those of the family's class.
    pub(super) fn read(fields: &Fields<'_>, defaults: &Self) -> Result<Self, ArchitectureError> {
        let hidden_act = if fields.has("hidden_act") {
            fields.activation_or("hidden_act", "gelu")?
        } else {
            defaults.hidden_act
        };
        let sizes = Self {
            vocab_size: fields.count_or("vocab_size", ROWS_MAX, defaults.vocab_size)?,
            hidden_size: fields.count_or("hidden_size", WIDTH_MAX, defaults.hidden_size)?,
            num_hidden_layers: fields.count_or(
                "num_hidden_layers",
                BLOCKS_MAX,
                defaults.num_hidden_layers,
            )?,
            num_attention_heads: fields.count_or(
                "num_attention_heads",
                WIDTH_MAX,
                defaults.num_attention_heads,
            )?,
            intermediate_size: fields.count_or("intermediate_size", INNER_MAX, defaults.intermediate_size)?,
            hidden_act,
            max_position_embeddings: fields.count_or(
                "max_position_embeddings",
                MAX_POSITIONS,
                defaults.max_position_embeddings,
            )?,
            layer_norm_eps: fields.epsilon_or("layer_norm_eps", defaults.layer_norm_eps)?,
        };
        fields.divides("num_attention_heads", sizes.num_attention_heads, "hidden_size", sizes.hidden_size)?;
        Ok(sizes)
    }

    pub(super) fn head_dim(&self) -> u32 {
        self.hidden_size / self.num_attention_heads
    }

    /// Attention from maps named `{names}`: query, key, value and output.
    pub(super) fn attention(&self, names: [String; 4]) -> Attention {
        let linear = |name| Linear::new(name, self.hidden_size, self.hidden_size, true);
        let [query, key, value, out] = names.map(linear);
        let projections = Projections::Separate([query, key, value]);
        Attention::new(self.num_attention_heads, self.head_dim(), projections, out)
    }

    /// Feed-forward from maps of these names.
    pub(super) fn feed_forward(&self, up: String, down: String) -> FeedForward {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let (up, down) = (Linear::new(up, width, inner, true), Linear::new(down, inner, width, true));
        FeedForward::plain(up, down, self.hidden_act)
    }

    /// A layer norm of a hidden state.
    pub(super) fn norm(&self, name: impl Into<String>) -> Norm {
        Norm::layer(name, self.hidden_size, self.layer_norm_eps)
    }

    /// Block `{prefix}.{…}` with the names of BERT.
    pub(super) fn block(&self, prefix: &str) -> Block {
        let name = |part: &str| format!("{prefix}.{part}");
        let attention = self.attention(
            ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
                .map(name),
        );
        let feed_forward = self.feed_forward(name("intermediate.dense"), name("output.dense"));
        Block::new(
            Sublayer::post(attention, self.norm(name("attention.output.LayerNorm"))),
            Sublayer::post(feed_forward, self.norm(name("output.LayerNorm"))),
        )
    }
}
