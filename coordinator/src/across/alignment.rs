//! The monotone alignment of two models' layers with the smallest total cost (dynamic time warping).
//!
//! Sakoe and Chiba, "Dynamic programming algorithm optimization for spoken word recognition", 1978, without slope
//! constraint: every layer of either model is on the path, and no step goes back.

/// The path from the first layers to the last ones through a [rows, columns] row-major matrix of costs that has the
/// smallest sum, as (row, column); of equal sums, the one with the later diagonal steps. A cell that is NaN may not be
/// entered; `None` where there is no path around such cells, or no cell.
pub fn alignment(costs: &[f64], rows: usize, columns: usize) -> Option<Vec<(usize, usize)>> {
    if rows == 0 || costs.len() != rows * columns || costs.is_empty() {
        return None;
    }
    // What the path before a cell may be, in the order in which equal ones are taken.
    const STEPS: [(usize, usize); 3] = [(1, 1), (1, 0), (0, 1)];
    let mut totals = vec![f64::INFINITY; costs.len()];
    let mut came_by = vec![0usize; costs.len()];
    for row in 0..rows {
        for column in 0..columns {
            let place = row * columns + column;
            if costs[place].is_nan() {
                continue;
            }
            let mut best = if place == 0 { 0.0 } else { f64::INFINITY };
            for (step, (up, left)) in STEPS.into_iter().enumerate() {
                if up <= row && left <= column {
                    let before = totals[(row - up) * columns + column - left];
                    if before < best {
                        best = before;
                        came_by[place] = step;
                    }
                }
            }
            totals[place] = best + costs[place];
        }
    }
    if totals.last().is_none_or(|total| !total.is_finite()) {
        return None;
    }
    let (mut row, mut column) = (rows - 1, columns - 1);
    let mut path = vec![(row, column)];
    while (row, column) != (0, 0) {
        let (up, left) = STEPS[came_by[row * columns + column]];
        (row, column) = (row - up, column - left);
        path.push((row, column));
    }
    path.reverse();
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest sum over all paths.
    fn by_search(costs: &[f64], columns: usize, row: usize, column: usize) -> f64 {
        let own = costs[row * columns + column];
        let rows = costs.len() / columns;
        if (row, column) == (rows - 1, columns - 1) {
            return own;
        }
        let mut best = f64::INFINITY;
        for (down, right) in [(1, 1), (1, 0), (0, 1)] {
            if row + down < rows && column + right < columns {
                best = best.min(by_search(costs, columns, row + down, column + right));
            }
        }
        // NaN and infinity stay out of the minimum.
        own + best
    }

    #[test]
    fn no_path_is_cheaper() {
        for (seed, (rows, columns)) in
            [(3, 4), (5, 5), (6, 2), (1, 4), (4, 1), (1, 1)].into_iter().enumerate()
        {
            let costs: Vec<f64> =
                (0..rows * columns).map(|place| ((place + 3 * seed + 1) * 7919 % 101) as f64).collect();
            let path = alignment(&costs, rows, columns).unwrap();
            let sum: f64 = path.iter().map(|(row, column)| costs[row * columns + column]).sum();
            assert_eq!(sum, by_search(&costs, columns, 0, 0), "{rows} x {columns}");
            assert_eq!((path[0], *path.last().unwrap()), ((0, 0), (rows - 1, columns - 1)));
            for step in path.windows(2) {
                let ((row, column), (next_row, next_column)) = (step[0], step[1]);
                assert!(next_row - row <= 1 && next_column - column <= 1 && step[0] != step[1]);
            }
        }
    }

    #[test]
    fn equal_layers_are_aligned_along_the_diagonal() {
        assert_eq!(alignment(&[0.0; 9], 3, 3).unwrap(), [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn undefined_cells_are_walked_around() {
        let nan = f64::NAN;
        assert_eq!(alignment(&[0.0, 1.0, nan, 0.0], 2, 2).unwrap(), [(0, 0), (1, 1)]);
        assert_eq!(alignment(&[0.0, 1.0, 1.0, 0.0, nan, 1.0, 0.0, 0.0, 0.0], 3, 3).unwrap().len(), 4);
        assert_eq!(alignment(&[nan, 1.0, 1.0, 1.0], 2, 2), None);
        assert_eq!(alignment(&[1.0, nan, nan, nan], 2, 2), None);
        assert_eq!(alignment(&[], 0, 0), None);
    }
}
