//! The parts of a transformer as data: which maps there are, how wide, by which names they are stored.
//!
//! A family's file makes an [`Architecture`](super::Architecture) of these from its config; the worker builds
//! tensors from the same description, and the tensors that a checkpoint must hold follow from it. So what two
//! families share is a part, and what differs is the values in it.

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The name in the family's own words.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u32>,
}

impl Parameter {
    pub(super) fn new(name: impl Into<String>, shape: &[u32]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }

    /// Whether a stored tensor has the shape.
    pub(super) fn has_shape(&self, stored: &[usize]) -> bool {
        self.shape.len() == stored.len() && self.shape.iter().zip(stored).all(|(a, b)| *a as usize == *b)
    }
}

/// An affine map, x W' + b.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Stored as `{name}.weight` and `{name}.bias`, or as `{name}` where it is stored by heads.
    pub name: String,
    /// Width of what it takes.
    pub width_in: u32,
    /// Width of what it gives.
    pub width_out: u32,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the weight is stored as [in, out] instead of [out, in].
    pub transposed: bool,
    /// Where the second of these sides is stored as two, the number of heads and the width of one: the number.
    pub heads: Option<u32>,
}

impl Linear {
    pub(super) fn new(name: impl Into<String>, width_in: u32, width_out: u32, bias: bool) -> Self {
        Self { name: name.into(), width_in, width_out, bias, transposed: false, heads: None }
    }

    /// Stored as the first GPT models did, [in, out].
    pub(super) fn transposed(mut self) -> Self {
        self.transposed = true;
        self
    }

    /// Stored as a bare tensor, its second side split into heads.
    pub(super) fn by_heads(mut self, n_heads: u32) -> Self {
        self.heads = Some(n_heads);
        self
    }

    /// The name of the weight.
    pub fn weight_name(&self) -> String {
        match self.heads {
            Some(_) => self.name.clone(),
            None => format!("{}.weight", self.name),
        }
    }

    /// The name of the bias.
    pub fn bias_name(&self) -> String {
        format!("{}.bias", self.name)
    }
}

/// What a norm subtracts and divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and standard deviation. Ba et al. 2016.
    Layer,
    /// The root of the mean square. Zhang and Sennrich 2019.
    Rms,
}

/// How a norm scales what it has normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormWeight {
    /// Not at all.
    None,
    /// By the stored weight.
    Stored,
    /// By one more than the stored weight.
    StoredPlusOne,
}

/// A norm of the last dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// What it subtracts and divides by.
    pub kind: NormKind,
    /// Stored as `{name}.weight` and `{name}.bias`.
    pub name: String,
    /// The width that it normalises.
    pub width: u32,
    /// Added to the variance or mean square.
    pub eps: f64,
    /// How it scales.
    pub weight: NormWeight,
    /// Whether it shifts.
    pub bias: bool,
}

impl Norm {
    /// A layer norm with weight and bias.
    pub(super) fn layer(name: impl Into<String>, width: u32, eps: f64) -> Self {
        let (kind, weight) = (NormKind::Layer, NormWeight::Stored);
        Self { kind, name: name.into(), width, eps, weight, bias: true }
    }

    /// A root-mean-square norm with a weight.
    pub(super) fn rms(name: impl Into<String>, width: u32, eps: f64) -> Self {
        let (kind, weight) = (NormKind::Rms, NormWeight::Stored);
        Self { kind, name: name.into(), width, eps, weight, bias: false }
    }

    pub(super) fn without_bias(mut self) -> Self {
        self.bias = false;
        self
    }

    pub(super) fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    pub(super) fn plus_one(mut self) -> Self {
        self.weight = NormWeight::StoredPlusOne;
        self
    }

    pub(super) fn without_weight(mut self) -> Self {
        (self.weight, self.bias) = (NormWeight::None, false);
        self
    }
}

/// The non-linearity inside a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), with the error function.
    Gelu,
    /// The approximation of gelu by a hyperbolic tangent.
    GeluTanh,
    /// x sigmoid(1.702 x).
    GeluSigmoid,
    /// max(x, 0).
    Relu,
    /// max(x, 0)².
    ReluSquared,
    /// x sigmoid(x).
    Silu,
    /// tanh(x).
    Tanh,
}

impl Activation {
    /// Names as they occur in config.json, in the order in which they are listed.
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("quick_gelu", Self::GeluSigmoid),
        ("relu", Self::Relu),
        ("relu2", Self::ReluSquared),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("tanh", Self::Tanh),
    ];
}

/// Tokens → the input of block 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The token embedding, [vocabulary, width].
    pub tokens: Parameter,
    /// What token vectors are multiplied by.
    pub scale: Option<f64>,
    /// Learned absolute positions.
    pub positions: Option<Positions>,
    /// Rows of further tables that are added everywhere, type 0 for instance.
    pub constants: Vec<ConstantRow>,
    /// A norm of the sum.
    pub norm: Option<Norm>,
    /// A map to the width of the blocks.
    pub projection: Option<(Linear, ProjectionPlace)>,
}

impl Embedding {
    /// Token vectors alone.
    pub(super) fn of_tokens(name: impl Into<String>, vocab_size: u32, width: u32) -> Self {
        Self {
            tokens: Parameter::new(name, &[vocab_size, width]),
            scale: None,
            positions: None,
            constants: Vec::new(),
            norm: None,
            projection: None,
        }
    }
}

/// Where an embedding is mapped to the width of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectionPlace {
    /// Token vectors, before positions are added.
    Tokens,
    /// The sum, before its norm.
    BeforeNorm,
    /// After the norm.
    AfterNorm,
}

/// A learned position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Positions {
    /// The table, [rows, width].
    pub table: Parameter,
    /// Which row a token takes.
    pub rule: PositionRule,
}

/// Which row of a position embedding a token takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionRule {
    /// Its place in its text, plus this.
    Place {
        /// Rows that come before the first place.
        offset: u32,
    },
    /// Tokens other than the padding token are counted from `padding_idx + 1`; a padding token that stands in a
    /// text takes row `padding_idx`.
    CountUnlessPadding {
        /// The id of the padding token.
        padding_idx: u32,
    },
}

/// A row that is added at every position.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantRow {
    /// The table.
    pub table: Parameter,
    /// Which of its rows.
    pub row: u32,
}

/// One block: attention and feed-forward, each added to what it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Attention.
    pub attention: Sublayer<Attention>,
    /// Feed-forward.
    pub feed_forward: Sublayer<FeedForward>,
    /// Whether both take the block's input: x + attention(norm(x)) + feed_forward(norm(x)). A feed-forward
    /// without a norm of its own then takes the norm of attention.
    pub parallel: bool,
    /// What a half's output is multiplied by before it is added.
    pub residual_scale: f64,
    /// A convolution over neighbouring tokens beside this block.
    pub convolution: Option<Convolution>,
}

impl Block {
    /// Attention, then feed-forward, nothing unusual.
    pub(super) fn new(attention: Sublayer<Attention>, feed_forward: Sublayer<FeedForward>) -> Self {
        Self { attention, feed_forward, parallel: false, residual_scale: 1.0, convolution: None }
    }

    /// Both halves on the block's input.
    pub(super) fn parallel(attention: Sublayer<Attention>, feed_forward: Sublayer<FeedForward>) -> Self {
        Self { parallel: true, ..Self::new(attention, feed_forward) }
    }
}

/// Half a block with the norms around it: `after(x + inside(map(before(x))))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sublayer<T> {
    /// The norm of the input.
    pub before: Option<Norm>,
    /// What is computed.
    pub map: T,
    /// The norm of the output, before the input is added.
    pub inside: Option<Norm>,
    /// The norm of the sum.
    pub after: Option<Norm>,
}

impl<T> Sublayer<T> {
    /// Pre-norm.
    pub(super) fn pre(norm: Norm, map: T) -> Self {
        Self { before: Some(norm), map, inside: None, after: None }
    }

    /// Post-norm.
    pub(super) fn post(map: T, norm: Norm) -> Self {
        Self { before: None, map, inside: None, after: Some(norm) }
    }

    /// A norm on both sides, inside the residual.
    pub(super) fn sandwich(before: Norm, map: T, inside: Norm) -> Self {
        Self { before: Some(before), map, inside: Some(inside), after: None }
    }

    /// A norm of the output alone, inside the residual.
    pub(super) fn inside(map: T, norm: Norm) -> Self {
        Self { before: None, map, inside: Some(norm), after: None }
    }

    /// No norm.
    pub(super) fn bare(map: T) -> Self {
        Self { before: None, map, inside: None, after: None }
    }
}

/// Multi-head attention with the maps around it. Vaswani et al. 2017.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Heads of queries.
    pub n_heads: u32,
    /// Heads of keys and values; divides `n_heads`.
    pub n_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Queries, keys and values.
    pub projections: Projections,
    /// The map of the heads' outputs.
    pub out: Linear,
    /// What products of queries and keys are multiplied by.
    pub scale: f64,
    /// Queries, keys and values are cut to this magnitude.
    pub clip: Option<f64>,
    /// Norms of queries and keys, before rotation.
    pub head_norm: Option<HeadNorm>,
    /// Rotary positions: the place in [`Architecture::rotaries`](super::Architecture::rotaries).
    pub rotary: Option<usize>,
    /// What else goes into a score.
    pub scores: Scores,
    /// Which tokens a token sees.
    pub mask: Mask,
}

impl Attention {
    /// Full attention with scale 1/√head_dim, as wide as its heads together.
    pub(super) fn new(n_heads: u32, head_dim: u32, projections: Projections, out: Linear) -> Self {
        Self {
            n_heads,
            n_kv_heads: n_heads,
            head_dim,
            projections,
            out,
            scale: 1.0 / f64::from(head_dim).sqrt(),
            clip: None,
            head_norm: None,
            rotary: None,
            scores: Scores::Products,
            mask: Mask::FULL,
        }
    }

    /// Width of the heads' outputs side by side.
    pub fn width(&self) -> u32 {
        self.n_heads * self.head_dim
    }
}

/// How queries, keys and values are stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Projections {
    /// Three maps: query, key, value.
    Separate([Linear; 3]),
    /// One map that gives all of them.
    Fused {
        /// The map.
        linear: Linear,
        /// In which order its rows are.
        order: FusedOrder,
    },
}

/// The order of rows in a fused map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FusedOrder {
    /// All queries, all keys, all values.
    Concatenated,
    /// For each head of keys: its queries, its key, its value.
    PerKeyHead,
}

/// Norms of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadNorm {
    /// What they subtract and divide by.
    pub kind: NormKind,
    /// Added to the variance or mean square.
    pub eps: f64,
    /// Whether one is added to the stored weights.
    pub plus_one: bool,
    /// What is normalised together.
    pub span: HeadNormSpan,
    /// Names of the query norms' weights.
    pub query: Vec<Parameter>,
    /// Names of the key norms' weights.
    pub key: Vec<Parameter>,
}

/// What a norm of queries or keys normalises together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNormSpan {
    /// Each head, with one weight vector for all.
    Head,
    /// Each head, with a weight vector of its own: one tensor [heads, width], or one tensor for each head.
    HeadWithOwnWeights,
    /// All heads side by side.
    AllHeads,
}

/// What goes into an attention score beside the product of query and key.
#[derive(Clone, Debug, PartialEq)]
pub enum Scores {
    /// Nothing.
    Products,
    /// cap · tanh(product / cap).
    SoftCap(f64),
    /// A learned bias by distance: the place in [`Architecture::relative_biases`](super::Architecture::relative_biases).
    RelativeBias(usize),
    /// A bias that falls linearly with distance. Press et al. 2022.
    Alibi(Alibi),
    /// Products of contents with relative positions. He et al. 2021.
    Disentangled(Box<Disentangled>),
    /// Products of contents with sinusoids of the distance, and with whether the segment is another one.
    /// Dai et al. 2019; Yang et al. 2019.
    Sinusoidal(Box<Sinusoidal>),
}

/// A learned bias by bucketed distance, shared by layers. Raffel et al. 2020.
#[derive(Clone, Debug, PartialEq)]
pub struct RelativeBias {
    /// [buckets, heads].
    pub table: Parameter,
    /// Rows of the table.
    pub n_buckets: u32,
    /// Distances from here on share a bucket.
    pub max_distance: u32,
}

/// Linear biases: slope · position of the key, which differs from slope · distance by a constant per row.
#[derive(Clone, Debug, PartialEq)]
pub struct Alibi {
    /// One per head.
    pub slopes: Vec<f32>,
    /// Whether slopes and products are rounded to bfloat16.
    pub rounded: bool,
    /// What the biases are multiplied by afterwards.
    pub factor: f64,
}

/// Disentangled attention: content to position and position to content.
#[derive(Clone, Debug, PartialEq)]
pub struct Disentangled {
    /// The embedding of relative positions, [2 · span, d].
    pub table: Parameter,
    /// Its norm.
    pub table_norm: Option<Norm>,
    /// Half the rows of the table.
    pub span: u32,
    /// Logarithmic buckets as in the second version: (buckets, largest distance).
    pub buckets: Option<(u32, u32)>,
    /// The map of relative positions to keys, where contents are compared with positions.
    pub position_key: Option<PositionMap>,
    /// The map of relative positions to queries, where positions are compared with contents.
    pub position_query: Option<PositionMap>,
    /// Bias of queries and of values, where they are stored apart from the fused map.
    pub extra_bias: Option<[Parameter; 2]>,
}

/// Attention that compares contents with sinusoids of the distance, and with segments.
#[derive(Clone, Debug, PartialEq)]
pub struct Sinusoidal {
    /// Sinusoids, as wide as a hidden state → keys of each head.
    pub key: Linear,
    /// What is added to queries before they meet contents, [heads, width of a head].
    pub content_bias: Parameter,
    /// What is added to them before they meet sinusoids, of the same shape.
    pub distance_bias: Parameter,
    /// What is added to them before they meet segments, of the same shape.
    pub segment_bias: Parameter,
    /// The keys of the same segment and of another one, [2, heads, width of a head].
    pub segments: Parameter,
    /// Distances beyond count as this one.
    pub max_distance: Option<u32>,
}

/// How relative positions become keys or queries.
#[derive(Clone, Debug, PartialEq)]
pub enum PositionMap {
    /// By the map of contents.
    Shared,
    /// By a map of their own.
    Own(Linear),
}

/// Which tokens a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// None behind itself.
    pub causal: bool,
    /// None farther away than this, in both directions.
    pub reach: Option<u32>,
}

impl Mask {
    /// All tokens of the text.
    pub(super) const FULL: Self = Self { causal: false, reach: None };
    /// All tokens up to itself.
    pub(super) const CAUSAL: Self = Self { causal: true, reach: None };

    /// Itself and the `window - 1` tokens before it.
    pub(super) fn sliding(window: u32) -> Self {
        Self { causal: true, reach: Some(window.saturating_sub(1)) }
    }

    /// As far as `reach` in both directions.
    pub(super) fn around(reach: u32) -> Self {
        Self { causal: false, reach: Some(reach) }
    }
}

/// A feed-forward block.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// One for all tokens.
    Dense(DenseFeedForward),
    /// Several, of which each token takes some. Shazeer et al. 2017.
    Experts {
        /// Token → a score for each expert.
        router: Linear,
        /// The experts.
        experts: Vec<DenseFeedForward>,
        /// How many of them a token takes.
        per_token: u32,
    },
}

/// down(activation(up(x))), or down(activation(gate(x)) · up(x)).
#[derive(Clone, Debug, PartialEq)]
pub struct DenseFeedForward {
    /// What comes before the activation.
    pub inner: Inner,
    /// The map back.
    pub down: Linear,
    /// The activation.
    pub activation: Activation,
}

/// What comes before the activation of a feed-forward block.
#[derive(Clone, Debug, PartialEq)]
pub enum Inner {
    /// One map.
    Plain(Linear),
    /// A gate, which the activation is applied to, and what it multiplies.
    Gated {
        /// The gate.
        gate: Linear,
        /// What it multiplies.
        up: Linear,
    },
    /// Both in one map, side by side.
    GatedFused {
        /// The map.
        linear: Linear,
        /// Whether the gate's rows come first.
        gate_first: bool,
    },
}

impl FeedForward {
    /// Two maps with an activation between them.
    pub(super) fn plain(up: Linear, down: Linear, activation: Activation) -> Self {
        Self::Dense(DenseFeedForward { inner: Inner::Plain(up), down, activation })
    }

    /// Three maps.
    pub(super) fn gated(gate: Linear, up: Linear, down: Linear, activation: Activation) -> Self {
        Self::Dense(DenseFeedForward { inner: Inner::Gated { gate, up }, down, activation })
    }
}

/// A convolution over neighbouring tokens, added to a block's output.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    /// [out, in / groups, kernel].
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Parameter,
    /// Groups of channels.
    pub groups: u32,
    /// The activation.
    pub activation: Activation,
    /// The norm of the sum of the block's output and the convolution.
    pub norm: Norm,
}

/// Rotary positions. Su et al. 2021.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Which numbers of a head form a pair.
    pub pairing: Pairing,
    /// Angle per position of each pair; the rest of a head is not rotated.
    pub inv_freq: Vec<f32>,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f64,
    /// Other angles for texts of more than so many tokens.
    pub long: Option<(u32, Vec<f32>)>,
}

/// Which numbers of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// i and i + half of what is rotated.
    Halves,
    /// 2 i and 2 i + 1.
    Neighbours,
}

/// The checkpoint's own pooler on the first token.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooler {
    /// The map.
    pub dense: Linear,
    /// The activation.
    pub activation: Activation,
}
