//! As much of Thrift's compact protocol as it takes to look at a schema or a page header before the crate believes it.

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) &'static str);

/// More bytes might mend it.
pub(super) const TRUNCATED: Fault = Fault("a structure ends early");

/// Elements of a schema: the crate holds a multiple of it for every row group.
const SCHEMA_ELEMENTS_MAX: usize = 10_000;

/// How deep columns may be nested: the crate recurses.
const SCHEMA_DEPTH_MAX: usize = 64;

/// How deep unknown structures may be nested.
const SKIP_DEPTH_MAX: u32 = 32;

/// What a page says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Bytes of the header.
    pub(super) length: usize,
    /// 0: data, 1: index, 2: dictionary, 3: data of version 2.
    pub(super) kind: i32,
    pub(super) unfolded_size: i32,
    pub(super) stored_size: i32,
    pub(super) n_values: i32,
    pub(super) encoding: i32,
    /// Of a data page of version 2, else 0.
    pub(super) levels_size: i64,
    /// Of a data page of version 2.
    pub(super) is_stored: bool,
}

impl PageHeader {
    pub(super) const INDEX: i32 = 1;
    pub(super) const DICTIONARY: i32 = 2;
    pub(super) const DATA_V2: i32 = 3;
}

/// The page header at the start of `bytes`.
pub(super) fn page_header(bytes: &[u8]) -> Result<PageHeader, Fault> {
    let mut reader = Compact { bytes, place: 0 };
    let mut header = PageHeader { kind: -1, unfolded_size: -1, stored_size: -1, ..PageHeader::default() };
    let mut id = 0;
    while let Some((next, kind)) = reader.field(id)? {
        id = next;
        match (id, kind) {
            (1, I32) => header.kind = reader.i32()?,
            (2, I32) => header.unfolded_size = reader.i32()?,
            (3, I32) => header.stored_size = reader.i32()?,
            (5 | 7 | 8, STRUCT) => {
                let mut inner = 0;
                while let Some((next, kind)) = reader.field(inner)? {
                    inner = next;
                    match (id, inner, kind) {
                        (_, 1, I32) => header.n_values = reader.i32()?,
                        (5 | 7, 2, I32) | (8, 4, I32) => header.encoding = reader.i32()?,
                        (8, 5 | 6, I32) => header.levels_size += i64::from(reader.i32()?),
                        (8, 7, FALSE) => header.is_stored = true,
                        (..) => reader.skip(kind, SKIP_DEPTH_MAX)?,
                    }
                }
            }
            (..) => reader.skip(kind, SKIP_DEPTH_MAX)?,
        }
    }
    header.length = reader.place;
    let is_sane = header.unfolded_size >= 0 && header.stored_size >= 0 && header.n_values >= 0;
    let levels_fit = (0..=i64::from(header.unfolded_size)).contains(&header.levels_size);
    if is_sane && levels_fit { Ok(header) } else { Err(Fault("a page has an absurd size")) }
}

/// Refuses a footer whose schema is too large, or nested too deeply, to be handed on.
pub(super) fn check_schema(footer: &[u8]) -> Result<(), Fault> {
    let mut reader = Compact { bytes: footer, place: 0 };
    let mut id = 0;
    while let Some((next, kind)) = reader.field(id)? {
        id = next;
        match (id, kind) {
            (2, LIST) => check_elements(&mut reader)?,
            (..) => reader.skip(kind, SKIP_DEPTH_MAX)?,
        }
    }
    Ok(())
}

fn check_elements(reader: &mut Compact<'_>) -> Result<(), Fault> {
    let (size, kind) = reader.list()?;
    if kind != STRUCT {
        return Err(Fault("its schema is no list of structures"));
    }
    if size > SCHEMA_ELEMENTS_MAX {
        return Err(Fault("its schema has more than 10000 elements"));
    }
    // Children that are still to come, of every group around the element.
    let mut open: Vec<i32> = Vec::new();
    for _ in 0..size {
        let mut n_children = 0;
        let mut id = 0;
        while let Some((next, kind)) = reader.field(id)? {
            id = next;
            match (id, kind) {
                (5, I32) => n_children = reader.i32()?,
                (..) => reader.skip(kind, SKIP_DEPTH_MAX)?,
            }
        }
        while open.pop_if(|left| *left <= 0).is_some() {}
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if n_children > 0 {
            open.push(n_children);
        }
        if open.len() > SCHEMA_DEPTH_MAX {
            return Err(Fault("its columns are nested more than 64 deep"));
        }
    }
    Ok(())
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

struct Compact<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Compact<'_> {
    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.bytes.get(self.place).ok_or(TRUNCATED)?;
        self.place += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault("a number is too long"))
    }

    fn i32(&mut self) -> Result<i32, Fault> {
        let value = self.varint()?;
        let value = (value >> 1) as i64 ^ -((value & 1) as i64);
        i32::try_from(value).map_err(|_| Fault("a number is too large"))
    }

    /// Id and type of the next field of a structure; none at its end.
    fn field(&mut self, before: i32) -> Result<Option<(i32, u8)>, Fault> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let id = match byte >> 4 {
            0 => self.i32()?,
            step => before.saturating_add(step.into()),
        };
        Ok(Some((id, byte & 0x0f)))
    }

    /// Number and type of the items of a list.
    fn list(&mut self) -> Result<(usize, u8), Fault> {
        let byte = self.byte()?;
        let size = if byte >> 4 == 15 { self.varint()? } else { (byte >> 4).into() };
        let size = usize::try_from(size).map_err(|_| TRUNCATED)?;
        Ok((size, byte & 0x0f))
    }

    fn skip_bytes(&mut self, n_bytes: u64) -> Result<(), Fault> {
        let end = usize::try_from(n_bytes).ok().and_then(|n_bytes| self.place.checked_add(n_bytes));
        self.place = end.filter(|end| *end <= self.bytes.len()).ok_or(TRUNCATED)?;
        Ok(())
    }

    fn skip(&mut self, kind: u8, depth_left: u32) -> Result<(), Fault> {
        let depth_left = depth_left.checked_sub(1).ok_or(Fault("a structure is nested too deeply"))?;
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.skip_bytes(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.skip_bytes(8),
            BINARY => {
                let n_bytes = self.varint()?;
                self.skip_bytes(n_bytes)
            }
            LIST | SET => {
                let (size, kind) = self.list()?;
                (0..size).try_for_each(|_| self.skip_item(kind, depth_left))
            }
            MAP => {
                let size = self.varint()?;
                if size == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..size).try_for_each(|_| {
                    self.skip_item(kinds >> 4, depth_left)?;
                    self.skip_item(kinds & 0x0f, depth_left)
                })
            }
            STRUCT => {
                let mut id = 0;
                while let Some((next, kind)) = self.field(id)? {
                    id = next;
                    self.skip(kind, depth_left)?;
                }
                Ok(())
            }
            _ => Err(Fault("a structure has an unknown type")),
        }
    }

    /// In a list a truth value takes a byte, in a structure none: so every item takes one, and a list ends.
    fn skip_item(&mut self, kind: u8, depth_left: u32) -> Result<(), Fault> {
        if matches!(kind, TRUE | FALSE) { self.skip_bytes(1) } else { self.skip(kind, depth_left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_headers() {
        // type 0, sizes 20 and 10, data page header: 3 values, PLAIN, RLE, RLE.
        let bytes = [0x15, 0, 0x15, 40, 0x15, 20, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0, 99];
        let header = page_header(&bytes).expect("a page header");
        assert_eq!((header.length, header.kind), (17, 0));
        assert_eq!((header.unfolded_size, header.stored_size, header.n_values), (20, 10, 3));
        for end in 0..17 {
            assert_eq!(page_header(&bytes[..end]), Err(TRUNCATED), "{end}");
        }
        assert_eq!(page_header(&[0x15, 0, 0x15, 41, 0]), Err(Fault("a page has an absurd size")));
        assert_eq!(page_header(&[0x1f]), Err(Fault("a structure has an unknown type")));
        let deep = [0x1c; 100];
        assert_eq!(page_header(&deep), Err(Fault("a structure is nested too deeply")));
    }

    #[test]
    fn schemas() {
        let schema = |children: &[u8]| {
            let mut bytes = vec![0x29, 0xfc];
            bytes.push(u8::try_from(children.len()).expect("fewer than 128"));
            children.iter().for_each(|n| bytes.extend([0x55, n * 2, 0]));
            bytes.push(0);
            bytes
        };
        assert_eq!(check_schema(&schema(&[2, 0, 1, 0])), Ok(()));
        assert_eq!(check_schema(&schema(&[1; 64])), Ok(()));
        assert_eq!(check_schema(&schema(&[1; 65])), Err(Fault("its columns are nested more than 64 deep")));
        assert_eq!(
            check_schema(&[0x29, 0xfc, 0xff, 0xff, 0x03]),
            Err(Fault("its schema has more than 10000 elements"))
        );
        assert_eq!(check_schema(&schema(&[1])[..3]), Err(TRUNCATED));
    }
}
