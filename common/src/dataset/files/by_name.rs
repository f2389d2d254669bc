//! Files whose repository does not say what they are: folders are configs, words in names are splits.

use super::contents::{Config, DEFAULT, Split, sort};
use super::split;
use crate::dataset::Format;
use crate::dataset::format::kind_of;
use crate::hub::HubFile;

/// Files that describe a repository and bear the ending of data.
const NO_DATA: [&str; 10] = [
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "metadata.json",
    "requirements.txt",
    "license.txt",
    "readme.txt",
    "robots.txt",
];

/// The formats from the one that is read first, where a split is stored in several.
const PREFERRED: [Format; 6] =
    [Format::Parquet, Format::Jsonl, Format::Json, Format::Csv, Format::Tsv, Format::Text];

/// Configs by folder: `en/test.jsonl` is split `test` of config `en`. A folder called `data`, or like a split, is
/// none.
pub(super) fn by_folder(files: &[HubFile]) -> Vec<Config> {
    grouped(files, |place| {
        Some(if place.folder.is_empty() { DEFAULT.to_owned() } else { place.folder.clone() })
    })
}

/// Configs by what stands in a file's name besides its split: `corpus.jsonl` is config `corpus`, `fr/queries.jsonl` is
/// `fr-queries`, `test/en.jsonl` is split `test` of `en`.
pub(super) fn by_stem(files: &[HubFile]) -> Vec<Config> {
    grouped(files, |place| match (place.folder.as_str(), place.rest.as_str()) {
        (_, "") => None,
        ("", rest) => Some(rest.to_owned()),
        (folder, rest) => Some(format!("{folder}-{rest}")),
    })
}

/// The splits of the files under a folder, `""` for all of them.
pub(super) fn splits_under(files: &[HubFile], folder: &str) -> Vec<Split> {
    let folder = folder.trim_matches('/');
    let inside = |file: &&HubFile| {
        folder.is_empty() || file.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    };
    let start = if folder.is_empty() { 0 } else { folder.len() + 1 };
    let places = files.iter().filter(inside).filter_map(|file| Place::of(&file.path[start..], file));
    splits(places.collect())
}

fn grouped(files: &[HubFile], name: impl Fn(&Place<'_>) -> Option<String>) -> Vec<Config> {
    let mut groups: Vec<(String, Vec<Place<'_>>)> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for place in files.iter().filter_map(|file| Place::of(&file.path, file)) {
        let Some(name) = name(&place) else { continue };
        let idx = *known.entry(name.clone()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[idx].1.push(place);
    }
    let config = |(name, places)| Config { name, is_default: false, splits: splits(places) };
    groups.into_iter().map(config).collect()
}

/// What a file's path says of it.
struct Place<'f> {
    file: &'f HubFile,
    /// The folders that are neither `data` nor a split.
    folder: String,
    /// What stands in its name besides the split, shard numbers and endings.
    rest: String,
    split: Option<&'static str>,
}

impl<'f> Place<'f> {
    /// Nothing for files that hold no data.
    fn of(path: &str, file: &'f HubFile) -> Option<Self> {
        let (format, compression) = kind_of(path)?;
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_hidden = |part: &str| part.starts_with('.') || part.starts_with("__");
        if path.split('/').any(is_hidden) || NO_DATA.contains(&name.to_ascii_lowercase().as_str()) {
            return None;
        }
        let stem = &name[..name.len() - format.ending().len() - compression.ending().len()];
        let stem = without_shard(stem);
        let folders: Vec<&str> = folders.split('/').filter(|folder| !folder.is_empty()).collect();
        let in_folder = folders.iter().rev().find_map(|folder| split::whole_word(folder));
        let split = split::word(stem);
        let is_config = |(idx, folder): &(usize, &&str)| {
            split::whole_word(folder).is_none() && !(*idx == 0 && **folder == "data")
        };
        let folder: Vec<&str> =
            folders.iter().enumerate().filter(is_config).map(|(_, folder)| *folder).collect();
        Some(Self {
            file,
            folder: folder.join("/"),
            rest: split.map_or(stem, |word| without_word(stem, word)).to_owned(),
            split: split.or(in_folder),
        })
    }
}

/// `train` for `train-00000-of-00001`; files that are numbers alone keep nothing.
fn without_shard(stem: &str) -> &str {
    let trim = |text| str::trim_end_matches(text, |c: char| c.is_ascii_digit());
    let of = trim(stem).strip_suffix("of-").or_else(|| trim(stem).strip_suffix("of_"));
    let counted = of.and_then(|rest| rest.strip_suffix(['-', '_'])).map(trim);
    let rest = counted.unwrap_or(if trim(stem).is_empty() { "" } else { stem });
    if rest == stem { stem } else { rest.trim_end_matches(['-', '_', '.']) }
}

/// `en` for `en-train` and `train_en`; `a-train-b` stays.
fn without_word<'t>(stem: &'t str, word: &str) -> &'t str {
    let is_mark = |c: char| "-_. ".contains(c);
    // Words are ASCII, and so their length is that of what they were found as.
    let head = stem.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word));
    if head.is_some() {
        let rest = &stem[word.len()..];
        if rest.is_empty() || rest.starts_with(is_mark) {
            return rest.trim_start_matches(is_mark);
        }
    }
    let start = stem.len().saturating_sub(word.len());
    let tail = stem.get(start..).filter(|tail| tail.eq_ignore_ascii_case(word));
    match tail {
        Some(_) if stem[..start].ends_with(is_mark) => stem[..start].trim_end_matches(is_mark),
        _ => stem,
    }
}

/// Splits by the words in the files' names. Where some files have one, those without are no data; where none has, all
/// are `train`.
fn splits(places: Vec<Place<'_>>) -> Vec<Split> {
    let any_word = places.iter().any(|place| place.split.is_some());
    let mut splits: Vec<Split> = Vec::new();
    for place in places {
        let name = match place.split {
            Some(word) => word,
            None if any_word => continue,
            None => "train",
        };
        match splits.iter_mut().find(|split| split.name == name) {
            Some(split) => split.files.push(place.file.clone()),
            None => splits.push(Split {
                name: name.to_owned(),
                files: vec![place.file.clone()],
                is_partial: false,
            }),
        }
    }
    for split in &mut splits {
        keep_one_format(&mut split.files);
        sort(&mut split.files);
    }
    splits
}

/// Keeps the format of most files: the same rows are often stored in several.
fn keep_one_format(files: &mut Vec<HubFile>) {
    let format = |file: &HubFile| kind_of(&file.path).map(|(format, _)| format);
    let count = |wanted: Format| files.iter().filter(|file| format(file) == Some(wanted)).count();
    // Of several that are the most frequent, `max_by_key` gives the last.
    let Some(kept) = PREFERRED.into_iter().rev().max_by_key(|format| count(*format)) else { return };
    files.retain(|file| format(file) == Some(kept));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::files::fake::files;

    /// `config/split: path path` a line, sorted by config.
    fn shown(configs: &[Config]) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for config in configs {
            for split in &config.splits {
                let paths: Vec<&str> = split.files.iter().map(|file| file.path.as_str()).collect();
                lines.push(format!("{}/{}: {}", config.name, split.name, paths.join(" ")));
            }
        }
        lines.sort();
        lines
    }

    #[test]
    fn configs_by_folder() {
        let check =
            |paths: &[&str], expected: &[&str]| assert_eq!(shown(&by_folder(&files(paths))), expected);
        check(
            &[
                "train.jsonl",
                "test.jsonl",
                "prepare_data.py",
                "README.md",
                ".gitattributes",
                "dataset_infos.json",
            ],
            &["default/test: test.jsonl", "default/train: train.jsonl"],
        );
        check(&["test.jsonl.gz"], &["default/test: test.jsonl.gz"]);
        check(
            &[
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
            ],
            &[
                "default/test: data/test-00000-of-00001.parquet",
                "default/train: data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
            ],
        );
        check(
            &["en/train.jsonl", "en/test.jsonl", "de/test.jsonl", "data/fr/val/0.csv"],
            &[
                "de/test: de/test.jsonl",
                "en/test: en/test.jsonl",
                "en/train: en/train.jsonl",
                "fr/val: data/fr/val/0.csv",
            ],
        );
        check(
            &["train/10.txt", "train/9.txt", "test/1.txt"],
            &["default/test: test/1.txt", "default/train: train/9.txt train/10.txt"],
        );
        check(&["a.csv", "b.csv"], &["default/train: a.csv b.csv"]);
        check(&["train.csv", "labels.csv"], &["default/train: train.csv"]);
        check(
            &["train.csv", "train.parquet", "test.csv"],
            &["default/test: test.csv", "default/train: train.parquet"],
        );
        check(&["imdb.py", "README.md", "x.zip", ".cache/train.csv", "__x/train.csv"], &[]);
        check(&[], &[]);
    }

    #[test]
    fn configs_by_stem() {
        let check = |paths: &[&str], expected: &[&str]| assert_eq!(shown(&by_stem(&files(paths))), expected);
        check(
            &["corpus.jsonl.gz", "queries.jsonl.gz", "qrels/test.tsv"],
            &["corpus/train: corpus.jsonl.gz", "queries/train: queries.jsonl.gz"],
        );
        check(&["fr/corpus-00000-of-00001.parquet"], &["fr-corpus/train: fr/corpus-00000-of-00001.parquet"]);
        check(
            &["test/ara-eng.jsonl", "test-deu-eng.jsonl", "fra-eng_test.jsonl", "0000.parquet", "test.csv"],
            &[
                "ara-eng/test: test/ara-eng.jsonl",
                "deu-eng/test: test-deu-eng.jsonl",
                "fra-eng/test: fra-eng_test.jsonl",
            ],
        );
    }

    #[test]
    fn folders_of_a_config() {
        let files = files(&["a/train.csv", "a/x/test.csv", "ab/train.csv", "train.csv"]);
        let names = |folder: &str| {
            let splits = splits_under(&files, folder);
            splits.iter().map(|split| format!("{} {}", split.name, split.files.len())).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["train 1", "test 1"]);
        assert_eq!(names("/a/"), ["train 1", "test 1"]);
        assert_eq!(names(""), ["train 3", "test 1"]);
        assert!(names("b").is_empty());
    }

    #[test]
    fn odd_names() {
        for path in
            ["é.csv", "trainé.csv", "é-train.csv", "-of-.csv", "0-of-0.csv", "of-1.csv", "/.csv", "a//b.csv"]
        {
            by_folder(&files(&[path]));
            by_stem(&files(&[path]));
        }
        assert_eq!(without_shard("train-00000-of-00001"), "train");
        assert_eq!(without_shard("c4-train.00000-of-01024"), "c4-train");
        assert_eq!(without_shard("0000"), "");
        assert_eq!(without_shard("v2"), "v2");
    }
}
