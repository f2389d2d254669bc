//! Average ranks of many numbers, exactly: what Spearman's correlation is made of.
//!
//! A number becomes a record of 64 bits, its place between the smallest and the largest above and its index below.
//! A radix sort orders the records by their leading bits, short sorts order what is left, and only numbers whose
//! places agree in all bits are compared themselves.

use super::scratch::Scratch;

/// Bits of a record that one pass of the radix sort looks at.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;
/// Bits that the two passes order; the runs that agree in them are mostly a few records long.
const RUN_SHIFT: u32 = u64::BITS - 2 * DIGIT_BITS;
/// Runs up to this length are sorted by insertion.
const INSERTION_MAX: usize = 24;
/// More bits than this would not tell more float64 apart.
const PLACE_BITS_MAX: u32 = 52;

/// Twice the ranks of `values` less twice their mean; `None` where all values are equal.
///
/// Ranks start at 1 and equal values share the mean of the ranks they span, so that twice a rank is an integer. The
/// result is exact up to 2^24 values and rounded to float32 beyond. No value may be NaN.
///
/// # Panics
/// Where there are 2^32 values or more.
pub fn centred_double_ranks(values: &[f64]) -> Option<Vec<f32>> {
    let count = u32::try_from(values.len()).expect("fewer than 2^32 values");
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low >= high {
        return None;
    }
    let index_bits = (u32::BITS - count.leading_zeros()).max(u64::BITS - PLACE_BITS_MAX);
    let mut records = sorted_records(values, low, high, index_bits);

    let index = |record: u64| (record & ((1 << index_bits) - 1)) as usize;
    let mut ranks = vec![0f32; values.len()];
    let mut start = 0;
    while start < records.len() {
        let place = records[start] >> index_bits;
        let same = records[start + 1..].iter().take_while(|record| *record >> index_bits == place).count();
        let run = &mut records[start..=start + same];
        if same > 0 {
            let first = values[index(run[0])];
            if run.iter().any(|record| values[index(*record)] != first) {
                run.sort_by(|a, b| values[index(*a)].total_cmp(&values[index(*b)]));
            }
        }
        let mut first = 0;
        for group in run.chunk_by(|a, b| values[index(*a)] == values[index(*b)]) {
            // The ranks begin + 1 to end have the mean (begin + 1 + end) / 2.
            let (begin, end) = (start + first, start + first + group.len());
            let doubled = (begin + 1 + end) as i64 - (i64::from(count) + 1);
            group.iter().for_each(|record| ranks[index(*record)] = doubled as f32);
            first += group.len();
        }
        start += same + 1;
    }
    Some(ranks)
}

/// Records of all values in ascending order; equal places are in order of index.
fn sorted_records(values: &[f64], low: f64, high: f64, index_bits: u32) -> Scratch<u64> {
    // Subtraction and multiplication round monotonically, so a larger value never gets a smaller place.
    let place_max = (1u64 << (u64::BITS - index_bits)) - 1;
    let places_per_unit = place_max as f64 / (high - low);
    let mut low_counts = vec![0u32; DIGITS];
    let mut high_counts = vec![0u32; DIGITS];
    let low_digit = |record: u64| (record >> RUN_SHIFT) as usize % DIGITS;
    let high_digit = |record: u64| (record >> (RUN_SHIFT + DIGIT_BITS)) as usize;
    let mut records = Scratch::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let place = (((value - low) * places_per_unit) as u64).min(place_max);
        let record = place << index_bits | index as u64;
        low_counts[low_digit(record)] += 1;
        high_counts[high_digit(record)] += 1;
        records.push(record);
    }
    let mut other = Scratch::with_capacity(records.len());
    other.resize(records.len(), 0u64);
    scatter(&records, &mut other, low_counts, low_digit);
    scatter(&other, &mut records, high_counts, high_digit);
    drop(other);
    for run in records.chunk_by_mut(|a, b| a >> RUN_SHIFT == b >> RUN_SHIFT) {
        if run.len() > INSERTION_MAX {
            run.sort_unstable();
        } else {
            insertion_sort(run);
        }
    }
    records
}

/// One stable pass: every record to the place that the counts of its digit give it.
fn scatter(from: &[u64], to: &mut [u64], counts: Vec<u32>, digit: impl Fn(u64) -> usize) {
    let mut next = counts;
    let mut sum = 0;
    for count in &mut next {
        (*count, sum) = (sum, sum + *count);
    }
    for record in from {
        let place = &mut next[digit(*record)];
        to[*place as usize] = *record;
        *place += 1;
    }
}

fn insertion_sort(run: &mut [u64]) {
    for end in 1..run.len() {
        let record = run[end];
        let mut place = end;
        while place > 0 && run[place - 1] > record {
            run[place] = run[place - 1];
            place -= 1;
        }
        run[place] = record;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twice the centred rank by counting.
    fn by_definition(values: &[f64]) -> Vec<f32> {
        let rank = |value: &f64| {
            let below = values.iter().filter(|other| *other < value).count();
            let equal = values.iter().filter(|other| *other == value).count();
            (2 * below + equal + 1) as f32 - (values.len() + 1) as f32
        };
        values.iter().map(rank).collect()
    }

    fn check(values: &[f64]) {
        assert_eq!(centred_double_ranks(values), Some(by_definition(values)), "{values:?}");
    }

    #[test]
    fn ranks_agree_with_counting() {
        check(&[2.0, 1.0]);
        check(&[1.0, 1.0, 2.0]);
        check(&[0.0, -0.0, 1.0, -1.0, 1.0, 1.0]);
        let spread: Vec<f64> = (0..2000u64).map(|i| (i * 7919 % 2003) as f64).collect();
        check(&spread);
        let ties: Vec<f64> = (0..2000u64).map(|i| (i * 7919 % 2003 / 50) as f64).collect();
        check(&ties);
    }

    #[test]
    fn values_that_share_all_leading_bits_are_still_told_apart() {
        // One far value squeezes all others into the same place of the radix sort.
        let mut values: Vec<f64> = (0..300u64).map(|i| 1.0 + (i * 31 % 101) as f64 * f64::EPSILON).collect();
        values.push(1e300);
        check(&values);
        values.push(-f64::MAX / 2.0);
        check(&values);
        check(&[5e-324, 0.0, 1e-323]);
    }

    #[test]
    fn equal_values_have_no_ranks() {
        assert_eq!(centred_double_ranks(&[0.5; 9]), None);
        assert_eq!(centred_double_ranks(&[0.0, -0.0]), None);
        assert_eq!(centred_double_ranks(&[]), None);
    }
}
