#!/usr/bin/env python3
"""Traces a model of the Hugging Face library into a TorchScript file that gives its hidden states.

    export_hidden_states.py MODEL OUT [--dtype float32|bfloat16|float16] [--device cpu|cuda:0] [--max-length N]

MODEL is a folder or a name on the hub. README.md beside this file says what OUT holds and what is checked.
Needs torch and transformers; run it with the version of torch whose libtorch will load the file.
"""
import argparse
import hashlib
import json
import pathlib
import sys
import tempfile
import warnings

import torch
import transformers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# The traced graph runs the model's own operations, on a CPU bit by bit; on other devices the executor may fuse some of
# them and round once less. Relative Frobenius distance, per layer.
SAME_GRAPH = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}
# A text in a padded batch and the text alone: other matrix shapes, other order of sums.
PADDED = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}

TEXTS = [
    "One.",
    "The layers of two models are compared by what they say about the same texts.",
    "Быстрая лиса, naïve café, 日本語.",
    "Each block adds to what the block before it has left, so that most of a hidden state is older than its layer. " * 3,
]
# Longer texts than this are not tried, whatever the model's maximum.
LONGEST_TRIED = 600


class HiddenStates(torch.nn.Module):
    """ids and mask, int64 [texts, tokens], to one tensor [texts, tokens, width] for each layer."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        out = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, return_dict=True)
        return tuple(out.hidden_states)


def fail(message):
    raise SystemExit(f"export_hidden_states: {message}")


def load(name, dtype, device):
    """The model (of an encoder-decoder, its encoder) with trained weights only, and its configuration as published."""
    config = transformers.AutoConfig.from_pretrained(name)
    text_encoders = transformers.models.auto.modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    # T5 and its kin have a class for the encoder alone, which needs no decoder in the file.
    alone = text_encoders.get(config.model_type, "").endswith("EncoderModel")
    auto = transformers.AutoModelForTextEncoding if alone else transformers.AutoModel
    model, loading = auto.from_pretrained(name, dtype=dtype, output_loading_info=True)
    untrained = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
    if untrained:
        fail(f"the checkpoint lacks {untrained[:3]}, which would be random")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if model.config.model_type == "bloom":
        # A Python autograd function cannot be traced; this is what it computes.
        from transformers.models.bloom import modeling_bloom

        modeling_bloom.BloomGelu.forward = lambda self, x: modeling_bloom.bloom_gelu_forward(x)
    model.config.use_cache = False
    return model.eval().to(device), config


def max_length(model, tokenizer, asked):
    """The most tokens that a text may have; None if the model has no end."""
    limits = [asked] if asked else []
    if tokenizer.model_max_length < 10**9:
        limits.append(tokenizer.model_max_length)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and positions > 0:
        tables = [m for name, m in model.named_modules() if name.endswith("position_embeddings")]
        taken = max((t.padding_idx + 1 for t in tables if getattr(t, "padding_idx", None) is not None), default=0)
        limits.append(positions - taken)
    return min(limits, default=None)


def pad_id(tokenizer):
    """Any id will do, since the mask hides it; the tokenizer's own is the plainest."""
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id):
        if found is not None:
            return found
    return 0


def padded(rows, pad, device):
    """ids and mask of texts of different lengths, padded on the right."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def trace(wrapper, vocab, pad, device):
    gen = torch.Generator().manual_seed(0)
    lengths = (19, 11, 5)
    rows = [torch.randint(vocab, (length,), generator=gen).tolist() for length in lengths]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that may be constants in the trace: `check` finds out
        return torch.jit.trace(wrapper, padded(rows, pad, device), strict=False, check_trace=False)


def save(traced, path):
    """Without debug records, which hold this machine's paths; the same graph gives the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / "hidden_states.pt"
        torch.jit.save(traced, str(whole))
        reader = torch._C.PyTorchFileReader(str(whole))
        writer = torch._C.PyTorchFileWriter(str(path))
        for name in reader.get_all_records():
            if not name.endswith(".debug_pkl") and name not in ("version", ".data/serialization_id"):
                record = reader.get_record(name)
                writer.write_record(name, record, len(record))
        writer.write_end_of_file()


def distance(a, b):
    """Relative Frobenius distance of the worst layer."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x.double(), y.double()
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            return float("inf")
        worst = max(worst, ((x - y).norm() / y.norm().clamp_min(1e-12)).item())
    return worst


def check(path, wrapper, rows, vocab, pad, device, dtype):
    """Compares the file with the model; returns whether padding leaves a text's states alone."""
    loaded = torch.jit.load(str(path), map_location=device)
    batches = [rows, rows[:1], rows[1:3], [rows[-1]] * 2]
    for batch in batches:
        ids, mask = padded(batch, pad, device)
        want = wrapper(ids, mask)
        for attempt in range(3):  # the executor changes the graph after it has seen the first inputs
            far = distance(loaded(ids, mask), want)
            if far > SAME_GRAPH[dtype]:
                fail(f"the traced file is {far:.1e} from the model on {list(ids.shape)} tokens, in run {attempt + 1}")
    ids, mask = padded(rows, pad, device)
    together = loaded(ids, mask)
    far = 0.0
    for i, row in enumerate(rows):
        alone = loaded(*padded([row], pad, device))
        far = max(far, distance([t[i, : len(row)] for t in together], [t[0] for t in alone]))
    other = [[(row[0] + 1) % vocab, *row[1:]] for row in rows]
    if distance(loaded(*padded(other, pad, device)), together) <= SAME_GRAPH[dtype]:
        fail("another token changes nothing: the traced file does not read its input")
    return far <= PADDED[dtype]


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-length", type=int)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model, config = load(args.model, DTYPES[args.dtype], args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.out)
    if not (args.out / "tokenizer.json").is_file():
        fail("the tokenizer has no tokenizer.json: only those of the `tokenizers` library can be read")
    config.save_pretrained(args.out)

    wrapper, pad = HiddenStates(model).eval(), pad_id(tokenizer)
    vocab, most = model.get_input_embeddings().num_embeddings, max_length(model, tokenizer, args.max_length)
    tried = min(most or LONGEST_TRIED, LONGEST_TRIED)
    rows = [tokenizer(text, truncation=True, max_length=tried)["input_ids"] for text in TEXTS]
    path = args.out / "hidden_states.pt"
    save(trace(wrapper, vocab, pad, args.device), path)
    padding = check(path, wrapper, rows, vocab, pad, args.device, args.dtype)

    states = wrapper(*padded(rows[:1], pad, args.device))
    notes = {
        "format": 1,
        "model_type": model.config.model_type,
        "layers": len(states),
        "widths": [state.shape[-1] for state in states],
        "vocab_size": vocab,
        "max_length": most,
        "dtype": args.dtype,
        "device": args.device,
        "pad_id": pad,
        "padding": padding,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    (args.out / "hidden_states.json").write_text(json.dumps(notes, indent=1) + "\n")
    print(f"{args.out}: {notes['layers']} layers, {path.stat().st_size / 1e6:.1f} MB, equal to the model")
    if not padding:
        print("padding changes this model's states: batch texts of one length only", file=sys.stderr)


if __name__ == "__main__":
    main()
