//! BERT. Devlin et al. 2019.
//!
//! Config: [`BertConfig`]. Weights: `embeddings.{word,position,token_type}_embeddings`, `embeddings.LayerNorm`,
//! `encoder.layer.{i}.attention.self.{query,key,value}`, `….attention.output.{dense,LayerNorm}`,
//! `….intermediate.dense`, `….output.{dense,LayerNorm}`, `pooler.dense`.

use lsa_common::architecture::bert::BertConfig;
use tch::{TchError, Tensor};

use super::block::attention::{Attention, AttentionPlan};
use super::block::embedding::Embedding;
use super::block::feed_forward::FeedForward;
use super::block::linear::Linear;
use super::block::norm::LayerNorm;
use super::{Encoder, LayerVisitor, LoadError, PackedBatch};
use crate::pooling::TrainedPooler;
use crate::weights::Weights;

type Pooler = Box<dyn Fn(&Tensor) -> Result<Tensor, TchError> + Send>;

struct Bert {
    hidden_size: u32,
    embedding: Embedding,
    embedding_norm: LayerNorm,
    blocks: Vec<Block>,
    pooler: Option<Pooler>,
}

/// Post-norm: each half adds its input and normalises the sum.
struct Block {
    attention: Attention,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    feed_forward_norm: LayerNorm,
}

pub(super) fn load(config_json: &[u8], weights: &mut Weights) -> Result<Box<dyn Encoder>, LoadError> {
    let config = BertConfig::read(config_json)?;
    let eps = config.layer_norm_eps;
    // Every text is of type 0, so its row is the same shift at every position.
    let type_0 = weights.take("embeddings.token_type_embeddings.weight")?.f_select(0, 0)?;
    let embedding = Embedding::load(
        weights,
        "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight",
        &type_0,
    )?;
    let embedding_norm = LayerNorm::load(weights, "embeddings.LayerNorm", eps)?;
    let blocks = (0..config.num_hidden_layers).map(|block| Block::load(&config, weights, block));
    let blocks = blocks.collect::<Result<_, LoadError>>()?;
    let pooler = if weights.has_pooler() {
        let dense = Linear::load(weights, "pooler.dense")?;
        Some(Box::new(move |first: &Tensor| dense.forward(first)?.f_tanh()) as Pooler)
    } else {
        None
    };
    Ok(Box::new(Bert { hidden_size: config.hidden_size, embedding, embedding_norm, blocks, pooler }))
}

impl Block {
    fn load(config: &BertConfig, weights: &mut Weights, block: u32) -> Result<Self, LoadError> {
        let name = |part: &str| format!("encoder.layer.{block}.{part}");
        let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        let qkv = Linear::load_side_by_side(weights, &qkv)?;
        let mut linear = |part: &str| Linear::load(weights, &name(part));
        let out = linear("attention.output.dense")?;
        let (up, down) = (linear("intermediate.dense")?, linear("output.dense")?);
        let mut norm = |part: &str| LayerNorm::load(weights, &name(part), config.layer_norm_eps);
        Ok(Self {
            attention: Attention::new(qkv, out, config.num_attention_heads),
            attention_norm: norm("attention.output.LayerNorm")?,
            feed_forward: FeedForward::new(up, down, config.hidden_act),
            feed_forward_norm: norm("output.LayerNorm")?,
        })
    }

    fn forward(&self, x: &Tensor, plan: &AttentionPlan) -> Result<Tensor, TchError> {
        let x = self.attention_norm.forward(&self.attention.forward(x, plan)?.f_add_(x)?)?;
        self.feed_forward_norm.forward(&self.feed_forward.forward(&x)?.f_add_(&x)?)
    }
}

impl Encoder for Bert {
    fn n_layers(&self) -> u32 {
        self.blocks.len() as u32 + 1
    }

    fn width(&self, _layer: u32) -> u32 {
        self.hidden_size
    }

    fn forward(&self, batch: &PackedBatch, visit: &mut LayerVisitor<'_>) -> Result<(), TchError> {
        let embedded = self.embedding.forward(&batch.ids, &batch.positions)?;
        let mut x = self.embedding_norm.forward(&embedded)?;
        visit(0, &x)?;
        for (layer, block) in (1..).zip(&self.blocks) {
            x = block.forward(&x, &batch.attention)?;
            visit(layer, &x)?;
        }
        Ok(())
    }

    fn pooler(&self) -> Option<TrainedPooler<'_>> {
        self.pooler.as_deref().map(|pooler| pooler as _)
    }
}
