"""Metrics over pairs of rows: x and y are float64 [n, d]."""

import numpy as np

METRICS = {}


def metric(name):
    def register(function):
        METRICS[name] = function
        return function

    return register


def constant(x):
    """All rows are equal up to rounding: no metric says anything about such a layer."""
    x = x / np.abs(x).max() if x.any() else x
    return np.linalg.norm(x - x.mean(axis=0)) <= 1e-6 * np.linalg.norm(x)


def zero_rows(x):
    x = x / np.abs(x).max()
    return np.linalg.norm(x, axis=1) < 10 * np.finfo(float).eps


def euclidean(x):
    """One pair at a time: nothing cancels."""
    return np.array([np.sqrt(((x - row) ** 2).sum(axis=1)) for row in x])


def cosine(x):
    zero = zero_rows(x)
    unit = x / np.where(zero, 1, np.linalg.norm(x, axis=1))[:, None]
    unit[zero] = 0
    similarities = unit @ unit.T
    # Parallel rows are exactly parallel, whatever rounding says.
    parallel = np.abs(similarities) >= 1 - 1e-14
    similarities[parallel] = np.sign(similarities[parallel])
    return similarities


def similarities(x, inner):
    """What is larger for more similar rows."""
    x = x / np.abs(x).max()
    if inner == "euclidean":
        return -euclidean(x)
    return cosine(x) if inner == "cosine" else cosine(x - x.mean(axis=1, keepdims=True))


def distances(x, inner):
    if inner == "euclidean":
        return euclidean(x)
    result = 1 - similarities(x, inner)
    np.fill_diagonal(result, 0)
    return result


def nearest(x, k, inner):
    values = similarities(x, inner)
    np.fill_diagonal(values, -np.inf)
    return np.argsort(-values, axis=1, kind="stable")[:, :k]


def unbiased_hsic(k, l):
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    first = np.trace(k @ l)
    second = k.sum() * l.sum() / ((n - 1) * (n - 2))
    third = 2 * (k @ l).sum() / (n - 2)
    return (first + second - third) / (n * (n - 3))


@metric("MinibatchCKA")
def minibatch_cka(x, y, batch_size):
    if constant(x) or constant(y):
        return np.nan
    n_batches = max(len(x) // batch_size, 1)
    starts = [batch * batch_size for batch in range(n_batches)] + [len(x)]
    batches = [slice(start, end) for start, end in zip(starts, starts[1:])]
    # The estimator does not ask for centred rows, but float64 does where the mean is large.
    x, y = (rows / np.abs(rows).max() for rows in (x, y))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)

    def hsic(a, b):
        return sum(unbiased_hsic(a[batch] @ a[batch].T, b[batch] @ b[batch].T) for batch in batches)

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


@metric("RBFCKA")
def rbf_cka(x, y, sigma):
    if constant(x) or constant(y):
        return np.nan

    def centred(rows):
        d = euclidean(rows / np.abs(rows).max())
        median = np.median(d[np.triu_indices(len(d), 1)])
        if median == 0:
            return np.full_like(d, np.nan)
        kernel = np.exp(-(d**2) / (2 * sigma**2 * median**2))
        h = np.eye(len(d)) - 1 / len(d)
        return h @ kernel @ h

    k, l = centred(x), centred(y)
    return (k * l).sum() / (np.linalg.norm(k) * np.linalg.norm(l))


@metric("SecondOrderCosineSimilarity")
def second_order_cosine_similarity(x, y, k, inner):
    if constant(x) or constant(y):
        return np.nan
    near_x, near_y = nearest(x, k, inner), nearest(y, k, inner)
    x, y = distances(x / np.abs(x).max(), inner), distances(y / np.abs(y).max(), inner)
    total = 0.0
    for i in range(len(x)):
        union = np.union1d(near_x[i], near_y[i])
        a, b = x[i, union], y[i, union]
        if a.any() and b.any():
            total += a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        elif not a.any() and not b.any():
            total += 1
    return total / len(x)


@metric("RSMNormDifference")
def rsm_norm_difference(x, y, inner):
    if constant(x) or constant(y):
        return np.nan
    return np.linalg.norm(distances(x, inner) - distances(y, inner), 2)


@metric("UniformityDifference")
def uniformity_difference(x, y):
    if constant(x) or constant(y):
        return np.nan

    def uniformity(rows):
        return np.log(np.exp(-2 * euclidean(rows) ** 2).mean())

    return abs(uniformity(x) - uniformity(y))


@metric("MagnitudeDifference")
def magnitude_difference(x, y):
    if constant(x) or constant(y):
        return np.nan
    return abs(np.linalg.norm(x.mean(axis=0)) - np.linalg.norm(y.mean(axis=0)))


@metric("ConcentricityDifference")
def concentricity_difference(x, y):
    if constant(x) or constant(y):
        return np.nan

    def concentricity(rows):
        rows = rows / np.abs(rows).max()
        mean, zero = rows.mean(axis=0), zero_rows(rows)
        norms = np.where(zero, 1, np.linalg.norm(rows, axis=1)) * np.linalg.norm(mean)
        return np.where(zero, 0, rows @ mean / norms).mean()

    return abs(concentricity(x) - concentricity(y))
