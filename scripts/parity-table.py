#!/usr/bin/env python3
"""Writes docs/parity.md: every tiny model against the Python library, as `lsa-worker verify-model` sees it.

    scripts/parity-table.py [WORKER]        default: target/release/lsa-worker
"""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests/fixtures/models"
HEAD = """# Parity with the Python library

Every tiny model under `tests/fixtures/models` against what transformers gives for it at batch size 1 in float32, over all
layers and poolings: the largest relative Frobenius error of a layer, and where it is. Made by `scripts/parity-table.py`,
which runs `lsa-worker verify-model` on a CPU.

| model | `model_type` | layers | float32 | where | float16 | bfloat16 |
| --- | --- | --- | --- | --- | --- | --- |
"""


def worst(worker, folder, dtype):
    command = [worker, "verify-model", folder, "--golden", folder / "golden.safetensors", "--dtype", dtype,
               "--device", "cpu", "--tolerance", "1", "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return report, max(report["layers"], key=lambda layer: layer["relative"])


def row(worker, folder):
    report, single = worst(worker, folder, "float32")
    # A graph computes in the dtype in which it was exported.
    exported = (folder / "hidden_states.pt").exists()
    halves = ["–" if exported else f"{worst(worker, folder, dtype)[1]['relative']:.1e}"
              for dtype in ("float16", "bfloat16")]
    n_layers = 1 + max(layer["layer"] for layer in report["layers"])
    where = f"{single['pooling']}, layer {single['layer']}"
    cells = [f"`{folder.relative_to(MODELS)}`", report["model_type"], str(n_layers),
             f"{single['relative']:.1e}", where, *halves]
    return "| " + " | ".join(cells) + " |\n"


def main():
    worker = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/release/lsa-worker"
    folders = sorted(path.parent for path in MODELS.glob("*/*/golden.safetensors"))
    (ROOT / "docs/parity.md").write_text(HEAD + "".join(row(worker, folder) for folder in folders))


if __name__ == "__main__":
    main()
