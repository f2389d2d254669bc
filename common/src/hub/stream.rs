//! Bytes of a file as they come, taken up again where a connection broke.
//!
//! Nothing is fetched ahead: a part is taken from the connection when it is asked for, so that what is under way is
//! what the HTTP library and the kernel hold, and a stream that is dropped ends its connection.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::client::{Client, Target, malformed, shown};
use super::retry::{Attempts, Failed};
use super::{HubError, HubFile};

/// What the first request of a stream asks for that may be dropped early; later ones ask for a quarter of what has come,
/// and for this at least. The kernel takes what is sent whether it is wanted or not: some MiB, where there is no end.
const STEP_BYTES_MIN: u64 = 256 << 10;

/// How much is asked for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    /// All of it: it will be read to its end.
    One,
    /// Ever more: most likely it will not.
    Growing,
}

/// A connection that brought this much before it broke counts as a success.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A range of a file, read from the hub from front to back.
pub(super) struct Stream {
    client: Arc<Client>,
    target: Target,
    file: HubFile,
    steps: Steps,
    start: u64,
    /// The next byte.
    at: u64,
    /// The end of what the present connection was asked for.
    until: u64,
    end: u64,
    connection: Option<Connection>,
    attempts: Attempts,
    /// Bytes since the last failure.
    came: u64,
    /// What `read` has not handed out yet.
    part: Bytes,
}

struct Connection {
    response: Response,
    /// Bytes to leave out: a server that knows no ranges sends them again.
    skip: u64,
}

impl Stream {
    /// Connects, so that what the hub refuses is known at once. `range` lies inside the file.
    pub(super) fn open(
        client: &Arc<Client>,
        target: Target,
        file: &HubFile,
        range: Range<u64>,
        steps: Steps,
    ) -> Result<Self, HubError> {
        let mut stream = Self {
            client: Arc::clone(client),
            target,
            file: file.clone(),
            steps,
            start: range.start,
            at: range.start,
            until: range.start,
            end: range.end,
            connection: None,
            attempts: Attempts::new(&client.settings().retry),
            came: 0,
            part: Bytes::new(),
        };
        while stream.at < stream.end && stream.connection.is_none() {
            match stream.connect() {
                Ok(connection) => stream.connection = Some(connection),
                Err(failed) => stream.attempts.wait_after(failed)?,
            }
        }
        Ok(stream)
    }

    /// The next bytes, never none of them; nothing at the end of the range, which is reached exactly.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, HubError> {
        loop {
            if self.at == self.end {
                self.check_end()?;
                return Ok(None);
            }
            match self.receive() {
                Ok(part) if part.is_empty() => {}
                Ok(part) => {
                    self.at += part.len() as u64;
                    self.came += part.len() as u64;
                    if self.came >= PROGRESS_BYTES {
                        self.attempts.succeeded();
                    }
                    return Ok(Some(part));
                }
                Err(failed) => {
                    self.came = 0;
                    self.attempts.wait_after(failed)?;
                }
            }
        }
    }

    fn receive(&mut self) -> Result<Bytes, Failed> {
        // What was asked for has come, to its end.
        if self.at == self.until {
            self.connection = None;
        }
        let Connection { response, mut skip } = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let Some((response, mut part)) = self.client.chunk(response)? else {
            let (url, at, size) = (shown(&self.target.url), self.at, self.file.size);
            return Err(Failed::passing(HubError::Broken { url, at, size }));
        };
        let skipped = skip.min(part.len() as u64);
        skip -= skipped;
        // At most the length of `part`, which is a `usize`.
        part.advance(skipped as usize);
        let wanted = self.until - self.at;
        if part.len() as u64 > wanted {
            if self.until == self.file.size {
                return Err(self.other_size(self.at + part.len() as u64).into());
            }
            part.truncate(wanted as usize);
        } else {
            self.connection = Some(Connection { response, skip });
        }
        Ok(part)
    }

    /// An answer that goes on at `at`.
    fn connect(&mut self) -> Result<Connection, Failed> {
        let step = match self.steps {
            Steps::One => u64::MAX,
            Steps::Growing => STEP_BYTES_MIN.max((self.at - self.start) / 4),
        };
        self.until = self.end.min(self.at.saturating_add(step));
        let reaches_end = self.until == self.file.size;
        let range = match (self.at, reaches_end) {
            (0, true) => None,
            (at, true) => Some(format!("bytes={at}-")),
            (at, false) => Some(format!("bytes={at}-{}", self.until - 1)),
        };
        let response = self.client.get(&self.target, range)?;
        let length = response.content_length();
        if response.status() == StatusCode::OK {
            if length.is_some_and(|length| length != self.file.size) {
                return Err(self.other_size(length.unwrap_or_default()).into());
            }
            if self.at > 0 {
                tracing::warn!(
                    url = shown(&self.target.url),
                    "the hub knows no ranges; reading from the start"
                );
            }
            // It sends all there is.
            self.until = self.end;
            return Ok(Connection { response, skip: self.at });
        }
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let Some((sent, size)) = header.and_then(parse_content_range) else {
            return Err(malformed(&self.target.url, "it says not which part of the file it sends").into());
        };
        if let Some(size) = size.filter(|size| *size != self.file.size) {
            return Err(self.other_size(size).into());
        }
        let is_right =
            sent == (self.at..self.until) && length.is_none_or(|length| length == self.until - self.at);
        if response.status() != StatusCode::PARTIAL_CONTENT || !is_right {
            return Err(
                malformed(&self.target.url, "it sends another part of the file than asked for").into()
            );
        }
        Ok(Connection { response, skip: 0 })
    }

    /// A body without a stated length may go on where the file ends.
    fn check_end(&mut self) -> Result<(), HubError> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        if self.end < self.file.size || connection.response.content_length().is_some() {
            return Ok(());
        }
        match self.client.chunk(connection.response) {
            Ok(Some((_, more))) if !more.is_empty() => Err(self.other_size(self.at + more.len() as u64)),
            // All bytes are here, however the connection ends.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn other_size(&self, found: u64) -> HubError {
        let (path, expected, url) = (self.file.path.clone(), self.file.size, shown(&self.target.url));
        HubError::OtherSize { path, expected, found, url }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.part.is_empty() {
            match self.next()? {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let n = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// The part that is sent and the size of the whole, of `bytes 0-4/10` or `bytes 0-4/*`.
fn parse_content_range(value: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, size) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.trim().parse::<u64>().ok()?.checked_add(1)?;
    let size = if size.trim() == "*" { None } else { Some(size.trim().parse().ok()?) };
    Some((first.trim().parse().ok()?..end, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let check = |value: &str, expected: Option<(Range<u64>, Option<u64>)>| {
            assert_eq!(parse_content_range(value), expected, "{value}");
        };
        check("bytes 0-4/10", Some((0..5, Some(10))));
        check("bytes 7-9/*", Some((7..10, None)));
        for bad in ["bytes */10", "0-4/10", "bytes 0-4", "bytes 0-18446744073709551615/1", ""] {
            check(bad, None);
        }
    }
}
