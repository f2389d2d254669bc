//! The tensors that an architecture implies.

use super::parts::{
    Attention, Block, DenseFeedForward, FeedForward, FusedOrder, HeadNorm, Inner, Linear, Norm, NormWeight,
    Parameter, PositionMap, Projections, Scores, Sinusoidal, Sublayer,
};
use super::{Architecture, Naming};

/// Which tensors make up an encoder, by the names of its own family, without the prefix of a task head.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// How they are found in a checkpoint.
    pub naming: Naming,
    /// What must be there.
    pub tensors: Vec<Parameter>,
    /// What must be there for the pooler, all or nothing.
    pub pooler: Vec<Parameter>,
}

impl Architecture {
    /// Which tensors a checkpoint must hold, each once, in the order in which they are used.
    pub fn layout(&self) -> Layout {
        let mut tensors = Tensors(Vec::new());
        let embedding = &self.embedding;
        tensors.add(&embedding.tokens);
        tensors.all(embedding.positions.iter().map(|positions| &positions.table));
        tensors.all(embedding.constants.iter().map(|constant| &constant.table));
        tensors.norms(&embedding.norm);
        if let Some((linear, _)) = &embedding.projection {
            tensors.linear(linear);
        }
        tensors.all(self.relative_biases.iter().map(|bias| &bias.table));
        for block in &self.blocks {
            tensors.block(block);
        }
        tensors.norms(&self.final_norm);
        if let Some(linear) = &self.projection_out {
            tensors.linear(linear);
        }
        let mut pooler = Tensors(Vec::new());
        if let Some(part) = &self.pooler {
            pooler.linear(&part.dense);
        }
        Layout { naming: self.naming.clone(), tensors: tensors.0, pooler: pooler.0 }
    }
}

struct Tensors(Vec<Parameter>);

impl Tensors {
    fn add(&mut self, parameter: &Parameter) {
        // Relative positions are shared by all blocks; it is the same tensor each time.
        if self.0.last() != Some(parameter) && !self.0.contains(parameter) {
            self.0.push(parameter.clone());
        }
    }

    fn all<'a>(&mut self, parameters: impl IntoIterator<Item = &'a Parameter>) {
        parameters.into_iter().for_each(|parameter| self.add(parameter));
    }

    fn linear(&mut self, linear: &Linear) {
        let (rows, columns) = if linear.transposed {
            (linear.width_in, linear.width_out)
        } else {
            (linear.width_out, linear.width_in)
        };
        let shape = match linear.heads {
            Some(n_heads) => vec![rows, n_heads, columns / n_heads],
            None => vec![rows, columns],
        };
        self.0.push(Parameter { name: linear.weight_name(), shape });
        if linear.bias {
            self.0.push(Parameter::new(linear.bias_name(), &[linear.width_out]));
        }
    }

    fn norms<'a>(&mut self, norms: impl IntoIterator<Item = &'a Norm>) {
        for norm in norms {
            if norm.weight != NormWeight::None {
                self.0.push(Parameter::new(format!("{}.weight", norm.name), &[norm.width]));
            }
            if norm.bias {
                self.0.push(Parameter::new(format!("{}.bias", norm.name), &[norm.width]));
            }
        }
    }

    fn block(&mut self, block: &Block) {
        self.around(&block.attention);
        self.attention(&block.attention.map);
        self.around(&block.feed_forward);
        match &block.feed_forward.map {
            FeedForward::Dense(dense) => self.dense(dense),
            FeedForward::Experts { router, experts, .. } => {
                self.linear(router);
                experts.iter().for_each(|expert| self.dense(expert));
            }
        }
        if let Some(convolution) = &block.convolution {
            self.all([&convolution.weight, &convolution.bias]);
            self.norms([&convolution.norm]);
        }
    }

    fn around<T>(&mut self, sublayer: &Sublayer<T>) {
        self.norms(sublayer.before.iter().chain(&sublayer.inside).chain(&sublayer.after));
    }

    fn attention(&mut self, attention: &Attention) {
        match &attention.projections {
            Projections::Separate(linears) => linears.iter().for_each(|linear| self.linear(linear)),
            Projections::Fused { linear, order: FusedOrder::Concatenated | FusedOrder::PerKeyHead } => {
                self.linear(linear);
            }
        }
        self.linear(&attention.out);
        if let Some(HeadNorm { query, key, .. }) = &attention.head_norm {
            self.all(query.iter().chain(key));
        }
        match &attention.scores {
            Scores::Products | Scores::SoftCap(_) | Scores::RelativeBias(_) | Scores::Alibi(_) => {}
            Scores::Disentangled(scores) => {
                self.add(&scores.table);
                if let Some(norm) = &scores.table_norm
                    && !self.0.iter().any(|known| known.name == format!("{}.weight", norm.name))
                {
                    self.norms([norm]);
                }
                for map in [&scores.position_key, &scores.position_query] {
                    if let Some(PositionMap::Own(linear)) = map {
                        self.linear(linear);
                    }
                }
                self.all(scores.extra_bias.iter().flatten());
            }
            Scores::Sinusoidal(scores) => {
                self.linear(&scores.key);
                let Sinusoidal { content_bias, distance_bias, segment_bias, segments, .. } = &**scores;
                self.all([content_bias, distance_bias, segment_bias, segments]);
            }
        }
    }

    fn dense(&mut self, dense: &DenseFeedForward) {
        match &dense.inner {
            Inner::Plain(linear) | Inner::GatedFused { linear, .. } => self.linear(linear),
            Inner::Gated { gate, up } => {
                self.linear(gate);
                self.linear(up);
            }
        }
        self.linear(&dense.down);
    }
}
