//! What an architecture costs: operations and memory, from its parts.

use super::Architecture;
use super::parts::{Attention, Block, DenseFeedForward, FeedForward, Inner, Linear, Projections};

impl Architecture {
    /// Floating-point operations of one token in its maps: everything but attention itself and norms.
    pub fn flop_linear(&self) -> u64 {
        let ends = self.embedding.projection.iter().map(|(linear, _)| linear).chain(&self.projection_out);
        let blocks = self.order.iter().map(|place| block_maps(&self.blocks[*place])).sum::<u64>();
        blocks + ends.map(map).sum::<u64>()
    }

    /// Floating-point operations of one token per token of its text, in attention.
    pub fn flop_per_length(&self) -> u64 {
        let block = |place: &usize| 4 * u64::from(self.blocks[*place].attention.map.width());
        self.order.iter().map(block).sum()
    }

    /// The most numbers per token that are alive at once in a forward pass.
    pub fn activation_width(&self) -> u64 {
        let widest = self.blocks.iter().map(|block| {
            let width = u64::from(block.attention.map.out.width_out);
            // The residual, queries with keys and values, heads' outputs twice; or the feed-forward block.
            let attention =
                2 * width + projected(&block.attention.map) + u64::from(block.attention.map.width());
            attention.max(3 * width + inner_width(&block.feed_forward.map))
        });
        widest.max().unwrap_or(0).max(u64::from(self.hidden_size))
    }
}

fn map(linear: &Linear) -> u64 {
    2 * u64::from(linear.width_in) * u64::from(linear.width_out)
}

fn projected(attention: &Attention) -> u64 {
    u64::from(attention.n_heads + 2 * attention.n_kv_heads) * u64::from(attention.head_dim)
}

fn block_maps(block: &Block) -> u64 {
    let attention = &block.attention.map;
    let projections = match &attention.projections {
        Projections::Separate(linears) => linears.iter().map(map).sum(),
        Projections::Fused { linear, .. } => map(linear),
    };
    let feed_forward = match &block.feed_forward.map {
        FeedForward::Dense(dense) => dense_maps(dense),
        FeedForward::Experts { router, experts, per_token } => {
            map(router) + experts.first().map_or(0, dense_maps) * u64::from(*per_token)
        }
    };
    projections + map(&attention.out) + feed_forward
}

fn dense_maps(dense: &DenseFeedForward) -> u64 {
    let inner = match &dense.inner {
        Inner::Plain(linear) | Inner::GatedFused { linear, .. } => map(linear),
        Inner::Gated { gate, up } => map(gate) + map(up),
    };
    inner + map(&dense.down)
}

/// Numbers per token between the maps of a feed-forward block.
fn inner_width(feed_forward: &FeedForward) -> u64 {
    let dense = |dense: &DenseFeedForward| match &dense.inner {
        Inner::Plain(linear) | Inner::GatedFused { linear, .. } => u64::from(linear.width_out),
        Inner::Gated { gate, up } => u64::from(gate.width_out) + u64::from(up.width_out),
    };
    match feed_forward {
        FeedForward::Dense(one) => dense(one),
        FeedForward::Experts { experts, per_token, .. } => {
            experts.first().map_or(0, dense) * u64::from(*per_token)
        }
    }
}
