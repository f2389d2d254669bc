//! Reads the numpy arrays of older result files (`.pkl`) and nothing else.
//!
//! A pickle is a program; Python runs whatever it names. This reader knows the handful of instructions and names
//! by which numpy 1 and 2 write an array at protocols 2 to 5, and refuses every other one by name. It calls
//! nothing, follows no references into loops, and holds no more memory than a small multiple of the file's size.

mod array;

use array::{Array, Dtype, Kind};
use lsa_common::pickle::PickleError;

/// A two-dimensional array, as float64.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The numbers, row-major.
    pub values: Vec<f64>,
}

/// Why a file does not hold a matrix that may be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnpickleError {
    /// No pickle, a damaged one, or one that needs more than arrays.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The parts of the array do not fit together.
    #[error("the array in the pickle is damaged: {what}")]
    Damaged {
        /// What does not fit.
        what: &'static str,
    },
    /// The pickle is sound but holds something else.
    #[error("the pickle holds {found}, expected one numpy array")]
    NotArray {
        /// What it holds.
        found: &'static str,
    },
    /// The array has numbers of another type.
    #[error("the array has the dtype {dtype:?}; float64, float32, integers and bool are read")]
    Dtype {
        /// As numpy writes it.
        dtype: String,
    },
    /// The array is not a matrix.
    #[error("the array has the shape {shape:?}, expected two dimensions")]
    Shape {
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// The matrix in a pickle that numpy wrote.
///
/// Reads float64, float32, integers of 1 to 8 bytes and bool, in either byte order, in C or Fortran order;
/// integers beyond 2^53 are rounded. Bytes after the end of the pickle are ignored, as Python does.
pub fn read_matrix(pickle: &[u8]) -> Result<Matrix, UnpickleError> {
    let array = array::read(pickle)?;
    let shape: [usize; 2] =
        array.shape.as_slice().try_into().map_err(|_| UnpickleError::Shape { shape: array.shape.clone() })?;
    let stored = numbers(&array);
    let [rows, columns] = shape;
    let values = if array.fortran {
        (0..rows * columns).map(|place| stored[place % columns * rows + place / columns]).collect()
    } else {
        stored
    };
    Ok(Matrix { shape, values })
}

/// The numbers in the order in which they are stored.
fn numbers(array: &Array) -> Vec<f64> {
    let Dtype { kind, bytes, big_endian } = array.dtype;
    let number = |item: &[u8]| {
        // The item's bytes from the lowest to the highest, filled up with zeros.
        let mut low_first = [0u8; 8];
        for (place, byte) in item.iter().enumerate() {
            low_first[if big_endian { item.len() - 1 - place } else { place }] = *byte;
        }
        let bits = u64::from_le_bytes(low_first);
        match kind {
            Kind::Float if bytes == 4 => f64::from(f32::from_bits(bits as u32)),
            Kind::Float => f64::from_bits(bits),
            Kind::Unsigned => bits as f64,
            Kind::Signed => {
                // Shifted up and back, the highest bit of the item spreads over the bytes that it lacks.
                let unused = 64 - 8 * bytes as u32;
                ((bits << unused) as i64 >> unused) as f64
            }
        }
    };
    array.bytes.chunks_exact(bytes).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pickle of tests/fixtures/pickles: name and bytes.
    fn fixtures() -> Vec<(String, Vec<u8>)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pickles");
        let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "pkl"))
            .map(|path| {
                (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn reads_what_numpy_1_and_2_write_at_every_protocol() {
        let nan = f64::NAN;
        let files = fixtures();
        assert_eq!(files.len(), 2 * 4 * 7);
        for (name, bytes) in files {
            let expected = match name.split_once("_p").unwrap().1.split_once('_').unwrap().1 {
                "f8" | "f8_big" | "f4" => ([3, 3], vec![1.0, 0.75, -0.5, 0.75, 1.0, 0.25, -0.5, 0.25, nan]),
                "f8_fortran" => ([2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
                "i8" | "i4" | "u1" => ([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
                other => panic!("a fixture without expectation: {other}"),
            };
            let read = read_matrix(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(read.shape, expected.0, "{name}");
            let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
            assert!(read.values.iter().zip(&expected.1).all(same), "{name}: {:?}", read.values);
            assert_eq!(read.values.len(), expected.1.len());
        }
    }

    #[test]
    fn the_form_ndarray_of_a_buffer() {
        let mut pickle =
            b"\x80\x05cnumpy\nndarray\n(K\x01K\x02\x86\x8c\x03<f4\x96\x08\0\0\0\0\0\0\0".to_vec();
        pickle.extend(b"\0\0\x80\x3f\0\0\0\x40tR.");
        assert_eq!(read_matrix(&pickle), Ok(Matrix { shape: [1, 2], values: vec![1.0, 2.0] }));
    }

    #[test]
    fn signed_integers() {
        let array = |dtype: &[u8], item: &[u8]| {
            let mut pickle = b"\x80\x05cnumpy\nndarray\n(K\x01K\x01\x86\x8c".to_vec();
            pickle.push(dtype.len() as u8);
            pickle.extend(dtype);
            pickle.push(b'C');
            pickle.push(item.len() as u8);
            pickle.extend(item);
            pickle.extend(b"tR.");
            read_matrix(&pickle).map(|matrix| matrix.values[0])
        };
        assert_eq!(array(b"|i1", &[0xff]), Ok(-1.0));
        assert_eq!(array(b"|b1", &[1]), Ok(1.0));
        assert_eq!(array(b">i2", &[0xff, 0x00]), Ok(-256.0));
        assert_eq!(array(b"<u2", &[0xff, 0xff]), Ok(65535.0));
        assert_eq!(array(b"<i8", &i64::MIN.to_le_bytes()), Ok(i64::MIN as f64));
        assert!(matches!(array(b"<f2", &[0, 0]), Err(UnpickleError::Dtype { .. })));
        assert!(matches!(array(b"|O", &[0, 0]), Err(UnpickleError::Dtype { .. })));
        assert!(matches!(array(b"<f8", &[0; 7]), Err(UnpickleError::Damaged { .. })));
    }

    #[test]
    fn nothing_but_arrays_is_built() {
        let check = |pickle: &[u8], expected: &str| match read_matrix(pickle) {
            Err(UnpickleError::Pickle(PickleError::Global { name, .. })) => assert_eq!(name, expected),
            other => panic!("{expected}: {other:?}"),
        };
        check(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.", "os.system");
        check(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "posix.system");
        check(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval");
        check(b"\x80\x02cnumpy\nload\n.", "numpy.load");
        check(b"\x80\x02cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar");
        // Known names are not functions to be called at will.
        assert!(matches!(read_matrix(b"\x80\x02c_codecs\nencode\n."), Err(UnpickleError::NotArray { .. })));
        assert!(matches!(
            read_matrix(b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R."),
            Err(UnpickleError::Pickle(PickleError::Damaged { .. }))
        ));
    }

    #[test]
    fn other_contents_are_named() {
        let found = |pickle: &[u8]| read_matrix(pickle).unwrap_err().to_string();
        assert!(found(b"\x80\x04\x8c\x02hi.").contains("a text"));
        assert!(found(b"\x80\x04}.").contains("a dict"));
        assert_eq!(read_matrix(b""), Err(PickleError::Truncated { offset: 0 }.into()));
        assert_eq!(read_matrix(b"\x93NUMPY"), Err(PickleError::NotPickle.into()));
        assert_eq!(read_matrix(b"(lp0\n."), Err(PickleError::NotPickle.into()));
        assert_eq!(read_matrix(b"\x80\x06N."), Err(PickleError::NotPickle.into()));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        for (name, bytes) in fixtures() {
            for end in 0..bytes.len() {
                assert!(read_matrix(&bytes[..end]).is_err(), "{name} cut at {end}");
            }
            let mut damaged = bytes.clone();
            for place in 0..bytes.len() {
                for bit in 0..8 {
                    damaged[place] ^= 1 << bit;
                    // A flipped bit may well leave another array; it must only not break the reader.
                    if let Ok(matrix) = read_matrix(&damaged) {
                        assert!(matrix.values.len() <= bytes.len(), "{name}: bit {bit} of byte {place}");
                    }
                    damaged[place] ^= 1 << bit;
                }
            }
        }
    }

    #[test]
    fn small_files_cannot_grow() {
        // Each DUP-like pair of memo reads doubles what a naive reader would copy.
        let mut bomb = b"\x80\x04)\x94".to_vec();
        for level in 0..200u8 {
            bomb.extend([b'h', level, b'h', level, 0x86, 0x94]);
        }
        bomb.push(b'.');
        assert!(matches!(read_matrix(&bomb), Err(UnpickleError::NotArray { .. })));

        // Tuples nested as deep as the file is long: no recursion may follow them.
        let mut deep = b"\x80\x04)".to_vec();
        deep.extend(std::iter::repeat_n(0x85, 2_000_000));
        deep.push(b'.');
        assert!(matches!(read_matrix(&deep), Err(UnpickleError::Pickle(PickleError::Damaged { .. }))));

        // A text decoded again and again.
        let mut again = b"\x80\x02c_codecs\nencode\nq\0X\x00\x04\0\0".to_vec();
        again.extend([b'a'; 1024]);
        again.extend(b"q\x01X\x06\0\0\0latin1q\x02");
        for _ in 0..1000 {
            again.extend(b"h\0h\x01h\x02\x86R");
        }
        again.push(b'.');
        assert!(matches!(read_matrix(&again), Err(UnpickleError::Pickle(PickleError::Damaged { .. }))));

        // A shape of more numbers than the file has bytes, and shapes of nothing times everything.
        let shape = |rows: u64, columns: u64| {
            let mut pickle = b"\x80\x05cnumpy\nndarray\n(".to_vec();
            for length in [rows, columns] {
                pickle.extend([0x8a, 9]);
                pickle.extend(length.to_le_bytes());
                pickle.push(0);
            }
            pickle.extend(b"\x86\x8c\x03<f8C\0tR.");
            read_matrix(&pickle)
        };
        assert!(shape(1 << 40, 1).is_err());
        assert!(shape(u64::MAX, u64::MAX).is_err());
        assert!(shape(1 << 32, 1 << 32).is_err());
        assert_eq!(shape(0, 0).map(|matrix| matrix.values.len()), Ok(0));
    }
}
