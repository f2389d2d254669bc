//! What decoders in the manner of Llama have in common: sizes, rotary positions, names `layers.{i}.…`.

use super::fields::Fields;
use super::parts::{
    Activation, Attention, Embedding, FeedForward, HeadNorm, HeadNormSpan, Linear, Mask, Norm, NormKind,
    Parameter, Projections,
};
use super::rotary::RotaryDefaults;
use super::{Architecture, ArchitectureError, BLOCKS_MAX, INNER_MAX, MAX_POSITIONS, ROWS_MAX, WIDTH_MAX};

const ANCHOR: &[&str] = &["embed_tokens.weight"];
/// Heads and widths of heads; their product stays within 32 bits.
const HEADS_MAX: u32 = 1 << 12;

/// The sizes of a decoder; the names are those of config.json.
pub(super) struct Decoder {
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    pub num_key_value_heads: u32,
    pub head_dim: u32,
    pub max_position_embeddings: u32,
}

/// What a family's class takes where the file says nothing.
pub(super) struct Defaults {
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    /// As many as attention heads if none.
    pub num_key_value_heads: Option<u32>,
    /// The width of a hidden state over the heads if none.
    pub head_dim: Option<u32>,
    pub max_position_embeddings: u32,
}

impl Decoder {
    pub(super) fn read(fields: &Fields<'_>, defaults: &Defaults) -> Result<Self, ArchitectureError> {
        let count = |field: &str, max, default| fields.count_or(field, max, default);
        let hidden_size = count("hidden_size", WIDTH_MAX, defaults.hidden_size)?;
        let n_heads = count("num_attention_heads", HEADS_MAX, defaults.num_attention_heads)?;
        // Null means as many as heads, also where the class has another default for an absent field.
        let n_kv_heads = match fields.count_if_any("num_key_value_heads", HEADS_MAX)? {
            Some(n_kv_heads) => n_kv_heads,
            None => defaults.num_key_value_heads.unwrap_or(n_heads),
        };
        let head_dim = match fields.count_if_any("head_dim", HEADS_MAX)?.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None => {
                fields.divides("num_attention_heads", n_heads, "hidden_size", hidden_size)?;
                hidden_size / n_heads
            }
        };
        fields.divides("num_key_value_heads", n_kv_heads, "num_attention_heads", n_heads)?;
        Ok(Self {
            vocab_size: count("vocab_size", ROWS_MAX, defaults.vocab_size)?,
            hidden_size,
            intermediate_size: count("intermediate_size", INNER_MAX, defaults.intermediate_size)?,
            num_hidden_layers: count("num_hidden_layers", BLOCKS_MAX, defaults.num_hidden_layers)?,
            num_attention_heads: n_heads,
            num_key_value_heads: n_kv_heads,
            head_dim,
            max_position_embeddings: count(
                "max_position_embeddings",
                MAX_POSITIONS,
                defaults.max_position_embeddings,
            )?,
        })
    }

    /// Token vectors and no blocks yet.
    pub(super) fn architecture(&self, model_type: &'static str) -> Architecture {
        let embedding = Embedding::of_tokens(ANCHOR[0], self.vocab_size, self.hidden_size);
        let mut found = Architecture::new(model_type, self.hidden_size, ANCHOR, embedding);
        found.naming.ignored = &[".rotary_emb.inv_freq"];
        found.position_limit = Some(self.max_position_embeddings);
        found
    }

    pub(super) fn rotary(&self) -> RotaryDefaults {
        RotaryDefaults::new(self.head_dim, self.max_position_embeddings)
    }

    /// Causal attention `layers.{block}.self_attn.{q,k,v,o}_proj`; biases of the first three and of the last.
    pub(super) fn attention(&self, block: u32, bias_in: bool, bias_out: bool) -> Attention {
        self.attention_named(block, "o_proj", bias_in, bias_out)
    }

    /// As [`Self::attention`], with another name for the map of the heads' outputs.
    pub(super) fn attention_named(&self, block: u32, out: &str, bias_in: bool, bias_out: bool) -> Attention {
        let linear = |part: &str, n_heads: u32| {
            let name = format!("layers.{block}.self_attn.{part}");
            Linear::new(name, self.hidden_size, n_heads * self.head_dim, bias_in)
        };
        let projections = Projections::Separate([
            linear("q_proj", self.num_attention_heads),
            linear("k_proj", self.num_key_value_heads),
            linear("v_proj", self.num_key_value_heads),
        ]);
        Attention {
            n_kv_heads: self.num_key_value_heads,
            mask: Mask::CAUSAL,
            ..Attention::new(
                self.num_attention_heads,
                self.head_dim,
                projections,
                self.out(block, out, bias_out),
            )
        }
    }

    /// The map of the heads' outputs.
    pub(super) fn out(&self, block: u32, part: &str, bias: bool) -> Linear {
        let width = self.num_attention_heads * self.head_dim;
        Linear::new(format!("layers.{block}.self_attn.{part}"), width, self.hidden_size, bias)
    }

    /// Norms of each head's queries and keys with one weight vector each, `self_attn.{q,k}_norm`.
    pub(super) fn head_norm(&self, block: u32, eps: f64) -> HeadNorm {
        let weight = |part: &str| {
            vec![Parameter::new(format!("layers.{block}.self_attn.{part}.weight"), &[self.head_dim])]
        };
        HeadNorm {
            kind: NormKind::Rms,
            eps,
            plus_one: false,
            span: HeadNormSpan::Head,
            query: weight("q_norm"),
            key: weight("k_norm"),
        }
    }

    /// `layers.{block}.mlp.{gate,up,down}_proj`.
    pub(super) fn gated(&self, block: u32, activation: Activation, bias: bool) -> FeedForward {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let linear = |part: &str, width_in, width_out| {
            Linear::new(format!("layers.{block}.mlp.{part}"), width_in, width_out, bias)
        };
        FeedForward::gated(
            linear("gate_proj", width, inner),
            linear("up_proj", width, inner),
            linear("down_proj", inner, width),
            activation,
        )
    }

    /// Two maps `layers.{block}.mlp.{up}` and `{down}`.
    pub(super) fn plain(
        &self,
        block: u32,
        names: [&str; 2],
        activation: Activation,
        bias: bool,
    ) -> FeedForward {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let name = |part: &str| format!("layers.{block}.mlp.{part}");
        let up = Linear::new(name(names[0]), width, inner, bias);
        FeedForward::plain(up, Linear::new(name(names[1]), inner, width, bias), activation)
    }

    /// The root-mean-square norm `layers.{block}.{part}`.
    pub(super) fn rms(&self, block: u32, part: &str, eps: f64) -> Norm {
        Norm::rms(format!("layers.{block}.{part}"), self.hidden_size, eps)
    }

    /// The layer norm `layers.{block}.{part}`.
    pub(super) fn layer_norm(&self, block: u32, part: &str, eps: f64) -> Norm {
        Norm::layer(format!("layers.{block}.{part}"), self.hidden_size, eps)
    }
}

/// The mask of each block from `layer_types`, or from `default` where the file has none.
pub(super) fn masks(
    fields: &Fields<'_>,
    n_blocks: u32,
    sliding: Mask,
    full: Mask,
    default: impl Fn(u32) -> bool,
) -> Result<Vec<(bool, Mask)>, ArchitectureError> {
    const FIELD: &str = "layer_types";
    let is_sliding: Vec<bool> = match fields.texts_if_any(FIELD)? {
        None => (0..n_blocks).map(default).collect(),
        Some(types) => {
            let is_sliding = |name: &&str| match *name {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                _ => Err(fields.refused(FIELD, "\"sliding_attention\" and \"full_attention\"")),
            };
            types.iter().map(is_sliding).collect::<Result<_, _>>()?
        }
    };
    if is_sliding.len() != n_blocks as usize {
        return Err(fields.refused(FIELD, format!("as many as \"num_hidden_layers\" {n_blocks}")));
    }
    Ok(is_sliding.into_iter().map(|is| (is, if is { sliding } else { full })).collect())
}
