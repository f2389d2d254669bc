//! The bytes of a file, decompressed, while the file as it lies on disk is counted and digested.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::{Compression, DatasetError};
use crate::id::Digest;

/// Bytes decompressed at a time.
const CHUNK_BYTES: usize = 64 << 10;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The decompressed bytes of a file, without a byte order mark at the very start.
pub(super) struct ByteStream {
    path: PathBuf,
    decoder: Decoder,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    n_decompressed: u64,
    decompressed_bytes_max: u64,
    had_bom: bool,
}

/// A line without its `\n`, left in the caller's buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The line fits.
    Whole,
    /// The line was passed over; it has so many bytes.
    TooLong(u64),
}

impl ByteStream {
    /// Opens `path`, which must be a regular file.
    pub(super) fn open(
        path: &Path,
        compression: Compression,
        decompressed_bytes_max: u64,
    ) -> Result<Self, DatasetError> {
        let io_error = |source| DatasetError::Io { path: path.to_owned(), source };
        // Looked at before it is opened: opening a named pipe waits for a writer.
        if !std::fs::metadata(path).map_err(io_error)?.is_file() {
            return Err(DatasetError::NotAFile { path: path.to_owned() });
        }
        let file = HashingFile::new(File::open(path).map_err(io_error)?);
        let decoder = match compression {
            Compression::None => Decoder::Plain(file),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(file))),
            Compression::Zstd => Decoder::Zstd(zstd::Decoder::new(file).map_err(io_error)?),
            Compression::Bzip2 | Compression::Xz => return Err(io_error(io::ErrorKind::Unsupported.into())),
        };
        let mut stream = Self {
            path: path.to_owned(),
            decoder,
            buffer: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            n_decompressed: 0,
            decompressed_bytes_max,
            had_bom: false,
        };
        stream.drop_bom()?;
        Ok(stream)
    }

    /// The file that is read.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a byte order mark was dropped.
    pub(super) fn had_bom(&self) -> bool {
        self.had_bom
    }

    /// Reads up to the next `\n` or the end into `line`; none at the end of the file.
    ///
    /// At most `bytes_max` bytes are kept; a longer line is passed over and only its length is told.
    pub(super) fn read_line(
        &mut self,
        line: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<Option<Line>, DatasetError> {
        line.clear();
        let mut n_bytes = 0u64;
        loop {
            if self.start == self.end && !self.refill()? {
                return Ok((n_bytes > 0).then(|| Self::judge(n_bytes, bytes_max)));
            }
            let rest = &self.buffer[self.start..self.end];
            let newline = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..newline.unwrap_or(rest.len())];
            n_bytes += piece.len() as u64;
            let room = bytes_max.saturating_sub(line.len()).min(piece.len());
            line.extend_from_slice(&piece[..room]);
            self.start += piece.len();
            if newline.is_some() {
                self.start += 1;
                return Ok(Some(Self::judge(n_bytes, bytes_max)));
            }
        }
    }

    fn judge(n_bytes: u64, bytes_max: usize) -> Line {
        if n_bytes > bytes_max as u64 { Line::TooLong(n_bytes) } else { Line::Whole }
    }

    /// Reads what is left of the file on disk, undecompressed; its size and digest.
    pub(super) fn finish(&mut self) -> Result<(u64, Digest), DatasetError> {
        let file = self.decoder.file_mut();
        let outcome = io::copy(file, &mut io::sink());
        let result = outcome.map(|_| (file.n_bytes, Digest(file.hasher.clone().finalize().into())));
        result.map_err(|source| DatasetError::Io { path: self.path.clone(), source })
    }

    /// The typed error inside an `io::Error` that came out of [`Read`], however a reader wrapped it.
    pub(super) fn typed(&self, error: io::Error) -> DatasetError {
        error
            .downcast::<DatasetError>()
            .unwrap_or_else(|source| DatasetError::Io { path: self.path.clone(), source })
    }

    /// Fills the buffer anew; false at the end of the file.
    fn refill(&mut self) -> Result<bool, DatasetError> {
        self.start = 0;
        self.end = 0;
        self.read_on()
    }

    /// Reads once more behind what the buffer holds; false at the end of the file.
    fn read_on(&mut self) -> Result<bool, DatasetError> {
        let n_read = loop {
            match self.decoder.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(n_read) => break n_read,
                Err(source) => {
                    let path = self.path.clone();
                    let in_file = self.decoder.file_mut().failed;
                    return Err(if in_file {
                        DatasetError::Io { path, source }
                    } else {
                        DatasetError::Damaged { path, source }
                    });
                }
            }
        };
        self.end += n_read;
        self.n_decompressed += n_read as u64;
        let compressed = !matches!(self.decoder, Decoder::Plain(_));
        if compressed && self.n_decompressed > self.decompressed_bytes_max {
            return Err(DatasetError::TooLarge {
                path: self.path.clone(),
                limit: self.decompressed_bytes_max,
            });
        }
        Ok(n_read > 0)
    }

    fn drop_bom(&mut self) -> Result<(), DatasetError> {
        while self.end < BOM.len() && self.read_on()? {}
        self.had_bom = self.buffer[..self.end].starts_with(BOM);
        if self.had_bom {
            self.start = BOM.len();
        }
        Ok(())
    }
}

/// For readers of other crates; errors carry a [`DatasetError`], which [`ByteStream::typed`] takes out again.
impl Read for ByteStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && !self.refill().map_err(io::Error::other)? {
            return Ok(0);
        }
        let n_read = out.len().min(self.end - self.start);
        out[..n_read].copy_from_slice(&self.buffer[self.start..self.start + n_read]);
        self.start += n_read;
        Ok(n_read)
    }
}

/// zstd refuses frames that need a window above 128 MiB by itself, gzip's is 32 KiB: memory is bounded.
enum Decoder {
    Plain(HashingFile),
    Gzip(Box<MultiGzDecoder<HashingFile>>),
    Zstd(zstd::Decoder<'static, BufReader<HashingFile>>),
}

impl Decoder {
    fn file_mut(&mut self) -> &mut HashingFile {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut().get_mut(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(out),
            Self::Gzip(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
        }
    }
}

/// A file that digests what is read from it.
struct HashingFile {
    file: File,
    hasher: Sha256,
    n_bytes: u64,
    /// Whether the file itself could not be read: tells a broken disk from broken compressed data.
    failed: bool,
}

impl HashingFile {
    fn new(file: File) -> Self {
        Self { file, hasher: Sha256::new(), n_bytes: 0, failed: false }
    }
}

impl Read for HashingFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.file.read(out) {
            Ok(n_read) => {
                self.hasher.update(&out[..n_read]);
                self.n_bytes += n_read as u64;
                Ok(n_read)
            }
            Err(error) => {
                self.failed |= error.kind() != io::ErrorKind::Interrupted;
                Err(error)
            }
        }
    }
}
