//! The header of NumPy's `.npy` format: a Python dictionary of element type, axis order and shape.

use std::io::{self, Read};

use super::stored::Element;

/// Longer headers than any array of numbers has are refused.
const HEADER_BYTES_MAX: usize = 1 << 16;
/// More axes than layers have, but few enough to keep messages short.
const AXES_MAX: usize = 8;

/// What a header says.
#[derive(Debug, PartialEq)]
pub struct NpyHeader {
    pub element: Element,
    pub big_endian: bool,
    pub fortran_order: bool,
    pub shape: Vec<u64>,
    /// Where the elements begin, counted from the start of the array.
    pub data_start: u64,
}

/// Why a header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    #[error("the file ends within its header")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Malformed(String),
}

/// Reads the header and leaves `reader` at the first element.
pub fn read_header(mut reader: impl Read) -> Result<NpyHeader, NpyError> {
    let malformed = |message: &str| NpyError::Malformed(message.to_owned());
    let mut start = [0; 8];
    reader.read_exact(&mut start)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(malformed("this is not a .npy array"));
    }
    let (length_bytes, length) = match start[6] {
        1 => {
            let mut bytes = [0; 2];
            reader.read_exact(&mut bytes)?;
            (2, usize::from(u16::from_le_bytes(bytes)))
        }
        2 | 3 => {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes)?;
            (4, usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX))
        }
        version => return Err(NpyError::Malformed(format!("version {version} of .npy is not known"))),
    };
    if length > HEADER_BYTES_MAX {
        return Err(NpyError::Malformed(format!("a header of {length} bytes is too long")));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text)?;
    let text = String::from_utf8(text).map_err(|_| malformed("the header is not text"))?;
    let (element, big_endian) = parse_element(value_of(&text, "descr")?)?;
    let fortran_order = match value_of(&text, "fortran_order")?.split([',', '}']).next().map(str::trim) {
        Some("True") => true,
        Some("False") => false,
        _ => return Err(malformed("fortran_order in the header is neither True nor False")),
    };
    let shape = parse_shape(value_of(&text, "shape")?)?;
    Ok(NpyHeader {
        element,
        big_endian,
        fortran_order,
        shape,
        data_start: (8 + length_bytes + length) as u64,
    })
}

/// What follows `'key':`.
fn value_of<'a>(text: &'a str, key: &str) -> Result<&'a str, NpyError> {
    let missing = || NpyError::Malformed(format!("the header does not say {key:?}"));
    let after = ['\'', '"'].iter().find_map(|quote| text.split_once(&format!("{quote}{key}{quote}")));
    let (_, after) = after.ok_or_else(missing)?;
    after.trim_start().strip_prefix(':').map(str::trim_start).ok_or_else(missing)
}

fn parse_element(text: &str) -> Result<(Element, bool), NpyError> {
    let refused = |found: &str| {
        let found: String = found.chars().take(40).collect();
        NpyError::Malformed(format!(
            "elements of type {found} are not numbers; save a float32 or float64 array"
        ))
    };
    let quote =
        text.chars().next().filter(|quote| matches!(quote, '\'' | '"')).ok_or_else(|| refused(text))?;
    let name = text[1..].split(quote).next().unwrap_or_default();
    let big_endian = name.starts_with('>');
    let element = match name.trim_start_matches(['<', '>', '=', '|']) {
        "f2" => Element::Float16,
        "f4" => Element::Float32,
        "f8" => Element::Float64,
        "i1" => Element::Int8,
        "i2" => Element::Int16,
        "i4" => Element::Int32,
        "i8" => Element::Int64,
        "u1" => Element::Uint8,
        "u2" => Element::Uint16,
        "u4" => Element::Uint32,
        "u8" => Element::Uint64,
        _ => return Err(refused(name)),
    };
    Ok((element, big_endian))
}

fn parse_shape(text: &str) -> Result<Vec<u64>, NpyError> {
    let malformed =
        || NpyError::Malformed("the shape in the header is not a tuple of whole numbers".to_owned());
    let inner = text.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(malformed)?.0;
    let sides = inner.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<u64> =
        sides.take(AXES_MAX + 1).map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
    if shape.len() > AXES_MAX { Err(malformed()) } else { Ok(shape) }
}

/// A whole `.npy` file of float64 numbers in C order.
///
/// # Panics
/// Where `values` are not as many as `shape` says.
pub fn npy_bytes(shape: &[usize], values: &[f64]) -> Vec<u8> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "values of an array of shape {shape:?}");
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version and length take ten bytes; with them the header fills whole blocks of 64.
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).expect("a few axes").to_le_bytes());
    bytes.extend(header.as_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_written_are_read_back() {
        let bytes = npy_bytes(&[2, 3], &[0.0; 6]);
        assert_eq!((bytes.len() - 48) % 64, 0);
        let header = read_header(&bytes[..]).unwrap();
        assert_eq!(header.shape, [2, 3]);
        assert_eq!((header.element, header.fortran_order), (Element::Float64, false));
        assert_eq!(header.data_start as usize + 48, bytes.len());
    }

    #[test]
    fn headers_that_do_not_describe_numbers_are_refused() {
        let with = |dictionary: &str| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend(u16::try_from(dictionary.len()).unwrap().to_le_bytes());
            bytes.extend(dictionary.as_bytes());
            read_header(&bytes[..]).map_err(|error| error.to_string())
        };
        let check = |dictionary: &str, expected: &str| {
            let error = with(dictionary).unwrap_err();
            assert!(error.contains(expected), "{dictionary}: {error}");
        };
        assert!(with("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }").is_ok());
        check("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "are not numbers");
        check("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "are not numbers");
        check("{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }", "are not numbers");
        check("{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }", "neither True nor False");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "not a tuple");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "not a tuple");
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "not a tuple");
        check("{'descr': '<f4', 'shape': (2,), }", "fortran_order");
        check("", "descr");
    }
}
