//! A numpy array as Python's pickle stores it.
//!
//! Protocol 4 and the module name `numpy.core.multiarray`: numpy 1 writes it so, and numpy 2 still reads it, while
//! the name that numpy 2 writes does not exist in numpy before 1.26.

/// A float64 array [side, side] from row-major `values`; `pickle.load` opens it with numpy 1 and 2, writable.
///
/// # Panics
/// Where `values` does not hold side² numbers.
pub fn square_matrix(side: u32, values: &[f64]) -> Vec<u8> {
    assert_eq!(values.len(), (side as usize) * (side as usize), "a square matrix of side {side}");
    let mut out = Vec::with_capacity(values.len() * 8 + 200);
    out.extend(PROTO_4);

    // An empty array of unknown shape: _reconstruct(ndarray, (0,), b"b").
    global(&mut out, "numpy.core.multiarray", "_reconstruct");
    global(&mut out, "numpy", "ndarray");
    out.extend([BININT1, 0, TUPLE1, SHORT_BINBYTES, 1, b'b', TUPLE3, REDUCE]);

    // Its state: (version 1, shape, dtype, whether in Fortran order, the numbers).
    out.extend([MARK, BININT1, 1]);
    for _ in 0..2 {
        out.push(LONG1);
        out.push(8);
        out.extend(u64::from(side).to_le_bytes());
    }
    out.push(TUPLE2);
    little_endian_f8(&mut out);
    out.push(NEWFALSE);
    out.push(BINBYTES8);
    out.extend((values.len() as u64 * 8).to_le_bytes());
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    out.extend([TUPLE, BUILD, STOP]);
    out
}

const PROTO_4: [u8; 2] = [0x80, 4];
const MARK: u8 = b'(';
const STOP: u8 = b'.';
const BININT: u8 = b'J';
const BININT1: u8 = b'K';
const LONG1: u8 = 0x8a;
const NONE: u8 = b'N';
const NEWTRUE: u8 = 0x88;
const NEWFALSE: u8 = 0x89;
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES8: u8 = 0x8e;
const SHORT_BINUNICODE: u8 = 0x8c;
const TUPLE: u8 = b't';
const TUPLE1: u8 = 0x85;
const TUPLE2: u8 = 0x86;
const TUPLE3: u8 = 0x87;
const STACK_GLOBAL: u8 = 0x93;
const REDUCE: u8 = b'R';
const BUILD: u8 = b'b';

/// dtype("f8", align False, copy True), told that it is little-endian and has no fields.
fn little_endian_f8(out: &mut Vec<u8>) {
    global(out, "numpy", "dtype");
    text(out, "f8");
    out.extend([NEWFALSE, NEWTRUE, TUPLE3, REDUCE]);
    out.extend([MARK, BININT1, 3]);
    text(out, "<");
    out.extend([NONE, NONE, NONE]);
    for _ in 0..2 {
        out.push(BININT);
        out.extend((-1i32).to_le_bytes());
    }
    out.extend([BININT1, 0, TUPLE, BUILD]);
}

fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    text(out, module);
    text(out, name);
    out.push(STACK_GLOBAL);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(SHORT_BINUNICODE);
    out.push(u8::try_from(text.len()).expect("names of this file are short"));
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpickle::read_matrix;

    #[test]
    fn our_own_reader_reads_it() {
        let values = [1.0, -0.5, f64::NAN, f64::MIN_POSITIVE];
        let read = read_matrix(&square_matrix(2, &values)).unwrap();
        assert_eq!(read.shape, [2, 2]);
        assert!(read.values.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_eq!(read_matrix(&square_matrix(300, &vec![0.25; 90_000])).unwrap().shape, [300, 300]);
    }
}
