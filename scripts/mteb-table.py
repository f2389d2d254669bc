#!/usr/bin/env python3
"""Write the table of MTEB tasks, common/src/dataset/mteb_tasks.tsv, from an installed `mteb` package.

To renew the table for another version of mteb:

    python3 -m venv /tmp/mteb
    /tmp/mteb/bin/pip install --no-deps mteb==2.26.24
    /tmp/mteb/bin/pip install datasets numpy pandas polars pydantic pytrec-eval-terrier requests rich scikit-learn scipy
    /tmp/mteb/bin/python scripts/mteb-table.py > common/src/dataset/mteb_tasks.tsv
    nice cargo test --release -p lsa-common --lib dataset::catalogue

Only the metadata of the tasks is read: nothing is asked of a network, no dataset is opened, and torch and its
companions are replaced by stand-ins where they are not installed. The same version gives the same bytes.

The first line names the version, the second the columns. An empty cell is `-`, a list is joined by commas:

    name, type      as MTEB spells them
    path, revision  the repository on the hub and the commit that MTEB pins
    config          the config that the task always takes
    eval_splits     the splits that MTEB evaluates
    train_split     the split that classifiers are fitted on
    known_rows      split=rows out of the statistics shipped with mteb
    n_subsets       how many subsets (configs on the hub) there are
    subsets         their names; of more than SUBSETS_MAX the first ones, and `...` as the last
    layout          columns: texts in columns; retrieval: configs for corpus and queries; bitext-parallel: a column per
                    language; none: no dataset of its own
    text_columns    columns that hold texts, as they are called in the repository; `?` where that cannot be told
    loader          how the task makes its texts of what is stored: plain, rename, subsample, transform (more than
                    that), custom (loads by code of its own), aggregate (of other tasks)
    modalities      text, image, audio, video
    languages       all of them, as language-script
    superseded_by   the task that MTEB recommends in its place
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import sys
import textwrap
import types
import warnings

# All but half a dozen tasks have fewer; those have up to 41,412.
SUBSETS_MAX = 256

HEAD = (
    "name", "type", "path", "revision", "config", "eval_splits", "train_split", "known_rows", "n_subsets", "subsets",
    "layout", "text_columns", "loader", "modalities", "languages", "superseded_by",
)  # fmt: skip

# Calls in `dataset_transform` that leave texts as they are stored, but for their columns' names or their number.
RENAMING = {"rename_column", "rename_columns", "remove_columns", "select_columns"}
SUBSAMPLING = {"stratified_subsampling"}
# Calls that say nothing about what is done.
NEUTRAL = {"super", "dataset_transform", "keys", "len", "set", "list"}


class StandIn(types.ModuleType):
    """A module in which every name is an empty class, and which contains every submodule."""

    __version__ = "2.11.0"
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return StandInMeta(name, (StandInClass,), {})


class StandInMeta(type):
    """Classes of which every attribute is such a class again."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return StandInClass


class StandInClass(metaclass=StandInMeta):
    """What stands in for classes, functions and decorators."""

    def __init__(self, *args, **kwargs):
        pass

    def __class_getitem__(cls, item):
        return cls

    def __call__(self, *args, **kwargs):
        # As a decorator it must hand back what it decorates.
        return args[0] if args and callable(args[0]) else self


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stand-ins for the packages in `roots`."""

    def __init__(self, roots):
        self.roots = roots

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.roots:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def stand_in_for_missing():
    heavy = ("torch", "torchvision", "torchaudio", "sentence_transformers", "transformers")
    missing = {root for root in heavy if importlib.util.find_spec(root) is None}
    sys.meta_path.insert(0, StandInFinder(missing))


class Method:
    """What can be read off the source of `dataset_transform` or `load_data`."""

    def __init__(self, cls, name):
        owner = next(klass for klass in cls.__mro__ if name in vars(klass))
        self.is_own = owner.__module__.startswith("mteb.tasks")
        self.calls, self.stored_as, self.made, self.read, self.has_loop = set(), {}, set(), set(), False
        if self.is_own:
            self.study(ast.parse(textwrap.dedent(inspect.getsource(vars(owner)[name]))))

    def study(self, tree):
        for node in ast.walk(tree):
            match node:
                case ast.Call():
                    self.study_call(node)
                case ast.Dict(keys=keys, values=values):
                    for key, value in zip(map(literal, keys), values):
                        if isinstance(key, str):
                            self.study_entry(key, stored_column(value))
                # Alternatives among which the code looks for the column that is there.
                case ast.Tuple(elts=items) | ast.List(elts=items):
                    self.made.update(literal(item) for item in items if isinstance(literal(item), str))
                case ast.Subscript(slice=key) if isinstance(literal(key), str):
                    self.read.add(literal(key))
                case ast.For() | ast.While():
                    self.has_loop = True
        code = (ast.For, ast.While, ast.Assign, ast.ListComp, ast.DictComp)
        if not self.calls and any(isinstance(node, code) for node in ast.walk(tree)):
            self.calls.add("(code without calls)")

    def study_call(self, call):
        name = getattr(call.func, "attr", getattr(call.func, "id", "(computed)"))
        self.calls.add(name)
        values = [literal(value) for value in [*call.args, *(keyword.value for keyword in call.keywords)]]
        match name, values:
            case "rename_column", [str(old), str(new)]:
                self.stored_as[new] = old
            case "rename_columns", [dict(names), *_]:
                self.stored_as.update({new: old for old, new in names.items()})

    def study_entry(self, new, old):
        """`{"sentence1": rows["premise"]}` says where texts come from, `{"text": f"{title} {body}"}` does not."""
        if old is None:
            self.made.add(new)
        elif old != new:
            self.stored_as[new] = old

    def makes(self, column):
        """Whether the code writes this column and does not read it: then it is made of others."""
        return column in self.made and column not in self.read


def stored_column(node):
    """`premise` for `rows["premise"]` and `rows["premise"][0]`; nothing for a field of a field."""
    while isinstance(node, ast.Subscript) and isinstance(literal(node.slice), int):
        node = node.value
    if not isinstance(node, ast.Subscript) or not isinstance(literal(node.slice), str):
        return None
    inner = node.value
    nested = isinstance(inner, ast.Subscript) and isinstance(literal(inner.slice), str)
    return None if nested else literal(node.slice)


def literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def loader_of(transform, load, layout):
    # A method that loads the whole repository and nothing else does what is done for tasks without one.
    is_usual = load.calls == {"load_dataset"} and not load.has_loop and layout != "retrieval"
    if load.is_own and not is_usual:
        return "custom"
    calls = transform.calls - NEUTRAL
    if not calls:
        return "plain"
    if calls <= SUBSAMPLING:
        return "subsample"
    return "rename" if calls <= RENAMING | SUBSAMPLING else "transform"


def layout_of(task, bases):
    if getattr(task, "parallel_subsets", False):
        return "bitext-parallel"
    return "retrieval" if "AbsTaskRetrieval" in bases else "columns"


def columns_of(task, layout, loader, bases, transform, load):
    meta = task.metadata
    if layout == "retrieval":
        if "text" not in meta.modalities:
            return []
        return ["?"] if loader == "custom" else ["corpus.text", "queries.text"]
    if layout == "bitext-parallel":
        return ["*"]
    if "zeroshot" in meta.type.lower():
        return []  # what is called a text there are the classes' names, and those are in the code
    try:
        content = task._get_content_columns()
    except Exception:  # some tasks without texts describe their columns in other ways
        return []
    stored_as = {**transform.stored_as, **load.stored_as}
    wanted = [column for column, modality in content.items() if modality == "text"]
    if loader == "transform" and any(transform.makes(c) for c in wanted if c not in stored_as):
        return ["?"]
    columns = [stored_as.get(column, column) for column in wanted]
    if meta.type == "Summarization":
        lists = (task.human_summaries_column_name, task.machine_summaries_column_name)
        columns += [stored_as.get(column, column) + "[]" for column in lists]
    if "AbsTaskClusteringLegacy" in bases:
        columns = [column + "[]" for column in columns]  # a row holds a list of texts
    return columns


def row_of(task):
    meta, bases = task.metadata, {klass.__name__ for klass in type(task).__mro__}
    dataset = dict(meta.dataset or {})
    statistics = meta.descriptive_stats or {}
    subsets = [str(subset) for subset in meta.hf_subsets] if meta.is_multilingual else []
    languages = {language for codes in meta.hf_subsets_to_langscripts.values() for language in codes}
    row = {
        "name": meta.name,
        "type": meta.type,
        "path": dataset.get("path", ""),
        "revision": str(dataset.get("revision", "")).strip(),
        "config": dataset.get("name", ""),
        "eval_splits": list(meta.eval_splits or []),
        "train_split": getattr(task, "train_split", None) or "",
        "known_rows": [
            f"{split}={counts['num_samples']}"
            for split, counts in statistics.items()
            if isinstance(counts, dict) and "num_samples" in counts
        ],
        "n_subsets": str(max(1, len(subsets))),
        "subsets": subsets[:SUBSETS_MAX] + (["..."] if len(subsets) > SUBSETS_MAX else []),
        "layout": "none",
        "text_columns": [],
        "loader": "aggregate",
        "modalities": list(meta.modalities),
        "languages": sorted(languages),
        "superseded_by": getattr(meta, "superseded_by", None) or "",
    }
    if "AbsTaskAggregate" not in bases and row["path"] not in ("", "aggregate tasks"):
        transform, load = Method(type(task), "dataset_transform"), Method(type(task), "load_data")
        row["layout"] = layout_of(task, bases)
        row["loader"] = loader_of(transform, load, row["layout"])
        row["text_columns"] = columns_of(task, row["layout"], row["loader"], bases, transform, load)
    return row


def cell(value):
    items = value if isinstance(value, list) else [value]
    for item in items:
        forbidden = "\t\n," if isinstance(value, list) else "\t\n"
        if any(character in item for character in forbidden):
            raise ValueError(f"{item!r} cannot be written into the table")
    return ",".join(items) or "-"


def main():
    os.environ["HF_HUB_OFFLINE"] = "1"
    stand_in_for_missing()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import mteb

    tasks = mteb.get_tasks(exclude_superseded=False, exclude_beta=False, exclude_aggregate=False)
    rows = sorted((row_of(task) for task in tasks), key=lambda row: row["name"].lower())
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    print(f"# mteb {importlib.metadata.version('mteb')}")
    print("\t".join(HEAD))
    for row in rows:
        print("\t".join(cell(row[column]) for column in HEAD))


if __name__ == "__main__":
    main()
