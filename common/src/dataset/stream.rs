//! The bytes of a file, decompressed, while the file as it lies there is counted and digested.

use std::io::{self, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::content::{self, HashingFile, read_error};
use super::opener::{FileOpener, name_of};
use super::source::SourceFile;
use super::{Compression, DatasetError};
use crate::hub::ContentId;

/// Bytes decompressed at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What an xz stream may ask for, in KiB: the window of `xz -9` is 64 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The decompressed bytes of a file, without a byte order mark at the very start.
pub(super) struct ByteStream {
    source: SourceFile,
    file: HashingFile,
    decoder: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    n_decompressed: u64,
    decompressed_bytes_max: u64,
    had_bom: bool,
    ended: bool,
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
    /// Opens `source`.
    pub(super) fn open(
        source: &SourceFile,
        files: &dyn FileOpener,
        decompressed_bytes_max: u64,
    ) -> Result<Self, DatasetError> {
        let file = HashingFile::new(files.open(source)?, source);
        let decoder = decoder(source.compression, file.clone()).map_err(|e| read_error(source, e))?;
        let mut stream = Self {
            source: source.clone(),
            file,
            decoder,
            buffer: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            n_decompressed: 0,
            decompressed_bytes_max,
            had_bom: false,
            ended: false,
        };
        stream.drop_bom()?;
        Ok(stream)
    }

    /// The file that is read, for messages.
    pub(super) fn name(&self) -> String {
        name_of(&self.source)
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

    /// The next byte, left where it is; none at the end of the file.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, DatasetError> {
        if self.start == self.end && !self.refill()? {
            return Ok(None);
        }
        Ok(Some(self.buffer[self.start]))
    }

    /// Passes over the byte that [`ByteStream::peek`] showed.
    pub(super) fn advance(&mut self) {
        debug_assert!(self.start < self.end, "advance follows peek");
        self.start += 1;
    }

    /// What comes next, left where it is: until `enough` says so, up to the end of the file or `bytes_max` bytes.
    pub(super) fn look_ahead(
        &mut self,
        bytes_max: usize,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<&[u8], DatasetError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < bytes_max && !enough(&self.buffer[..self.end]) {
            // Doubled, so that what is there is not looked through too often.
            let wanted = (self.end * 2).clamp(CHUNK_BYTES, bytes_max.max(CHUNK_BYTES));
            self.buffer.resize(self.buffer.len().max(wanted), 0);
            while self.end < wanted {
                if !self.read_on()? {
                    return Ok(&self.buffer[..self.end]);
                }
            }
        }
        Ok(&self.buffer[..self.end])
    }

    /// Ends the reading: what is left of the file is digested as [`content::finish`] says.
    pub(super) fn finish(&mut self) -> Result<Option<ContentId>, DatasetError> {
        content::finish(&mut self.file, &self.source, self.ended)
    }

    /// The typed error inside an `io::Error` that came out of [`Read`], however a reader wrapped it.
    pub(super) fn typed(&self, error: io::Error) -> DatasetError {
        error.downcast::<DatasetError>().unwrap_or_else(|source| read_error(&self.source, source))
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
                    return Err(match self.file.has_failed() {
                        true => read_error(&self.source, source),
                        false => DatasetError::Damaged { file: self.name(), source },
                    });
                }
            }
        };
        self.end += n_read;
        self.n_decompressed += n_read as u64;
        self.ended = n_read == 0;
        let compressed = self.source.compression != Compression::None;
        if compressed && self.n_decompressed > self.decompressed_bytes_max {
            return Err(DatasetError::TooLarge { file: self.name(), limit: self.decompressed_bytes_max });
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

/// Memory is bounded: zstd refuses frames that need a window above 128 MiB by itself, xz is told to; gzip's is 32 KiB
/// and bzip2's blocks are at most 900 kB.
fn decoder(compression: Compression, file: HashingFile) -> io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(file)),
        // It reads single bytes here and there.
        Compression::Xz => Box::new(XzReader::new_mem_limit(io::BufReader::new(file), true, XZ_MEMORY_KIB)),
    })
}
