#!/usr/bin/env python3
"""The usual Python loop, timed: batches in arrival order, padded to their longest text, every layer mean-pooled.

Prints one line of JSON. `seconds` (and `cpu_seconds`, over all threads) is the loop alone: starting Python and loading the model are not counted, so the
comparison with a whole run of another program favours this one. `tokens` counts what the model must read, pads left out.
With --compare FILE.safetensors the result is held against the tensor `mean` [layers, texts, width] of that file.
"""
import argparse
import json
import pathlib
import sys
import time

import torch
import transformers
from safetensors.torch import load_file

# Two float32 computations of one forward pass in another order; padding and batch shape move the last digits.
TOLERANCE = 2e-5


@torch.inference_mode()
def pool_all(model, tokenizer, texts, batch_size, max_length):
    """Mean-pooled hidden states [layers, texts, width], with the numbers of tokens and of padded positions."""
    batches, n_tokens, n_positions = [], 0, 0
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(
            texts[start : start + batch_size], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        states = model(**batch, output_hidden_states=True).hidden_states
        mask = batch["attention_mask"].unsqueeze(-1).float()
        batches.append(torch.stack([(h * mask).sum(1) / mask.sum(1) for h in states]))
        n_tokens += int(batch["attention_mask"].sum())
        n_positions += batch["attention_mask"].numel()
    return torch.cat(batches, dim=1), n_tokens, n_positions


def compare(ours, path):
    theirs = load_file(path)["mean"]
    if theirs.shape != ours.shape:
        sys.exit(f"python_loop: {path} holds {list(theirs.shape)}, expected {list(ours.shape)}")
    worst = max(float((a - b).norm() / a.norm()) for a, b in zip(ours.double(), theirs.double()))
    if not worst <= TOLERANCE:
        sys.exit(f"python_loop: {path} is {worst:.1e} away from the Python library, more than {TOLERANCE:.0e}")
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compare")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    texts = pathlib.Path(args.texts).read_text(encoding="utf-8").split("\n")[:-1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = transformers.AutoModel.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa").eval()

    start, cpu_start = time.perf_counter(), time.process_time()
    pooled, n_tokens, n_positions = pool_all(model, tokenizer, texts, args.batch_size, args.max_length)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    result = {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "tokens_per_s": round(n_tokens / seconds),
        "texts": len(texts),
        "tokens": n_tokens,
        "padding": round(1 - n_tokens / n_positions, 3),
    }
    if args.compare:
        result["difference"] = compare(pooled, args.compare)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
