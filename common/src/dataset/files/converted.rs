//! The branch onto which the hub converts what it can load: a Parquet copy of each split.
//!
//! It follows `main` and not the commit that was asked for, so that it is a last resort and always said.

use std::collections::HashMap;

use super::contents::{Config, Split, sort};
use crate::dataset::format::kind_of;
use crate::hub::HubFile;

/// The branch.
pub(super) const REVISION: &str = "refs/convert/parquet";

/// Configs and splits by `{config}/{split}/NNNN.parquet`; `partial-{split}` is the beginning of a large one.
pub(super) fn configs(files: &[HubFile]) -> Vec<Config> {
    let mut configs: Vec<Config> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for file in files.iter().filter(|file| kind_of(&file.path).is_some()) {
        let parts: Vec<&str> = file.path.split('/').collect();
        let [name, split, _] = parts[..] else { continue };
        let (split, is_partial) = match split.strip_prefix("partial-") {
            Some(split) => (split, true),
            None => (split, false),
        };
        let idx = *known.entry(name).or_insert_with(|| {
            configs.push(Config { name: name.to_owned(), is_default: false, splits: Vec::new() });
            configs.len() - 1
        });
        let splits = &mut configs[idx].splits;
        match splits.iter_mut().find(|known| known.name == split && known.is_partial == is_partial) {
            Some(known) => known.files.push(file.clone()),
            None => splits.push(Split { name: split.to_owned(), files: vec![file.clone()], is_partial }),
        }
    }
    for split in configs.iter_mut().flat_map(|config| &mut config.splits) {
        sort(&mut split.files);
    }
    configs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::files::fake::files;

    #[test]
    fn configs_splits_and_beginnings() {
        let paths = [
            "README.md",
            "de/test/0000.parquet",
            "default/partial-train/0001.parquet",
            "default/test/0.txt",
            "x.parquet",
        ];
        let configs = configs(&files(&paths));
        let shown: Vec<(&str, &str, bool)> = configs
            .iter()
            .flat_map(|config| {
                config.splits.iter().map(|s| (config.name.as_str(), s.name.as_str(), s.is_partial))
            })
            .collect();
        assert_eq!(shown, [("de", "test", false), ("default", "train", true), ("default", "test", false)]);
    }
}
