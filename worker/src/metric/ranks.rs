//! Average ranks of many numbers, exactly: what Spearman's correlation is made of.
//!
//! A number becomes a record of 64 bits, its place between the smallest and the largest above and its index below.
//! One pass sends the records to buckets by their leading bits; each bucket fits a cache and is sorted there, by
//! counting and by insertion. Only numbers whose places agree in all bits are compared themselves.

use std::ops::Range;

use super::scratch::Scratch;
use super::vectorised::vectorised;

/// More bits than this would not tell more float64 apart.
const PLACE_BITS_MAX: u32 = 52;
/// Records of a bucket, were the numbers spread evenly: a power of two of them.
const BUCKET_BITS: u32 = 11;
/// The most leading bits that buckets are told apart by: more places to write to would each miss the cache.
const BUCKET_DIGIT_BITS_MAX: u32 = 14;
/// The most further bits that a bucket is sorted by in one pass.
const INNER_DIGIT_BITS_MAX: u32 = 12;
/// Runs up to this length are sorted by insertion.
const INSERTION_MAX: u32 = 24;
/// Records that are sorted at a time, unless a single bucket holds more: 256 MiB of them.
pub const RECORDS_MAX: usize = 1 << 25;

/// Twice the ranks of `values` less twice their mean; `None` where all values are equal.
///
/// Ranks start at 1 and equal values share the mean of the ranks they span, so that twice a rank is an integer.
///
/// # Panics
/// Where there are 2^31 values or more, one of them is NaN, or their range is no finite number.
pub fn centred_double_ranks(values: &[f64]) -> Option<Vec<i32>> {
    doubled_ranks(values, RECORDS_MAX)
}

fn doubled_ranks(values: &[f64], records_max: usize) -> Option<Vec<i32>> {
    let count = i32::try_from(values.len()).expect("fewer than 2^31 values");
    let (low, high) = range(values);
    if low >= high {
        return None;
    }
    let places = Places::new(values.len(), low, high);
    let counts = places.bucket_counts(values);
    let mut ranks = vec![0i32; values.len()];
    let mut sorter = Sorter { values, places, centre: count + 1, next: Vec::new(), unsorted: Vec::new() };
    let mut first_rank = 0;
    for buckets in slices(&counts, records_max) {
        // Every slice asks for as much, so that each finds the memory of the one before.
        let mut records = Scratch::with_capacity(records_max.min(values.len()));
        sorter.places.records(values, &counts, &buckets, &mut records);
        let mut rest = &mut records[..];
        for bucket in buckets {
            let (own, others) = rest.split_at_mut(counts[bucket] as usize);
            sorter.sort(own);
            sorter.rank(own, first_rank, &mut ranks);
            first_rank += own.len();
            rest = others;
        }
    }
    Some(ranks)
}

vectorised! {
    /// The smallest and the largest of `values`; infinities the wrong way round where there is none.
    pub fn range(values: &[f64]) -> (f64, f64) {
        const LANES: usize = 8;
        let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
        let (blocks, rest) = values.as_chunks::<LANES>();
        for block in blocks {
            for lane in 0..LANES {
                low[lane] = if block[lane] < low[lane] { block[lane] } else { low[lane] };
                high[lane] = if block[lane] > high[lane] { block[lane] } else { high[lane] };
            }
        }
        let low = low.iter().chain(rest).copied().fold(f64::INFINITY, f64::min);
        (low, high.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// Runs of buckets that hold at most `records_max` records together, or are one bucket.
fn slices(counts: &[u32], records_max: usize) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (bucket, count) in counts.iter().enumerate() {
        if bucket > start && held + *count as usize > records_max {
            slices.push(start..bucket);
            (start, held) = (bucket, 0);
        }
        held += *count as usize;
    }
    slices.push(start..counts.len());
    slices
}

/// Where numbers lie between the smallest and the largest of them.
#[derive(Clone, Copy)]
struct Places {
    low: f64,
    per_unit: f64,
    /// Bits of a record that hold the index.
    index_bits: u32,
    /// Leading bits of a record that name its bucket.
    digit_bits: u32,
}

impl Places {
    fn new(count: usize, low: f64, high: f64) -> Self {
        let count_bits = usize::BITS - count.leading_zeros();
        let index_bits = count_bits.max(u64::BITS - PLACE_BITS_MAX);
        // A little less than the most that the bits hold, lest rounding exceeds it.
        let place_max = (1u64 << (u64::BITS - index_bits)) - 4;
        assert!((high - low).is_finite(), "the range of values is a number");
        // The smallest ranges have no reciprocal; their numbers then share a place.
        let per_unit = (place_max as f64 / (high - low)).min(f64::MAX);
        let digit_bits = count_bits.saturating_sub(BUCKET_BITS).clamp(1, BUCKET_DIGIT_BITS_MAX);
        Self { low, per_unit, index_bits, digit_bits }
    }

    /// The record of the value of that index, which need not be in its lower bits yet.
    ///
    /// Every step rounds monotonically, so a larger value never gets a smaller place.
    fn record(&self, value: f64) -> u64 {
        // Added to this, a number up to it is rounded to an integer that the lower bits of the sum then hold.
        const ROUND: f64 = (1u64 << PLACE_BITS_MAX) as f64;
        let place = (value - self.low) * self.per_unit;
        let place = (place + ROUND).to_bits() & ((1 << PLACE_BITS_MAX) - 1);
        place << self.index_bits
    }

    fn bucket(&self, record: u64) -> usize {
        (record >> (u64::BITS - self.digit_bits)) as usize
    }

    fn index(&self, record: u64) -> usize {
        (record & ((1 << self.index_bits) - 1)) as usize
    }

    /// How many values fall into each bucket.
    fn bucket_counts(&self, values: &[f64]) -> Vec<u32> {
        let mut counts = vec![0u32; 1 << self.digit_bits];
        for value in values {
            counts[self.bucket(self.record(*value))] += 1;
        }
        counts
    }

    /// Puts the records of some buckets into `records`, bucket after bucket.
    fn records(&self, values: &[f64], counts: &[u32], buckets: &Range<usize>, records: &mut Vec<u64>) {
        let mut next = vec![0u32; counts.len()];
        let mut sum = 0;
        for bucket in buckets.clone() {
            next[bucket] = sum;
            sum += counts[bucket];
        }
        records.resize(sum as usize, 0u64);
        for (index, value) in values.iter().enumerate() {
            let record = self.record(*value);
            let bucket = self.bucket(record);
            if buckets.contains(&bucket) {
                records[next[bucket] as usize] = record | index as u64;
                next[bucket] += 1;
            }
        }
    }
}

/// What sorts buckets and ranks what is in them.
struct Sorter<'a> {
    values: &'a [f64],
    places: Places,
    /// Twice the mean of all ranks.
    centre: i32,
    // Memory that is used again for each bucket.
    next: Vec<u32>,
    unsorted: Vec<u64>,
}

impl Sorter<'_> {
    /// Sorts the records of one bucket.
    fn sort(&mut self, records: &mut [u64]) {
        let digit_bits = records.len().max(2).ilog2().min(INNER_DIGIT_BITS_MAX);
        let shift = u64::BITS - self.places.digit_bits - digit_bits;
        let digit = |record: u64| (record >> shift) as usize & ((1 << digit_bits) - 1);
        let Self { next, unsorted, .. } = self;
        next.clear();
        next.resize(1 << digit_bits, 0);
        for record in &*records {
            next[digit(*record)] += 1;
        }
        let (mut sum, mut longest) = (0, 0);
        for count in &mut *next {
            longest = longest.max(*count);
            (*count, sum) = (sum, sum + *count);
        }
        unsorted.clear();
        unsorted.extend_from_slice(records);
        for record in &*unsorted {
            let place = &mut next[digit(*record)];
            records[*place as usize] = *record;
            *place += 1;
        }
        if longest <= INSERTION_MAX {
            return insertion_sort(records);
        }
        for run in records.chunk_by_mut(|a, b| digit(*a) == digit(*b)) {
            run.sort_unstable();
        }
    }

    /// Writes the ranks of sorted records, of which the first has rank `first_rank` + 1.
    fn rank(&self, records: &mut [u64], first_rank: usize, ranks: &mut [i32]) {
        let Self { values, places, centre, .. } = self;
        let mut start = 0;
        while start < records.len() {
            let place = records[start] >> places.index_bits;
            let same = records[start + 1..].iter().take_while(|record| *record >> places.index_bits == place);
            let run = start..start + 1 + same.count();
            let begin = first_rank + start;
            start = run.end;
            let run = &mut records[run];
            if let [record] = run {
                ranks[places.index(*record)] = centred(begin, 1, *centre);
                continue;
            }
            let value = |record: u64| values[places.index(record)];
            let first = value(run[0]);
            if run.iter().any(|record| value(*record) != first) {
                run.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
            }
            let mut done = 0;
            for group in run.chunk_by(|a, b| value(*a) == value(*b)) {
                let doubled = centred(begin + done, group.len(), *centre);
                group.iter().for_each(|record| ranks[places.index(*record)] = doubled);
                done += group.len();
            }
        }
    }
}

/// Twice the mean of the ranks `begin` + 1 to `begin` + `count`, less the centre.
fn centred(begin: usize, count: usize, centre: i32) -> i32 {
    // The sum is up to twice the number of values, the difference is less than that number.
    ((2 * begin + count + 1) as i64 - i64::from(centre)) as i32
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
    fn by_definition(values: &[f64]) -> Vec<i32> {
        let rank = |value: &f64| {
            let below = values.iter().filter(|other| *other < value).count();
            let equal = values.iter().filter(|other| *other == value).count();
            (2 * below + equal + 1) as i32 - (values.len() + 1) as i32
        };
        values.iter().map(rank).collect()
    }

    fn check(values: &[f64]) {
        for records_max in [1, 300, RECORDS_MAX] {
            assert_eq!(doubled_ranks(values, records_max), Some(by_definition(values)), "{values:?}");
        }
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
