//! `.txt`: one text a line, split at `\n` only, nothing trimmed.

use super::error::At;
use super::rows::{Cell, Content, Row};
use super::stream::{ByteStream, Line};
use super::{BadRow, DatasetError};

/// The lines of a text file.
pub(super) struct Lines {
    stream: ByteStream,
    text_bytes_max: u32,
    line: Vec<u8>,
    n_read: u64,
    n_carriage_returns: u64,
}

impl Lines {
    pub(super) fn new(stream: ByteStream, text_bytes_max: u32) -> Self {
        Self { stream, text_bytes_max, line: Vec::new(), n_read: 0, n_carriage_returns: 0 }
    }

    pub(super) fn stream_mut(&mut self) -> &mut ByteStream {
        &mut self.stream
    }

    /// Lines so far that end in `\r`, which stays part of the text.
    pub(super) fn n_carriage_returns(&self) -> u64 {
        self.n_carriage_returns
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        let content = match self.stream.read_line(&mut self.line, self.text_bytes_max as usize)? {
            None => return Ok(None),
            Some(Line::TooLong(bytes)) => Content::Bad(BadRow::TooLong {
                bytes,
                limit_name: "text_bytes_max",
                limit: self.text_bytes_max.into(),
            }),
            Some(Line::Whole) => utf8(&self.line)
                .map_or_else(Content::Bad, |text| Content::Cells(vec![Cell::Text(text.to_owned())])),
        };
        self.n_carriage_returns += u64::from(self.line.ends_with(b"\r"));
        self.n_read += 1;
        Ok(Some(Row { row: self.n_read - 1, at: At::Line(self.n_read), content }))
    }
}

/// `bytes` as text.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, BadRow> {
    std::str::from_utf8(bytes).map_err(|error| BadRow::NotUtf8 { at: error.valid_up_to() + 1 })
}
