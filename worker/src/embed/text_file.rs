//! A text file whose lines are the rows: UTF-8, split at `\n` only, the last one optional, nothing trimmed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::config::CommandError;

/// Longer lines are refused: a line is held in memory as a whole.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A text file that was read once and found sound.
pub(super) struct TextFile {
    path: PathBuf,
    n_lines: u64,
}

/// Why a file is not one of texts.
#[derive(Debug, thiserror::Error)]
enum TextFileError {
    #[error("cannot read {}", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    #[error("{}:{line}: not UTF-8; convert the file, for instance with iconv", .path.display())]
    NotUtf8 { path: PathBuf, line: u64 },
    #[error("{}:{line}: a line of more than {LINE_BYTES_MAX} bytes; split it", .path.display())]
    LongLine { path: PathBuf, line: u64 },
    #[error("{} has no lines", .0.display())]
    Empty(PathBuf),
    #[error("{} changed while it was read; run again", .0.display())]
    Changed(PathBuf),
}

impl TextFile {
    /// Reads the file through: counts its lines and finds the first that is not UTF-8.
    pub(super) fn open(path: &Path) -> Result<Self, CommandError> {
        let mut lines = Lines::open(path).map_err(CommandError::usage)?;
        while lines.next_line().map_err(CommandError::usage)?.is_some() {}
        if lines.n_read == 0 {
            return Err(CommandError::usage(TextFileError::Empty(path.to_owned())));
        }
        Ok(Self { path: path.to_owned(), n_lines: lines.n_read })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn n_lines(&self) -> u64 {
        self.n_lines
    }

    /// The lines again, `rows` at a time.
    pub(super) fn chunks(&self, rows: u64) -> Result<Chunks, CommandError> {
        let lines = Lines::open(&self.path).map_err(CommandError::failed)?;
        Ok(Chunks { lines, rows, n_lines: self.n_lines })
    }
}

/// Chunks of lines, in order.
pub(super) struct Chunks {
    lines: Lines,
    rows: u64,
    n_lines: u64,
}

impl Chunks {
    /// The next lines; `None` after the last. Fails if the file has not the lines that it had before.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Vec<String>>, CommandError> {
        let mut chunk = Vec::new();
        while (chunk.len() as u64) < self.rows {
            match self.lines.next_line().map_err(CommandError::failed)? {
                Some(line) => chunk.push(line),
                None => break,
            }
        }
        let ended = (chunk.len() as u64) < self.rows;
        if self.lines.n_read > self.n_lines || ended && self.lines.n_read != self.n_lines {
            return Err(CommandError::failed(TextFileError::Changed(self.lines.path.clone())));
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    n_read: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, TextFileError> {
        let file = File::open(path).map_err(|error| TextFileError::Io(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(1 << 20, file), n_read: 0 })
    }

    fn next_line(&mut self) -> Result<Option<String>, TextFileError> {
        let mut line = Vec::new();
        let limited = (&mut self.reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        limited.map_err(|error| TextFileError::Io(self.path.clone(), error))?;
        if line.is_empty() {
            return Ok(None);
        }
        self.n_read += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 > LINE_BYTES_MAX {
            return Err(TextFileError::LongLine { path: self.path.clone(), line: self.n_read });
        }
        let utf8 = String::from_utf8(line);
        utf8.map(Some).map_err(|_| TextFileError::NotUtf8 { path: self.path.clone(), line: self.n_read })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(content).expect("written");
        file
    }

    #[test]
    fn lines_end_at_newlines_and_nothing_is_trimmed() {
        let check = |content: &str, expected: &[&str]| {
            let file = file(content.as_bytes());
            let texts = TextFile::open(file.path()).expect("sound");
            assert_eq!(texts.n_lines(), expected.len() as u64, "{content:?}");
            let mut chunks = texts.chunks(2).expect("open");
            let mut found = Vec::new();
            while let Some(chunk) = chunks.next_chunk().expect("unchanged") {
                assert!(chunk.len() <= 2);
                found.extend(chunk);
            }
            assert_eq!(found, expected, "{content:?}");
        };
        check("a\nb\n", &["a", "b"]);
        check("a\nb", &["a", "b"]);
        check("a\n\n", &["a", ""]);
        check(" a \r\n\tb\u{2028}c\u{85}d\n", &[" a \r", "\tb\u{2028}c\u{85}d"]);
    }

    #[test]
    fn faulty_files_are_refused_with_their_line() {
        let check = |content: &[u8], expected: &str| {
            let file = file(content);
            let error = TextFile::open(file.path()).err().expect("refused");
            let text = crate::chain(&error);
            assert!(text.contains(expected), "{text}");
            assert_eq!(error.exit_code(), 2);
        };
        check(b"a\n\xff\n", ":2: not UTF-8");
        check(b"", "has no lines");
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let mut file = file(b"a\nb\n");
        let texts = TextFile::open(file.path()).expect("sound");
        file.write_all(b"c\n").expect("written");
        let mut chunks = texts.chunks(10).expect("open");
        assert!(chunks.next_chunk().is_err());
    }
}
