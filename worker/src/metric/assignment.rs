//! The best matching of rows with columns of a matrix: each row with a column of its own, the sum of the entries largest.
//!
//! Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems", 1987,
//! without its initial heuristics; for matrices with more columns than rows as in Crouse, "On implementing 2D
//! rectangular assignment algorithms", 2016.

/// No row or column: the mark of what is not matched yet.
const NONE: usize = usize::MAX;

/// For each row of `profits`, row-major with `n_columns` entries a row, the column that it is matched with.
///
/// The sum of the matched entries is the largest there is. Takes time O(rows² columns). Entries have to be finite; the
/// result depends on nothing else, equal sums are told apart by the order of the columns.
///
/// # Panics
/// Where there are more rows than columns.
pub fn best_assignment(profits: &[f64], n_columns: usize) -> Vec<usize> {
    let n_rows = profits.len().checked_div(n_columns).unwrap_or(0);
    assert!(n_rows <= n_columns, "each of {n_rows} rows needs one of {n_columns} columns");
    let mut matching = Matching {
        profits,
        row_prices: vec![0.0; n_rows],
        column_prices: vec![0.0; n_columns],
        row_of: vec![NONE; n_columns],
        column_of: vec![NONE; n_rows],
    };
    let mut search = Search {
        distances: vec![0.0; n_columns],
        before: vec![NONE; n_columns],
        open: Vec::with_capacity(n_columns),
        closed: Vec::with_capacity(n_columns),
    };
    for row in 0..n_rows {
        matching.match_row(row, &mut search);
    }
    matching.column_of
}

/// A matching of some rows. The reduced cost of row i and column j, `-profit - row_prices[i] - column_prices[j]`, is
/// nowhere below zero and zero where they are matched, so that it is the best matching of these rows.
struct Matching<'a> {
    profits: &'a [f64],
    row_prices: Vec<f64>,
    column_prices: Vec<f64>,
    row_of: Vec<usize>,
    column_of: Vec<usize>,
}

/// The search for the shortest path by reduced costs from a row to a column that is free (Dijkstra).
struct Search {
    /// For each column, the length of the shortest path that is known.
    distances: Vec<f64>,
    /// The row before it on that path.
    before: Vec<usize>,
    /// Columns whose distance may still fall.
    open: Vec<usize>,
    /// Columns whose distance is final, all of them matched.
    closed: Vec<usize>,
}

impl Matching<'_> {
    /// Matches one more row; other rows may get other columns.
    fn match_row(&mut self, start: usize, search: &mut Search) {
        let n_columns = self.column_prices.len();
        search.distances.fill(f64::INFINITY);
        search.open.clear();
        search.open.extend(0..n_columns);
        search.closed.clear();
        let (mut row, mut length) = (start, 0.0);
        let free = loop {
            let place = self.nearest(row, length, search);
            let column = search.open.swap_remove(place);
            length = search.distances[column];
            if self.row_of[column] == NONE {
                break column;
            }
            search.closed.push(column);
            row = self.row_of[column];
        };

        self.row_prices[start] += length;
        for column in &search.closed {
            let slack = length - search.distances[*column];
            self.row_prices[self.row_of[*column]] += slack;
            self.column_prices[*column] -= slack;
        }
        let mut column = free;
        loop {
            let row = search.before[column];
            self.row_of[column] = row;
            let next = std::mem::replace(&mut self.column_of[row], column);
            if row == start {
                break;
            }
            column = next;
        }
    }

    /// Extends the paths by the edges of `row`, which is `length` away, and gives the place of the nearest open column:
    /// a free one where several are as near, else the lowest.
    fn nearest(&self, row: usize, length: f64, search: &mut Search) -> usize {
        let n_columns = self.column_prices.len();
        let profits = &self.profits[row * n_columns..][..n_columns];
        let base = length - self.row_prices[row];
        let rank = |column: usize| (self.row_of[column] != NONE, column);
        let (mut nearest, mut nearest_distance, mut nearest_rank) = (0, f64::INFINITY, (true, NONE));
        for (place, column) in search.open.iter().copied().enumerate() {
            let distance = base - profits[column] - self.column_prices[column];
            if distance < search.distances[column] {
                search.distances[column] = distance;
                search.before[column] = row;
            }
            let distance = search.distances[column];
            if distance < nearest_distance || (distance == nearest_distance && rank(column) < nearest_rank) {
                (nearest, nearest_distance, nearest_rank) = (place, distance, rank(column));
            }
        }
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(profits: &[f64], n_columns: usize, columns: &[usize]) -> f64 {
        columns.iter().enumerate().map(|(row, column)| profits[row * n_columns + column]).sum()
    }

    /// The largest sum over all matchings of the rows from `row` with the columns that are not `taken`.
    fn by_trying_all(profits: &[f64], n_columns: usize, row: usize, taken: &mut [bool]) -> f64 {
        if row == profits.len() / n_columns {
            return 0.0;
        }
        let mut best = f64::NEG_INFINITY;
        for column in 0..n_columns {
            if !taken[column] {
                taken[column] = true;
                let rest = by_trying_all(profits, n_columns, row + 1, taken);
                best = best.max(profits[row * n_columns + column] + rest);
                taken[column] = false;
            }
        }
        best
    }

    fn check(profits: &[f64], n_columns: usize) {
        let columns = best_assignment(profits, n_columns);
        let mut once = columns.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), profits.len() / n_columns, "a column is matched twice: {columns:?}");
        let best = by_trying_all(profits, n_columns, 0, &mut vec![false; n_columns]);
        let found = sum(profits, n_columns, &columns);
        assert!((found - best).abs() < 1e-12, "{found} instead of {best}: {profits:?}");
    }

    #[test]
    fn no_other_matching_has_a_larger_sum() {
        for seed in 0..200 {
            for (n_rows, n_columns) in [(1, 1), (1, 4), (2, 2), (3, 5), (5, 5), (4, 7), (6, 6)] {
                let at = |place: usize| (place * 7919 + seed * 104_729 + place * place * 31) % 1009;
                let cells = 0..n_rows * n_columns;
                let spread: Vec<f64> = cells.clone().map(|place| at(place) as f64 / 500.0 - 1.0).collect();
                check(&spread, n_columns);
                // Few different numbers: many matchings with the same sum.
                let ties: Vec<f64> = cells.map(|place| (at(place) % 3) as f64 - 1.0).collect();
                check(&ties, n_columns);
            }
        }
    }

    #[test]
    fn ties_and_trivial_matrices() {
        assert_eq!(best_assignment(&[0.0; 9], 3), [0, 1, 2]);
        assert_eq!(best_assignment(&[1.0, 0.0, 0.0, 1.0], 2), [0, 1]);
        assert_eq!(best_assignment(&[], 0), [0usize; 0]);
    }
}
