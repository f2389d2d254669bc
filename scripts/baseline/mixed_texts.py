#!/usr/bin/env python3
"""Writes 2,000 texts of mixed length: half single sentences, half documents of a log-normal number of words.

    mixed_texts.py OUT.txt SENTENCES.txt...

Documents are neighbouring sentences of one file joined by spaces. The order is shuffled, so that a batch taken in arrival
order holds short and long texts together, as real collections do. The same input gives the same output.
"""
import math
import pathlib
import random
import sys

N_TEXTS = 2000
# Words of a document: half have fewer than 90 (some 120 tokens), one in eight more than the 256 tokens kept.
MEDIAN_WORDS, SIGMA = 90, 0.7


def document(sentences, rng):
    """Sentences from a random place on, until a log-normal number of words is reached."""
    wanted = MEDIAN_WORDS * math.exp(rng.gauss(0, SIGMA))
    place, parts, words = rng.randrange(len(sentences)), [], 0
    while words < wanted:
        sentence = sentences[place % len(sentences)]
        parts.append(sentence)
        words += len(sentence.split())
        place += 1
    return " ".join(parts)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    rng = random.Random(42)
    files = [pathlib.Path(path).read_text(encoding="utf-8").splitlines() for path in sys.argv[2:]]
    texts = []
    for i in range(N_TEXTS):
        sentences = files[i // 2 % len(files)]
        texts.append(rng.choice(sentences) if i % 2 == 0 else document(sentences, rng))
    rng.shuffle(texts)
    pathlib.Path(sys.argv[1]).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


if __name__ == "__main__":
    main()
