"""The metrics from their definitions, in numpy and float64. Shares no code with the project, and is not fast.

Reads `<place>.npy` [n, d] for every layer and `wanted.json`, writes `<Metric>.npy` [layers, layers] or [layers].
"""

import json
import pathlib

import numpy as np

import layer_metrics
import pair_metrics
import row_metrics

METRICS = {**pair_metrics.METRICS, **row_metrics.METRICS}


def main(folder):
    folder = pathlib.Path(folder)
    wanted = json.loads((folder / "wanted.json").read_text())
    paths = sorted(folder.glob("*.npy"), key=lambda path: int(path.stem))
    layers = [np.load(path).astype(np.float64) for path in paths]
    for spec in wanted["metrics"]:
        parameters = {key: value for key, value in spec.items() if key != "name"}
        compare = METRICS[spec["name"]]
        save(folder, spec["name"], [[compare(a, b, **parameters) for b in layers] for a in layers])
    for name in wanted["layer_metrics"]:
        save(folder, name, [layer_metrics.METRICS[name](layer) for layer in layers])


def save(folder, name, values):
    np.save(folder / f"{name}.npy", np.array(values, dtype=np.float64))
