//! Local files: the ones that a name or a pattern stands for.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::format::kind_of;
use super::{Columns, DatasetError, FileName, Place, ReadSettings, SourceFile, TextsPlan};

/// Files and folders that a pattern may make us look at.
const LOOKED_AT_MAX: usize = 1_000_000;

/// How deep `**` looks.
const DEPTH_MAX: usize = 64;

/// What is wanted of the files behind a `file:` name. Nothing of them is read but their sizes.
pub fn local_plan(name: &FileName, settings: ReadSettings) -> Result<TextsPlan, DatasetError> {
    let columns = name.column().map(|column| Columns { names: vec![column.to_owned()], joined: false });
    let files = local_files(&name.path().display().to_string())?
        .into_iter()
        .map(|path| local_file(&path, columns.clone()))
        .collect::<Result<Vec<SourceFile>, _>>()?;
    Ok(TextsPlan::new(name.to_string(), files, settings))
}

/// The files that `pattern` stands for, sorted bytewise: the one of that name, or those that match it.
///
/// `*` and `?` stand for what is inside one name, `**` for folders, `[ab]` and `{a,b}` for one of several. Folders are
/// passed over; a link to a folder is not followed. Where nothing matches, that is an error; whether a file can be
/// read, the caller sees.
pub fn local_files(pattern: &str) -> Result<Vec<PathBuf>, DatasetError> {
    let path = Path::new(pattern);
    let is_pattern = |text: &str| text.contains(['*', '?', '[', '{']);
    // A file may have such a name.
    if !is_pattern(pattern) || fs::symlink_metadata(path).is_ok() {
        return Ok(vec![path.to_owned()]);
    }
    let parts: Vec<Component<'_>> = path.components().collect();
    // As the paths that are found are written: without doubled slashes and the like.
    let plain: PathBuf = parts.iter().collect();
    let glob = GlobBuilder::new(&plain.display().to_string()).literal_separator(true).build();
    let glob = glob.map_err(|error| DatasetError::BadPattern {
        pattern: pattern.to_owned(),
        reason: error.kind().to_string(),
    })?;
    let n_plain = parts.iter().take_while(|part| !is_pattern(&part.as_os_str().to_string_lossy())).count();
    let root: PathBuf = parts[..n_plain].iter().collect();
    let depth_max = if pattern.contains("**") { DEPTH_MAX } else { parts.len() - n_plain };
    let mut walk = Walk { pattern, glob: glob.compile_matcher(), depth_max, n_seen: 0, found: Vec::new() };
    walk.folder(&root, 1)?;
    if walk.found.is_empty() {
        return Err(DatasetError::NoMatch { pattern: pattern.to_owned() });
    }
    walk.found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(walk.found)
}

struct Walk<'a> {
    pattern: &'a str,
    glob: GlobMatcher,
    depth_max: usize,
    n_seen: usize,
    found: Vec<PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), DatasetError> {
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let failed = |source| DatasetError::Io { file: shown.display().to_string(), source };
        let entries = match fs::read_dir(shown) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            self.n_seen += 1;
            if self.n_seen > LOOKED_AT_MAX {
                let pattern = self.pattern.to_owned();
                return Err(DatasetError::TooManyFiles { pattern, limit: LOOKED_AT_MAX });
            }
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder && depth < self.depth_max {
                self.folder(&path, depth + 1)?;
            } else if !is_folder && self.glob.is_match(&path) && !path.is_dir() {
                self.found.push(path);
            }
        }
        Ok(())
    }
}

fn local_file(path: &Path, columns: Option<Columns>) -> Result<SourceFile, DatasetError> {
    let name = path.display().to_string();
    let failed = |source| DatasetError::Io { file: name.clone(), source };
    let (format, compression) =
        kind_of(&name).ok_or_else(|| DatasetError::UnknownFormat { name: format!("file:{name}") })?;
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(DatasetError::NotAFile { file: name });
    }
    let hint = std::path::absolute(path).map_err(failed)?;
    let columns = columns.filter(|_| format != super::Format::Text);
    let place = Place::Local { name, hint };
    Ok(SourceFile { place, size: metadata.len(), content: None, format, compression, columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path();
        for name in ["b.txt", "a.txt", "B.txt", "a.jsonl", "s/c.txt", "s/t/d.txt", "odd[1].txt"] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
            fs::write(path, "x\n").expect("write a file");
        }
        fs::create_dir(root.join("folder.txt")).expect("make a folder");
        std::os::unix::fs::symlink(root.join("s"), root.join("link.txt")).expect("make a link");
        let check = |pattern: &str, expected: &[&str]| {
            let found = local_files(&root.join(pattern).display().to_string()).expect(pattern);
            let names: Vec<_> = found.iter().map(|path| path.strip_prefix(root).expect("inside")).collect();
            assert_eq!(names, expected.iter().map(Path::new).collect::<Vec<_>>(), "{pattern}");
        };
        check("a.txt", &["a.txt"]);
        check("missing.txt", &["missing.txt"]);
        check("*.txt", &["B.txt", "a.txt", "b.txt", "odd[1].txt"]);
        check("{a,b}.*", &["a.jsonl", "a.txt", "b.txt"]);
        check("?.jsonl", &["a.jsonl"]);
        check("s/*.txt", &["s/c.txt"]);
        check("*/*.txt", &["s/c.txt"]);
        check("**/*.txt", &["B.txt", "a.txt", "b.txt", "odd[1].txt", "s/c.txt", "s/t/d.txt"]);
        check("odd[1].txt", &["odd[1].txt"]);
        let refuse = |pattern: &str, expected: &str| {
            let error = local_files(&root.join(pattern).display().to_string()).expect_err(pattern);
            assert!(error.to_string().contains(expected), "{error}");
        };
        refuse("*.csv", "no file matches");
        refuse("missing/*.txt", "no file matches");
        refuse("{a.txt", "is malformed");
    }
}
