//! The configs that a repository declares in the YAML at the head of its `README.md`.
//!
//! `configs:` is a list of `{config_name, data_files, data_dir, default}`; `data_files` is a pattern, a list of patterns,
//! or a list of `{split, path}`, where a path is a pattern or a list of them.

use std::collections::{HashMap, HashSet};

use globset::GlobBuilder;

use super::by_name::splits_under;
use super::contents::{Config, DEFAULT, Split, sort};
use super::yaml::{self, Yaml};
use crate::dataset::format::kind_of;
use crate::hub::HubFile;

/// The most of a `README.md` that is read.
pub(super) const BYTES_MAX: u64 = 1 << 20;

/// The longest pattern in bytes, and the most patterns: each is compiled.
const PATTERN_BYTES_MAX: usize = 1024;
const PATTERNS_MAX: usize = 20_000;

/// The most looks at a path, and the most files in all configs together: some seconds and some 100 MB, many times what
/// the largest repositories need.
const LOOKS_MAX: usize = 10_000_000;
const FOUND_MAX: usize = 1_000_000;

/// The configs that `readme` declares, with those of `files` that they name; nothing where it declares none. A config
/// or split without a file that can be read is left out.
///
/// Fails, with the reason, where the YAML is at fault.
pub(super) fn configs(readme: &[u8], files: &[HubFile]) -> Result<Vec<Config>, String> {
    let readme = String::from_utf8_lossy(readme);
    let Some(front) = front_matter(&readme)? else { return Ok(Vec::new()) };
    let tree = yaml::parse(front)?;
    let Some(Yaml::List(declared)) = tree.get("configs") else { return Ok(Vec::new()) };
    let mut finder = Finder { files, n_patterns: 0, n_looks: 0, n_found: 0 };
    let mut configs: Vec<Config> = Vec::new();
    let mut names: HashSet<&str> = HashSet::new();
    for declared in declared {
        let name = declared.get("config_name").and_then(Yaml::text).unwrap_or(DEFAULT);
        let is_default = declared.get("default").and_then(Yaml::text) == Some("true");
        let folder = declared.get("data_dir").and_then(Yaml::text).unwrap_or_default();
        let splits = match declared.get("data_files") {
            Some(data_files) => finder.splits(data_files, folder)?,
            None => finder.splits_under(folder)?,
        };
        // The first of a name that holds anything counts.
        if !splits.is_empty() && names.insert(name) {
            configs.push(Config { name: name.to_owned(), is_default, splits });
        }
    }
    Ok(configs)
}

/// What stands between the first line, `---`, and the next such line.
fn front_matter(readme: &str) -> Result<Option<&str>, String> {
    let text = readme.strip_prefix('\u{FEFF}').unwrap_or(readme);
    let Some(first) = text.split_inclusive('\n').next().filter(|line| line.trim_end() == "---") else {
        return Ok(None);
    };
    let rest = &text[first.len()..];
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Ok(Some(&rest[..end]));
        }
        end += line.len();
    }
    Err(format!("its head does not end within {BYTES_MAX} bytes"))
}

/// Patterns → files.
struct Finder<'f> {
    files: &'f [HubFile],
    n_patterns: usize,
    n_looks: usize,
    n_found: usize,
}

impl<'f> Finder<'f> {
    fn splits(&mut self, data_files: &Yaml, folder: &str) -> Result<Vec<Split>, String> {
        let mut splits: Vec<Split> = Vec::new();
        for (name, patterns) in patterns(data_files) {
            let mut found: Vec<HubFile> = Vec::new();
            let mut known: HashSet<&str> = HashSet::new();
            for pattern in patterns {
                let mut files = self.matching(pattern, folder)?;
                files.retain(|file| known.insert(&file.path));
                self.count(0, files.len())?;
                let mut files: Vec<HubFile> = files.into_iter().cloned().collect();
                sort(&mut files);
                found.append(&mut files);
            }
            if !found.is_empty() {
                splits.push(Split { name: name.to_owned(), files: found, is_partial: false });
            }
        }
        Ok(splits)
    }

    /// The splits of a config that names no files, by the names of those under its folder.
    fn splits_under(&mut self, folder: &str) -> Result<Vec<Split>, String> {
        self.count(self.files.len(), 0)?;
        let splits = splits_under(self.files, inside(folder));
        self.count(0, splits.iter().map(|split| split.files.len()).sum())?;
        Ok(splits)
    }

    /// Adds to what the whole head may make this program do.
    fn count(&mut self, n_looks: usize, n_found: usize) -> Result<(), String> {
        self.n_looks += n_looks;
        self.n_found += n_found;
        if self.n_looks > LOOKS_MAX || self.n_found > FOUND_MAX {
            return Err("too many configs and patterns for so many files".to_owned());
        }
        Ok(())
    }

    /// The files with a known ending that match.
    fn matching(&mut self, pattern: &str, folder: &str) -> Result<Vec<&'f HubFile>, String> {
        self.n_patterns += 1;
        if self.n_patterns > PATTERNS_MAX || pattern.len() + folder.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "more than {PATTERNS_MAX} patterns, or one of more than {PATTERN_BYTES_MAX} bytes"
            ));
        }
        let pattern = match inside(folder) {
            "" => inside(pattern).to_owned(),
            folder => format!("{folder}/{}", inside(pattern)),
        };
        let fixed = &pattern[..pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len())];
        if fixed.len() == pattern.len() {
            let file = self.files.binary_search_by(|file| file.path.as_str().cmp(fixed));
            let file = file.ok().map(|idx| &self.files[idx]);
            return Ok(file.into_iter().filter(|file| kind_of(&file.path).is_some()).collect());
        }
        // Only files that begin as the pattern does can match, and files are sorted by path.
        let start = self.files.partition_point(|file| file.path.as_str() < fixed);
        let n_near = self.files[start..].partition_point(|file| file.path.starts_with(fixed));
        let near = &self.files[start..start + n_near];
        self.count(near.len(), 0)?;
        let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("the pattern {pattern:?} is malformed: {}", error.kind()))?;
        let matcher = glob.compile_matcher();
        let matches = |file: &&HubFile| kind_of(&file.path).is_some() && matcher.is_match(&file.path);
        Ok(near.iter().filter(matches).collect())
    }
}

/// A path as it stands in a listing, without marks of its start: `data` for `./data/`, nothing for `.`.
fn inside(path: &str) -> &str {
    let path = path.trim_start_matches("./").trim_matches('/');
    if path == "." { "" } else { path }
}

/// Splits, each once, with their patterns in the order in which they are written.
fn patterns(data_files: &Yaml) -> Vec<(&str, Vec<&str>)> {
    const NAMELESS: &str = "train";
    let entries: Vec<(&str, Vec<&str>)> = match data_files {
        Yaml::Map(entries) => entries.iter().map(|(split, path)| (split.as_str(), texts(path))).collect(),
        Yaml::List(items) => items
            .iter()
            .map(|item| match item.get("path") {
                Some(path) => (item.get("split").and_then(Yaml::text).unwrap_or(NAMELESS), texts(path)),
                None => (NAMELESS, texts(item)),
            })
            .collect(),
        Yaml::Text(_) | Yaml::Alias => vec![(NAMELESS, texts(data_files))],
    };
    let mut splits: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (split, mut patterns) in entries {
        let idx = *known.entry(split).or_insert_with(|| {
            splits.push((split, Vec::new()));
            splits.len() - 1
        });
        splits[idx].1.append(&mut patterns);
    }
    splits
}

fn texts(value: &Yaml) -> Vec<&str> {
    match value {
        Yaml::Text(text) => vec![text],
        Yaml::List(items) => items.iter().filter_map(Yaml::text).collect(),
        Yaml::Map(_) | Yaml::Alias => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::files::fake::files;

    const FILES: [&str; 12] = [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00003.parquet",
        "data/train-00001-of-00003.parquet",
        "data/train-00002-of-00003.parquet",
        "data/train.zip",
        "de/dev.jsonl.gz",
        "de/test.jsonl.gz",
        "en/10.csv",
        "en/9.csv",
        "en/sub/1.csv",
        "a[1].csv",
    ];

    fn read(yaml: &str) -> Result<Vec<String>, String> {
        let mut files = files(&FILES);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let configs = configs(format!("---\n{yaml}\n---\n# text\n").as_bytes(), &files)?;
        let mut lines = Vec::new();
        for config in configs {
            let mark = if config.is_default { "*" } else { "" };
            for split in config.splits {
                let paths: Vec<String> = split.files.into_iter().map(|file| file.path).collect();
                lines.push(format!("{}{mark}/{}: {}", config.name, split.name, paths.join(" ")));
            }
        }
        Ok(lines)
    }

    #[test]
    fn dialects() {
        let check = |yaml: &str, expected: &[&str]| assert_eq!(read(yaml).expect(yaml), expected, "{yaml}");
        let train = "data/train-00000-of-00003.parquet data/train-00001-of-00003.parquet \
                     data/train-00002-of-00003.parquet";
        check(
            "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  \
             - split: test\n    path: data/test-*",
            &[&format!("default/train: {train}"), "default/test: data/test-00000-of-00001.parquet"],
        );
        check("configs: [{data_files: data/train-*}]", &[&format!("default/train: {train}")]);
        check(
            "configs: [{data_files: './data/test-*.parquet'}]",
            &["default/train: data/test-00000-of-00001.parquet"],
        );
        check(
            "configs: [{config_name: en, data_files: [en/9.csv, en/*.csv]}]",
            &["en/train: en/9.csv en/10.csv"],
        );
        check(
            "configs: [{config_name: en, data_files: 'en/**'}]",
            &["en/train: en/9.csv en/10.csv en/sub/1.csv"],
        );
        check(
            "configs: [{config_name: de, default: true, data_files: [{split: dev, path: [de/dev.jsonl.gz]}]}]",
            &["de*/dev: de/dev.jsonl.gz"],
        );
        check("configs: [{config_name: de, data_files: {dev: de/dev*}}]", &["de/dev: de/dev.jsonl.gz"]);
        check(
            "configs: [{config_name: de, data_dir: de}]",
            &["de/dev: de/dev.jsonl.gz", "de/test: de/test.jsonl.gz"],
        );
        check(
            "configs: [{config_name: de, data_dir: de/, data_files: test*}]",
            &["de/train: de/test.jsonl.gz"],
        );
        check("configs: [{data_dir: ., data_files: ./en/9.csv}]", &["default/train: en/9.csv"]);
        check("configs: [{config_name: x, data_files: 'a[1].csv'}]", &[]);
        check("configs: [{config_name: x, data_files: 'a[[]1].csv'}]", &["x/train: a[1].csv"]);
        check(
            "configs: [{config_name: x, data_files: none.csv}, {config_name: y, data_files: en/9.csv}]",
            &["y/train: en/9.csv"],
        );
        check(
            "configs: [{config_name: x, data_files: en/9.csv}, {config_name: x, data_files: en/10.csv}]",
            &["x/train: en/9.csv"],
        );
        check("configs: [{config_name: x, data_files: 'https://x/y.csv'}]", &[]);
        check("configs: [{config_name: x, data_files: ../../etc/passwd.csv}]", &[]);
        let all = read("configs: [{}]").expect("valid");
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        check("configs: [text, [list], {config_name: [x]}]", &all);
        check("configs: x", &[]);
        check("language: [en]\ndataset_info: {features: []}", &[]);
        check("a: &a [{config_name: x, data_files: en/9.csv}]\nconfigs: *a", &[]);
    }

    #[test]
    fn heads_that_are_none_or_at_fault() {
        let check = |readme: &str, expected: Result<usize, &str>| match (
            configs(readme.as_bytes(), &files(&FILES)),
            expected,
        ) {
            (Ok(configs), Ok(n)) => assert_eq!(configs.len(), n, "{readme}"),
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{readme}: {said}"),
            (found, expected) => panic!("{readme}: {found:?} instead of {expected:?}"),
        };
        check("# Title\n---\nconfigs: []\n---\n", Ok(0));
        check("", Ok(0));
        check("---\n---\n", Ok(0));
        check("\u{FEFF}---\r\nconfigs: [{data_files: en/9.csv}]\r\n---\r\n", Ok(1));
        check("---\nconfigs: [\n---\n", Err("line"));
        check("---\nconfigs: []\n", Err("does not end"));
        check("---\nconfigs: [{data_files: 'en/[*.csv'}]\n---\n", Err("malformed"));
        let many = "- {data_dir: x}\n".repeat(60_000);
        check(&format!("---\nconfigs:\n{many}---\n"), Ok(0));
        check(&format!("---\nconfigs: [{{data_files: '{}*'}}]\n---\n", "x".repeat(2000)), Err("bytes"));
    }
    #[test]
    fn hostile_heads_end_soon() {
        let paths: Vec<String> = (0..20_000).map(|n| format!("{n:05}.csv")).collect();
        let files = files(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let entries = [
            "- {config_name: c#}",
            "- {config_name: c#, data_files: '*'}",
            "- {config_name: c#, data_files: [{split: a, path: ['**', '*[0-9]*[0-9]*[0-9]*[0-9]*']}]}",
            "- {config_name: c#, data_dir: '.', data_files: {a: '*#*', b: '{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}*'}}",
        ];
        for entry in entries {
            let declared: String = (0..8000).map(|n| entry.replace('#', &n.to_string()) + "\n").collect();
            let begin = std::time::Instant::now();
            let said = configs(format!("---\nconfigs:\n{declared}---\n").as_bytes(), &files);
            assert!(said.is_err(), "{entry}");
            assert!(begin.elapsed() < std::time::Duration::from_secs(30), "{entry}: {:?}", begin.elapsed());
        }
    }
}
