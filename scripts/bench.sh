#!/usr/bin/env bash
# `lsa-worker embed` beside the usual Python loop: the same 2,000 texts, model, length and two threads, in turns.
# Ours is timed as a whole process, the Python loop without its start (scripts/baseline/python_loop.py).
#
#   BASELINE_PYTHON   a Python that has torch and transformers; else an environment is made in .test-venvs/baseline
#   ROUNDS            how many turns each takes (default: 3)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

threads=2
max_length=256
rounds=${ROUNDS:-3}
input=.demo-input/mixed_2000.txt
model=.demo-input/all-MiniLM-L6-v2

baseline_python() {
    local env=.test-venvs/baseline set="torch==2.11.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6"
    python=${BASELINE_PYTHON:-$env/bin/python}
    if [ -z "${BASELINE_PYTHON:-}" ] && [ "$(cat $env/.complete 2>/dev/null)" != "$set" ]; then
        say "installing $set with all they need into $env (about 2.5 GB to download, 5 GB on disk)"
        rm -rf "$env"
        "${PYTHON:-python3}" -m venv "$env"
        # shellcheck disable=SC2086
        "$env/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off $set
        printf '%s\n' "$set" >"$env/.complete"
    fi
}

scripts/setup.sh
export_libtorch
baseline_python
cargo build --release --locked -p lsa-worker
"$venv/bin/python" scripts/demo-input.py
"$venv/bin/python" scripts/baseline/mixed_texts.py "$input" .demo-input/movie_reviews.txt .demo-input/news_editorials.txt

worker=${CARGO_TARGET_DIR:-target}/release/lsa-worker
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMP_NUM_THREADS=$threads TOKENIZERS_PARALLELISM=true RAYON_NUM_THREADS=$threads HF_HUB_OFFLINE=1

# Both on the same two cores where the machine has more.
pin=()
if command -v taskset >/dev/null && [ "$(nproc)" -gt "$threads" ]; then pin=(taskset -c "0-$((threads - 1))"); fi

TIMEFORMAT='%R %U %S'
for round in $(seq "$rounds"); do
    { time "${pin[@]}" "$worker" embed --model "$model" --texts "$input" --pooling mean --max-length "$max_length" \
        --output "$scratch/ours.safetensors" >"$scratch/log" 2>&1; } 2>>"$scratch/ours" \
        || { cat "$scratch/log" >&2; fail "lsa-worker embed failed"; }
    "${pin[@]}" "$python" scripts/baseline/python_loop.py --model "$model" --texts "$input" --max-length "$max_length" \
        --threads "$threads" --compare "$scratch/ours.safetensors" >>"$scratch/python"
    say "round $round of $rounds: lsa-worker embed $(tail -n 1 "$scratch/ours" | cut -d' ' -f1) s, python $(tail -n 1 "$scratch/python")"
done

"$python" - "$scratch" "$threads" <<'REPORT'
import json, pathlib, statistics, sys
folder, threads = pathlib.Path(sys.argv[1]), sys.argv[2]
rows = [[float(x) for x in line.split()] for line in folder.joinpath("ours").read_text().splitlines()]
ours = [wall for wall, _, _ in rows]
runs = [json.loads(line) for line in folder.joinpath("python").read_text().splitlines()]
python = [run["seconds"] for run in runs]
tokens, texts = runs[0]["tokens"], runs[0]["texts"]
my_cpu = statistics.median(user + system for _, user, system in rows)
their_cpu = statistics.median(run["cpu_seconds"] for run in runs)
mine, theirs = statistics.median(ours), statistics.median(python)


def line(name, wall, cpu, walls):
    print(f"  {name:32} {wall:7.2f} s ({min(walls):.2f} to {max(walls):.2f}) {cpu:7.2f} CPU-s {tokens / wall:8.0f} tokens/s")


print(f"\n{texts} texts, {tokens} tokens, {threads} threads, medians of {len(ours)}:")
line("lsa-worker embed, whole process", mine, my_cpu, ours)
line("Python loop, without its start", theirs, their_cpu, python)
print(f"  {theirs / mine:.2f} times as fast; largest difference of a layer {max(run['difference'] for run in runs):.1e}")
REPORT
