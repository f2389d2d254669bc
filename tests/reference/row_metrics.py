"""Metrics over the rows themselves: x and y are float64 [n, d]."""

import numpy as np


def centred(x):
    x = x - x.mean(axis=0)
    return x - x.mean(axis=0)


def constant(x):
    """All rows equal up to rounding: nothing is said of such a layer."""
    return np.linalg.norm(x - x.mean(axis=0)) <= 1e-6 * np.linalg.norm(x)


def unit_scale(x):
    return x / np.abs(x).max()


def both_padded(x, y):
    """Columns of zeros for the narrower one."""
    width = max(x.shape[1], y.shape[1])
    return tuple(np.pad(z, ((0, 0), (0, width - z.shape[1]))) for z in (x, y))


def span(x):
    """An orthonormal basis of the columns."""
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    return u[:, s > max(x.shape) * np.finfo(float).eps * s[0]]


def projector(x):
    u = span(x)
    return u @ u.T


def eigenspace_overlap_score(x, y):
    u, v = span(x), span(y)
    return np.sum((u.T @ v) ** 2) / max(u.shape[1], v.shape[1])


def leading(x, variance):
    u, s, _ = np.linalg.svd(centred(x), full_matrices=False)
    share = np.cumsum(s**2) / np.sum(s**2)
    return u[:, : np.argmax(share >= variance) + 1]


def svcca(x, y, variance):
    return np.linalg.svd(leading(x, variance).T @ leading(y, variance), compute_uv=False).mean()


def pwcca(x, y):
    if y.shape[1] < x.shape[1]:
        x, y = y, x
    n = len(x)
    x, y = centred(x), centred(y)
    u, v = span(x), span(y)
    if any(2 * basis.shape[1] >= n for basis in (u, v)):
        return np.nan
    left, correlations, _ = np.linalg.svd(u.T @ v, full_matrices=False)
    directions = u @ left
    weights = np.array([sum(abs(h @ column) for column in x.T) for h in directions.T])
    return np.sum(weights * correlations) / np.sum(weights)


def gulp(x, y):
    # With the projectors P = Xc (Xcᵀ Xc)⁺ Xcᵀ, the three traces are tr P, tr P' and tr P P'.
    p, q = projector(centred(x)), projector(centred(y))
    return np.trace(p) + np.trace(q) - 2 * np.trace(p @ q)


def linear_regression(x, y):
    x, y = centred(x), centred(y)
    predicted = projector(y) @ x
    return np.linalg.norm(predicted) ** 2 / np.linalg.norm(x) ** 2


def nuclear_norm(x):
    return np.linalg.svd(x, compute_uv=False).sum()


def normalized(x):
    x = centred(x)
    return x / np.linalg.norm(x)


def procrustes(x, y):
    """min_Q ‖X Q - Y‖ from the best Q itself."""
    x, y = both_padded(x, y)
    u, _, vt = np.linalg.svd(x.T @ y)
    return np.linalg.norm(x @ u @ vt - y)


def orthogonal_procrustes_centered_and_normalized(x, y):
    return procrustes(normalized(x), normalized(y))


def procrustes_size_and_shape_distance(x, y):
    size = max(np.abs(x).max(), np.abs(y).max())
    return size * procrustes(centred(x / size), centred(y / size))


def orthogonal_angular_shape_metric_centered(x, y):
    cosine = nuclear_norm(normalized(x).T @ normalized(y))
    if cosine < 0.999:
        return np.arccos(cosine)
    return 2 * np.arcsin(procrustes(normalized(x), normalized(y)) / 2)


def aligned_cosine_similarity(x, y):
    x, y = both_padded(x, y)
    u, _, vt = np.linalg.svd(x.T @ y)
    cosines = [
        a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(x @ u @ vt, y) if a.any() and b.any()
    ]
    return np.mean(cosines) if cosines else np.nan


def best_permutation(profits):
    """The columns to match the rows of a square matrix with: better ones are found by cycles of exchanges."""
    size = len(profits)
    columns = np.arange(size)
    while True:
        # What changes if row i takes the column of row k: a cycle of exchanges that gains is a better matching.
        gains = profits[:, columns] - profits[np.arange(size), columns][:, None]
        cycle = gaining_cycle(gains, 1e-12 * np.abs(profits).max())
        if cycle is None:
            return columns
        taken = columns.copy()
        for i, k in zip(cycle, cycle[1:] + cycle[:1]):
            columns[i] = taken[k]


def gaining_cycle(gains, least):
    """A cycle of positive length along which the sum of `gains` is positive, by Bellman and Ford."""
    size = len(gains)
    longest = np.zeros(size)
    before = np.full(size, -1)
    for _ in range(size):
        through = longest[:, None] + gains
        best = through.argmax(axis=0)
        better = through[best, np.arange(size)] > longest + least
        if not better.any():
            return None
        longest[better] = through[best, np.arange(size)][better]
        before[better] = best[better]
        cycle = cycle_of(before)
        if cycle is not None:
            return cycle
    return None


def cycle_of(before):
    state = np.zeros(len(before), dtype=int)
    for start in range(len(before)):
        place, path = start, []
        while place >= 0 and state[place] == 0:
            state[place] = 1
            path.append(place)
            place = before[place]
        if place >= 0 and state[place] == 1:
            return path[path.index(place) :][::-1]
        state[path] = 2
    return None


def permutation_procrustes(x, y):
    size = max(np.abs(x).max(), np.abs(y).max())
    a, b = both_padded(unit_scale(x), unit_scale(y))
    columns = best_permutation(a.T @ b)
    x, y = both_padded(x / size, y / size)
    return size * np.linalg.norm(x - y[:, columns])


def correlations(x, y):
    """Of every column of x with every column of y; 0 where one of them is constant."""

    def standard(x):
        peaks = np.abs(centred(x)).max(axis=0)
        constant = peaks <= 1e-6 * np.abs(x).max(axis=0)
        columns = centred(x)[:, ~constant]
        out = np.zeros_like(x)
        out[:, ~constant] = columns / np.linalg.norm(columns, axis=0)
        return out

    return standard(unit_scale(x)).T @ standard(unit_scale(y))


def hard_correlation_match(x, y):
    table = correlations(x, y)
    rows, columns = table.shape
    square = np.zeros((max(rows, columns),) * 2)
    square[:rows, :columns] = table
    matched = best_permutation(square)
    return square[np.arange(len(square)), matched].sum() / min(rows, columns)


def soft_correlation_match(x, y):
    table = correlations(x, y)
    return (table.max(axis=1).mean() + table.max(axis=0).mean()) / 2


def unless_constant(compare):
    def compared(x, y, **parameters):
        return np.nan if constant(x) or constant(y) else compare(x, y, **parameters)

    return compared


METRICS = {
    name: unless_constant(compare)
    for name, compare in {
        "EigenspaceOverlapScore": eigenspace_overlap_score,
        "SVCCA": svcca,
        "PWCCA": pwcca,
        "Gulp": gulp,
        "LinearRegression": linear_regression,
        "OrthogonalProcrustesCenteredAndNormalized": orthogonal_procrustes_centered_and_normalized,
        "ProcrustesSizeAndShapeDistance": procrustes_size_and_shape_distance,
        "OrthogonalAngularShapeMetricCentered": orthogonal_angular_shape_metric_centered,
        "AlignedCosineSimilarity": aligned_cosine_similarity,
        "PermutationProcrustes": permutation_procrustes,
        "HardCorrelationMatch": hard_correlation_match,
        "SoftCorrelationMatch": soft_correlation_match,
    }.items()
}
