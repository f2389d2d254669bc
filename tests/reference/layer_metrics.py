"""Quantities of one layer: x is float64 [n, d]."""

import numpy as np

METRICS = {}


def layer_metric(name):
    def register(function):
        METRICS[name] = function
        return function

    return register


def scaled(x):
    return x / np.abs(x).max() if x.any() else x


def unit_rows(x):
    """Rows of unit norm; zero rows are left out."""
    norms = np.linalg.norm(scaled(x), axis=1)
    kept = norms >= 10 * np.finfo(float).eps
    return scaled(x)[kept] / norms[kept, None]


def entropy(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


@layer_metric("EffectiveRank")
def effective_rank(x):
    if not x.any():
        return np.nan
    values = np.linalg.svd(scaled(x), compute_uv=False)
    return np.exp(entropy(values / values.sum()))


@layer_metric("DatasetEntropy")
def dataset_entropy(x):
    if not x.any():
        return np.nan
    rows = unit_rows(x)
    return entropy(np.linalg.eigvalsh(rows @ rows.T / len(rows)))


@layer_metric("Anisotropy")
def anisotropy(x):
    if not x.any():
        return np.nan
    rows, n = unit_rows(x), len(x)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, 0)
    return cosines.sum() / (n * (n - 1))


@layer_metric("IntrinsicDimension")
def intrinsic_dimension(x):
    rows = np.unique(scaled(x), axis=0)
    if np.linalg.norm(scaled(x) - scaled(x).mean(axis=0)) <= 1e-6 * np.linalg.norm(scaled(x)):
        return np.nan
    ratios = []
    for i, row in enumerate(rows):
        distances = np.sqrt(((np.delete(rows, i, axis=0) - row) ** 2).sum(axis=1))
        first, second = np.sort(distances)[:2]
        ratios.append(second / first)
    return len(rows) / np.log(ratios).sum()


def norms(x):
    top = np.abs(x).max() if x.any() else 1
    return np.linalg.norm(x / top, axis=1) * top


@layer_metric("NormMean")
def norm_mean(x):
    return norms(x).mean()


@layer_metric("NormStd")
def norm_std(x):
    # Of norms near 1, because their squares are taken.
    top = norms(x).max() or 1
    return (norms(x) / top).std() * top


@layer_metric("NormMin")
def norm_min(x):
    return norms(x).min()


@layer_metric("NormMax")
def norm_max(x):
    return norms(x).max()
