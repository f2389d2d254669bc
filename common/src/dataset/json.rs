//! `.json`: one document, read item by item, so that it takes no more memory than its longest record.
//!
//! ```text
//! [{…}, {…}]                        records
//! {"version": 1, "data": [{…}]}     the first array of objects holds the records
//! {"text": ["…", "…"], "id": […]}   columns; one is read through for each that is wanted
//! {…}\n{…}                          JSON lines after all, as the hub calls them .json
//! ```

use serde::Deserialize as _;
use serde::de::IgnoredAny;

use super::column::{self, Column};
use super::error::At;
use super::jsonl::JsonRecords;
use super::opener::FileOpener;
use super::record::{self, Value};
use super::rows::{Content, Row};
use super::source::{Columns, SourceFile};
use super::stream::{ByteStream, Line};
use super::{BadRow, DatasetError, ReadLimits};

/// The longest name of a column that is understood.
const NAME_BYTES_MAX: usize = 64 << 10;

/// A JSON file.
pub(super) enum Json {
    /// Record after record.
    Records(Box<JsonRecords>),
    /// Column beside column.
    Columns(JsonColumns),
}

impl Json {
    /// Finds out by its first bytes how the file is laid out.
    pub(super) fn open(
        source: &SourceFile,
        files: &dyn FileOpener,
        columns: Option<&Columns>,
        limits: ReadLimits,
    ) -> Result<Self, DatasetError> {
        let open = || ByteStream::open(source, files, limits.decompressed_bytes_max);
        let mut stream = open()?;
        let head = stream.look_ahead(limits.record_bytes_max as usize, says_its_shape)?;
        match shape(head) {
            Shape::Lines => Ok(Self::Records(Box::new(JsonRecords::lines(stream, columns, limits)))),
            Shape::Array => {
                let mut scanner = Scanner::new(stream);
                scanner.expect(b'[', "an array is expected")?;
                let array = JsonArray { scanner, n_given: 0, in_object: false, done: false };
                Ok(Self::Records(Box::new(JsonRecords::array(array, columns, limits))))
            }
            Shape::Object => match find_records(stream)? {
                Found::Records(array) => {
                    Ok(Self::Records(Box::new(JsonRecords::array(*array, columns, limits))))
                }
                Found::Columns(found) => {
                    JsonColumns::open(&open, source, found, columns, limits).map(Self::Columns)
                }
            },
        }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        match self {
            Self::Records(records) => records.next_row(),
            Self::Columns(columns) => columns.next_row(),
        }
    }

    pub(super) fn stream_mut(&mut self) -> &mut ByteStream {
        match self {
            Self::Records(records) => records.stream_mut(),
            Self::Columns(columns) => columns.stream_mut(),
        }
    }
}

enum Shape {
    Lines,
    Array,
    Object,
}

/// Whether the bytes hold a first line and the beginning of another.
fn says_its_shape(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    head.starts_with(b"[")
        || head
            .iter()
            .position(|byte| *byte == b'\n')
            .is_some_and(|end| !head[end..].trim_ascii_start().is_empty())
}

fn shape(head: &[u8]) -> Shape {
    let head = head.trim_ascii_start();
    let end = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    let (first, rest) = head.split_at(end);
    match head.first() {
        Some(b'[') => Shape::Array,
        Some(b'{') => {
            let is_whole = {
                let mut deserializer = serde_json::Deserializer::from_slice(first);
                IgnoredAny::deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok()
            };
            let is_only = rest.trim_ascii().is_empty();
            if !is_whole {
                // A line that is no object is a damaged record where whole records follow it.
                let next = rest.trim_ascii_start();
                let looks_like_lines = next.starts_with(b"{") && first.trim_ascii_end().ends_with(b"}");
                if looks_like_lines { Shape::Lines } else { Shape::Object }
            } else if is_only && has_arrays(first) {
                Shape::Object
            } else {
                Shape::Lines
            }
        }
        Some(_) | None => Shape::Lines,
    }
}

/// Whether a field of this whole object is an array.
fn has_arrays(object: &[u8]) -> bool {
    let mut depth = 0u64;
    let (mut in_string, mut escaped) = (false, false);
    for byte in object {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (true, _) => {}
            (false, b'[') if depth == 1 => return true,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    false
}

/// Goes through JSON byte by byte without judging it: what it captures is parsed afterwards.
struct Scanner {
    stream: ByteStream,
    line: u64,
}

impl Scanner {
    fn new(stream: ByteStream) -> Self {
        Self { stream, line: 1 }
    }

    fn stream_mut(&mut self) -> &mut ByteStream {
        &mut self.stream
    }

    fn broken<T>(&self, reason: &'static str) -> Result<T, DatasetError> {
        Err(DatasetError::BrokenJson { file: self.stream.name(), at: At::Line(self.line), reason })
    }

    /// The next byte that is no white space, left where it is.
    fn peek(&mut self) -> Result<Option<u8>, DatasetError> {
        loop {
            match self.stream.peek()? {
                Some(byte) if byte.is_ascii_whitespace() => self.take(byte),
                next => return Ok(next),
            }
        }
    }

    fn take(&mut self, byte: u8) {
        self.line += u64::from(byte == b'\n');
        self.stream.advance();
    }

    fn expect(&mut self, byte: u8, reason: &'static str) -> Result<(), DatasetError> {
        if self.peek()? != Some(byte) {
            return self.broken(reason);
        }
        self.take(byte);
        Ok(())
    }

    /// Reads a value of any kind into `value`; at most `bytes_max` bytes of it are kept.
    fn capture(&mut self, value: &mut Vec<u8>, bytes_max: usize) -> Result<Line, DatasetError> {
        value.clear();
        let mut n_bytes = 0u64;
        let mut depth = 0u64;
        let (mut in_string, mut escaped) = (false, false);
        if self.peek()?.is_none() {
            return self.broken("it ends where a value is expected");
        }
        loop {
            let Some(byte) = self.stream.peek()? else {
                return if depth > 0 || in_string { self.broken("it ends inside a value") } else { break };
            };
            let ends_scalar = matches!(byte, b',' | b':' | b']' | b'}') || byte.is_ascii_whitespace();
            if depth == 0 && !in_string && ends_scalar {
                if n_bytes == 0 {
                    return self.broken("a value is missing");
                }
                break;
            }
            self.take(byte);
            n_bytes += 1;
            if value.len() < bytes_max {
                value.push(byte);
            }
            match (in_string, byte) {
                (true, _) if escaped => escaped = false,
                (true, b'\\') => escaped = true,
                (_, b'"') => in_string = !in_string,
                (false, b'[' | b'{') => depth += 1,
                (false, b']' | b'}') => depth -= 1,
                (_, _) => {}
            }
            if depth == 0 && !in_string && matches!(byte, b'"' | b']' | b'}') {
                break;
            }
        }
        Ok(if n_bytes > bytes_max as u64 { Line::TooLong(n_bytes) } else { Line::Whole })
    }

    /// Whether another item of an array comes next; its end is taken. `first` tells that none came before it.
    fn next_in_array(&mut self, first: bool) -> Result<bool, DatasetError> {
        match self.peek()? {
            Some(b']') => {
                self.take(b']');
                Ok(false)
            }
            Some(b',') if !first => {
                self.take(b',');
                Ok(true)
            }
            Some(_) if first => Ok(true),
            Some(_) => self.broken("a comma or the end of the array is expected"),
            None => self.broken("it ends inside an array"),
        }
    }

    /// The name before the next value of an object; none at its end. `first` tells that no name came before it.
    fn next_name(&mut self, name: &mut Vec<u8>, first: bool) -> Result<Option<String>, DatasetError> {
        match self.peek()? {
            Some(b'}') => return Ok(None),
            Some(b',') if !first => self.take(b','),
            _ if first => {}
            _ => return self.broken("a comma or the end of the object is expected"),
        }
        if self.peek()? != Some(b'"') {
            return self.broken("the name of a field is expected");
        }
        let read = self.capture(name, NAME_BYTES_MAX)?;
        self.expect(b':', "a colon is expected after the name of a field")?;
        // A name that is no valid JSON is none that anyone asks for.
        let known = if read == Line::Whole { serde_json::from_slice(name).ok() } else { None };
        Ok(Some(known.unwrap_or_default()))
    }
}

/// The items of an array, one after the other.
pub(super) struct JsonArray {
    scanner: Scanner,
    n_given: u64,
    /// Whether more of an object follows the array.
    in_object: bool,
    done: bool,
}

impl JsonArray {
    pub(super) fn stream_mut(&mut self) -> &mut ByteStream {
        self.scanner.stream_mut()
    }

    /// Reads the next item into `item`, as [`ByteStream::read_line`] does a line.
    pub(super) fn next_item(
        &mut self,
        item: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<Option<(At, Line)>, DatasetError> {
        if self.done {
            return Ok(None);
        }
        if !self.scanner.next_in_array(self.n_given == 0)? {
            self.done = true;
            self.read_out()?;
            return Ok(None);
        }
        self.scanner.peek()?;
        let at = At::Line(self.scanner.line);
        let read = self.scanner.capture(item, bytes_max)?;
        self.n_given += 1;
        Ok(Some((at, read)))
    }

    /// What follows the array is of no interest, but after an array by itself nothing may follow.
    fn read_out(&mut self) -> Result<(), DatasetError> {
        while let Some(byte) = self.scanner.peek()? {
            if !self.in_object {
                return self.scanner.broken("something follows the end of the array");
            }
            self.scanner.take(byte);
        }
        Ok(())
    }
}

enum Found {
    Records(Box<JsonArray>),
    Columns(Vec<Column>),
}

/// Looks through an object for its first array of objects; if there is none, its arrays are columns.
fn find_records(stream: ByteStream) -> Result<Found, DatasetError> {
    let mut scanner = Scanner::new(stream);
    scanner.expect(b'{', "an object is expected")?;
    let mut columns: Vec<Column> = Vec::new();
    let mut bytes = Vec::new();
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut bytes, first)? {
        first = false;
        if scanner.peek()? != Some(b'[') {
            scanner.capture(&mut bytes, 0)?;
            continue;
        }
        scanner.take(b'[');
        let begins = scanner.peek()?;
        if begins == Some(b'{') {
            let array = JsonArray { scanner, n_given: 0, in_object: true, done: false };
            return Ok(Found::Records(Box::new(array)));
        }
        columns.push(Column { name, is_text: matches!(begins, Some(b'"' | b'[' | b'n')) });
        let mut first = true;
        while scanner.next_in_array(first)? {
            scanner.capture(&mut bytes, 0)?;
            first = false;
        }
    }
    if columns.is_empty() {
        return scanner.broken("there is no array of objects in it, and no column");
    }
    Ok(Found::Columns(columns))
}

/// The columns of an object, each out of a reading of its own.
pub(super) struct JsonColumns {
    header: Vec<Column>,
    /// The wanted columns; where none are, any of them, so that the file is read.
    columns: Vec<JsonColumn>,
    wanted: bool,
    record_bytes_max: usize,
    cell: Vec<u8>,
    n_read: u64,
}

struct JsonColumn {
    name: String,
    array: JsonArray,
}

impl JsonColumns {
    fn open(
        open: &dyn Fn() -> Result<ByteStream, DatasetError>,
        source: &SourceFile,
        header: Vec<Column>,
        wanted: Option<&Columns>,
        limits: ReadLimits,
    ) -> Result<Self, DatasetError> {
        let names = match wanted {
            Some(wanted) => column::present(source, wanted, &header)?,
            None => header.iter().take(1).map(|column| column.name.clone()).collect(),
        };
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let array = find_column(open()?, &name)?;
            columns.push(JsonColumn { name, array });
        }
        let record_bytes_max = limits.record_bytes_max as usize;
        let wanted = wanted.is_some();
        Ok(Self { header, columns, wanted, record_bytes_max, cell: Vec::new(), n_read: 0 })
    }

    /// The columns that there are.
    pub(super) fn header(&self) -> &[Column] {
        &self.header
    }

    fn stream_mut(&mut self) -> &mut ByteStream {
        self.columns[0].array.stream_mut()
    }

    fn next_row(&mut self) -> Result<Option<Row>, DatasetError> {
        let mut cells = Vec::with_capacity(self.columns.len());
        let mut bad = None;
        let mut n_ended = 0;
        for JsonColumn { name, array } in &mut self.columns {
            match array.next_item(&mut self.cell, self.record_bytes_max)? {
                None => {
                    n_ended += 1;
                    bad = Some(BadRow::ColumnEnds { column: name.clone() });
                }
                Some((_, Line::TooLong(bytes))) => {
                    let limit = self.record_bytes_max as u64;
                    bad = Some(BadRow::TooLong { bytes, limit_name: "record_bytes_max", limit });
                }
                Some((_, Line::Whole)) => match record::value(&self.cell) {
                    Ok(Value::Cell(cell)) => cells.push(cell),
                    Ok(Value::Other) => bad = Some(BadRow::NotAString { column: name.clone() }),
                    Err(reason) => bad = Some(reason),
                },
            }
        }
        if n_ended == self.columns.len() || !self.wanted {
            return Ok(None);
        }
        let content = bad.map_or(Content::Cells(cells), Content::Bad);
        self.n_read += 1;
        Ok(Some(Row { row: self.n_read - 1, at: At::Row(self.n_read - 1), content }))
    }
}

/// The array that an object has under `name`: there is one.
fn find_column(stream: ByteStream, name: &str) -> Result<JsonArray, DatasetError> {
    let mut scanner = Scanner::new(stream);
    scanner.expect(b'{', "an object is expected")?;
    let mut bytes = Vec::new();
    let mut first = true;
    while let Some(found) = scanner.next_name(&mut bytes, first)? {
        first = false;
        if found == name && scanner.peek()? == Some(b'[') {
            scanner.take(b'[');
            return Ok(JsonArray { scanner, n_given: 0, in_object: true, done: false });
        }
        scanner.capture(&mut bytes, 0)?;
    }
    scanner.broken("a column that was there is gone")
}
