//! The directory of a zip archive, read at offsets: where each entry lies, and no entry.
//!
//! Written here rather than taken from a library because torch's archives are larger than memory and come from
//! anywhere: nothing is allocated by a count that the file states, and only its own directory is held.
//! Layouts: PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.

use std::collections::BTreeMap;

use super::{CheckpointError, WeightFile, shown};

const FORMAT: &str = "zip archive";
/// Directories beyond this are refused; an entry takes some 100 bytes.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// The record at the end, and the longest comment behind it.
const END_BYTES: usize = 22;
const COMMENT_BYTES_MAX: u64 = 0xffff;
const LOCATOR_BYTES: u64 = 20;
const END64_BYTES: u64 = 56;
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: u64 = 30;
/// The extra field that holds what does not fit 32 bits.
const ZIP64: u16 = 1;
/// What stands in the place of what does not fit.
const BEYOND_32_BITS: u32 = u32::MAX;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    stored: bool,
    size: u64,
    /// Where its local header begins.
    header: u64,
}

/// The entries of an archive by name.
pub(super) struct Directory {
    pub entries: BTreeMap<String, Entry>,
}

impl Directory {
    /// Finds and reads the directory at the archive's end.
    pub fn read(file: &WeightFile) -> Result<Self, CheckpointError> {
        let (start, length) = bounds(file)?;
        if length > DIRECTORY_BYTES_MAX {
            return Err(file.malformed(FORMAT, "its directory makes no sense"));
        }
        let directory = file.bytes(start, length)?;
        let mut entries = BTreeMap::new();
        let mut rest = &directory[..];
        while !rest.is_empty() {
            let (name, entry, after) =
                entry(rest).ok_or_else(|| file.malformed(FORMAT, "its directory is damaged"))?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(file.malformed(FORMAT, format!("entry {:?} is there twice", shown(&name))));
            }
            rest = after;
        }
        Ok(Self { entries })
    }

    /// First byte and size of an entry, if it is there; it must not be compressed.
    pub fn place(&self, file: &WeightFile, name: &str) -> Result<Option<(u64, u64)>, CheckpointError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if !entry.stored {
            return Err(CheckpointError::Compressed { file: file.name.clone(), entry: shown(name) });
        }
        let outside = || file.malformed(FORMAT, format!("entry {:?} lies outside of it", shown(name)));
        if entry.header.checked_add(LOCAL_BYTES).is_none_or(|end| end > file.size) {
            return Err(outside());
        }
        let header = file.bytes(entry.header, LOCAL_BYTES)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(file.malformed(FORMAT, format!("entry {:?} has no header", shown(name))));
        }
        // Name and extra field have lengths of their own here, for torch pads them.
        let (name_bytes, extra_bytes) = (u16_at(&header, 26), u16_at(&header, 28));
        let start = entry.header + LOCAL_BYTES + u64::from(name_bytes) + u64::from(extra_bytes);
        if start.checked_add(entry.size).is_none_or(|end| end > file.size) {
            return Err(outside());
        }
        Ok(Some((start, entry.size)))
    }
}

/// Where the directory begins, and its length; both lie inside of the file.
fn bounds(file: &WeightFile) -> Result<(u64, u64), CheckpointError> {
    let cut_off = || file.malformed(FORMAT, "its end is missing");
    let tail_bytes = file.size.min(END_BYTES as u64 + COMMENT_BYTES_MAX);
    let tail_start = file.size - tail_bytes;
    let tail = file.bytes(tail_start, tail_bytes)?;
    let is_end = |record: &[u8]| {
        record.starts_with(b"PK\x05\x06") && usize::from(u16_at(record, 20)) == record.len() - END_BYTES
    };
    let last = tail.len().checked_sub(END_BYTES).ok_or_else(cut_off)?;
    let at = (0..=last).rev().find(|at| is_end(&tail[*at..])).ok_or_else(cut_off)?;
    let (end, end_start) = (&tail[at..], tail_start + at as u64);
    let (mut length, mut start) = (u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
    let mut behind = end_start;
    if let Some(locator_start) = end_start.checked_sub(LOCATOR_BYTES) {
        let locator = file.bytes(locator_start, LOCATOR_BYTES)?;
        if locator.starts_with(b"PK\x06\x07") {
            behind = u64_at(&locator, 8);
            if behind.checked_add(END64_BYTES).is_none_or(|end| end > file.size) {
                return Err(cut_off());
            }
            let end64 = file.bytes(behind, END64_BYTES)?;
            if !end64.starts_with(b"PK\x06\x06") {
                return Err(cut_off());
            }
            (length, start) = (u64_at(&end64, 40), u64_at(&end64, 48));
        }
    }
    match start.checked_add(length) {
        Some(end) if end <= behind => Ok((start, length)),
        _ => Err(cut_off()),
    }
}

/// The first entry of a directory, and what follows it.
fn entry(directory: &[u8]) -> Option<(String, Entry, &[u8])> {
    let (fixed, rest) = directory.split_at_checked(ENTRY_BYTES)?;
    if !fixed.starts_with(b"PK\x01\x02") {
        return None;
    }
    let lengths = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
    let (name, rest) = rest.split_at_checked(lengths[0])?;
    let (extra, rest) = rest.split_at_checked(lengths[1])?;
    let (_comment, rest) = rest.split_at_checked(lengths[2])?;
    let name = std::str::from_utf8(name).ok()?.to_owned();
    let (method, packed, size, header) =
        (u16_at(fixed, 10), u32_at(fixed, 20), u32_at(fixed, 24), u32_at(fixed, 42));
    // Only what does not fit is in the extra field, in this order.
    let mut long = zip64(extra).unwrap_or_default();
    let mut number = |short: u32| {
        if short != BEYOND_32_BITS {
            return Some(u64::from(short));
        }
        let (number, rest) = long.split_at_checked(8)?;
        long = rest;
        Some(u64_at(number, 0))
    };
    let (size, packed, header) = (number(size)?, number(packed)?, number(header)?);
    Some((name, Entry { stored: method == 0 && packed == size, size, header }, rest))
}

/// The content of the extra field for 64 bits.
fn zip64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (head, rest) = extra.split_at_checked(4)?;
        let (content, rest) = rest.split_at_checked(usize::from(u16_at(head, 2)))?;
        if u16_at(head, 0) == ZIP64 {
            return Some(content);
        }
        extra = rest;
    }
}

// Each caller has split off, or asked for, as many bytes as are read here.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::super::tests::weight_file;
    use super::*;

    /// An archive of one entry whose numbers stand in the records for 64 bits.
    fn zip64_archive(name: &str, content: &[u8]) -> Vec<u8> {
        let (name_bytes, size) = (name.len() as u16, (content.len() as u64).to_le_bytes());
        let beyond = BEYOND_32_BITS.to_le_bytes();
        let mut out = b"PK\x03\x04".to_vec();
        out.extend([0; 22]);
        out.extend(name_bytes.to_le_bytes());
        out.extend([3, 0]);
        out.extend(name.as_bytes());
        out.extend(b"pad");
        out.extend(content);
        let start = out.len() as u64;
        out.extend(b"PK\x01\x02");
        out.extend([0; 16]);
        out.extend([beyond, beyond].concat());
        out.extend(name_bytes.to_le_bytes());
        out.extend(36u16.to_le_bytes());
        out.extend([0; 10]);
        out.extend(beyond);
        out.extend(name.as_bytes());
        // A field of another kind comes first.
        out.extend([9, 9, 4, 0, 1, 2, 3, 4]);
        out.extend([ZIP64.to_le_bytes(), 24u16.to_le_bytes()].concat());
        out.extend([size, size, 0u64.to_le_bytes()].concat());
        let length = out.len() as u64 - start;
        let end64 = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend([0; 36]);
        out.extend([length, start].map(u64::to_le_bytes).concat());
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(end64.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(b"PK\x05\x06");
        out.extend([0; 8]);
        out.extend([beyond, beyond].concat());
        out.extend(7u16.to_le_bytes());
        out.extend(b"comment");
        out
    }

    #[test]
    fn numbers_of_64_bits() {
        let archive = zip64_archive("x/data/0", b"content");
        let file = weight_file("x.bin", &archive);
        let directory = Directory::read(&file).expect("sound");
        let (start, size) = directory.place(&file, "x/data/0").expect("sound").expect("there");
        assert_eq!(&archive[start as usize..(start + size) as usize], b"content");
        assert_eq!(directory.place(&file, "x/data/1").expect("sound"), None);
    }

    #[test]
    fn every_cut_is_an_error() {
        let archive = zip64_archive("x/data/0", b"content");
        for length in 0..archive.len() {
            let file = weight_file("x.bin", &archive[..length]);
            let error = Directory::read(&file).err().expect("cut off").to_string();
            assert!(error.contains("x.bin"), "{error}");
        }
    }

    #[test]
    fn damage_is_never_a_panic() {
        let archive = zip64_archive("x/data/0", b"content");
        let mut damaged = archive.clone();
        for place in 0..archive.len() {
            for byte in 0..=255 {
                damaged[place] = byte;
                let file = weight_file("x.bin", &damaged);
                if let Ok(directory) = Directory::read(&file)
                    && let Ok(Some((start, size))) = directory.place(&file, "x/data/0")
                {
                    assert!(start + size <= file.size, "byte {place} as {byte}");
                }
            }
            damaged[place] = archive[place];
        }
    }
}
