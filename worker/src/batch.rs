//! Which rows go through the model together, and their tokens laid end to end.
//!
//! Pure: a plan depends on the lengths and the budget alone, never on the machine, so that the same spec
//! makes the same batches, and with them the same bytes, everywhere.

/// The rows of each batch, from the shortest texts to the longest.
///
/// Rows are sorted by (length, row) and cut into about `total / token_budget` batches, rounded up, of about
/// equally many tokens. No batch holds more than `token_budget` tokens unless one text alone does. Rows without
/// tokens are left out.
pub fn plan(lengths: &[u32], token_budget: u64) -> Vec<Vec<u32>> {
    let budget = token_budget.max(1);
    let mut rows: Vec<u32> =
        (0u32..).zip(lengths).filter(|(_, length)| **length > 0).map(|(row, _)| row).collect();
    rows.sort_by_key(|row| (lengths[*row as usize], *row));
    let mut tokens_left: u64 = rows.iter().map(|row| u64::from(lengths[*row as usize])).sum();
    let mut batches_left = tokens_left.div_ceil(budget);
    let mut batches = Vec::new();
    let mut batch: Vec<u32> = Vec::new();
    let mut batch_tokens = 0u64;
    for row in rows {
        let length = u64::from(lengths[row as usize]);
        let target = tokens_left.div_ceil(batches_left.max(1)).min(budget);
        // A text that crosses the target goes where more than half of it lies.
        let full = batch_tokens + length > budget || batch_tokens + length.div_ceil(2) > target;
        if full && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            tokens_left -= batch_tokens;
            batches_left = batches_left.saturating_sub(1);
            batch_tokens = 0;
        }
        batch.push(row);
        batch_tokens += length;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// The tokens of some texts, end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[t]`.
    pub ids: Vec<i64>,
    /// The type of each token, `[t]`; none where all are of type 0.
    pub types: Option<Vec<i64>>,
    /// Where each text begins, and after the last one where it ends: [n + 1].
    pub offsets: Vec<i64>,
}

impl Batch {
    /// Packs texts, none of them empty, in their order.
    pub fn pack<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self { ids: Vec::new(), types: None, offsets: vec![0] };
        for text in texts {
            batch.ids.extend(text.iter().map(|id| i64::from(*id)));
            batch.offsets.push(batch.ids.len() as i64);
        }
        batch
    }

    /// Sets the types of the texts' tokens; a text without types has type 0 everywhere.
    pub fn with_types<'a>(mut self, texts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        for (start, types) in self.offsets.iter().zip(texts).filter(|(_, types)| !types.is_empty()) {
            let all = self.types.get_or_insert_with(|| vec![0; self.ids.len()]);
            for (place, kind) in all[*start as usize..].iter_mut().zip(types) {
                *place = i64::from(*kind);
            }
        }
        self
    }

    /// The position of each token in its own text, `[t]`.
    pub fn positions(&self) -> Vec<i64> {
        self.offsets.windows(2).flat_map(|ends| 0..ends[1] - ends[0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_sorted_balanced_and_within_the_budget() {
        let check = |lengths: &[u32], budget: u64, expected: &[&[u32]]| {
            assert_eq!(plan(lengths, budget), expected, "{lengths:?} within {budget}");
        };
        check(&[], 10, &[]);
        check(&[0, 0], 10, &[]);
        check(&[3, 1, 2], 10, &[&[1, 2, 0]]);
        check(&[3, 1, 2], 1, &[&[1], &[2], &[0]]);
        check(&[5, 5, 5, 5], 10, &[&[0, 1], &[2, 3]]);
        // Six texts of 4 in a budget of 20 are two batches of 12, not 20 and 4.
        check(&[4; 6], 20, &[&[0, 1, 2], &[3, 4, 5]]);
        check(&[2, 100, 2], 10, &[&[0, 2], &[1]]);
        check(&[7], 0, &[&[0]]);
    }

    #[test]
    fn every_row_is_there_once_whatever_the_lengths() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for _ in 0..200 {
            let lengths: Vec<u32> = (0..random() % 200).map(|_| random() % 50).collect();
            let budget = u64::from(random() % 300);
            let batches = plan(&lengths, budget);
            let tokens =
                |batch: &Vec<u32>| batch.iter().map(|row| u64::from(lengths[*row as usize])).sum::<u64>();
            assert!(batches.iter().all(|batch| batch.len() == 1 || tokens(batch) <= budget));
            let mut rows = batches.concat();
            rows.sort_unstable();
            let expected: Vec<u32> =
                (0..lengths.len() as u32).filter(|row| lengths[*row as usize] > 0).collect();
            assert_eq!(rows, expected);
        }
    }

    #[test]
    fn packing_lays_texts_end_to_end() {
        let batch = Batch::pack([&[7, 8][..], &[9]]);
        assert_eq!(batch, Batch { ids: vec![7, 8, 9], types: None, offsets: vec![0, 2, 3] });
        assert_eq!(batch.positions(), [0, 1, 0]);
        assert_eq!(batch.clone().with_types([&[][..], &[]]).types, None);
        assert_eq!(batch.with_types([&[][..], &[2]]).types, Some(vec![0, 0, 2]));
    }
}
