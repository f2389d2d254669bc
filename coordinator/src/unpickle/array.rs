//! The few names by which numpy writes an array, and what they make.

use lsa_common::pickle::{self, Heap, Object, Value, ValueOf, Vocabulary};

use super::UnpickleError;

/// An array as stored: the numbers' bytes and how to read them; `bytes` holds exactly what the shape needs.
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    pub fortran: bool,
    pub bytes: Vec<u8>,
}

/// The type of an array's numbers.
#[derive(Clone, Copy)]
pub(super) struct Dtype {
    pub kind: Kind,
    /// Bytes of one number.
    pub bytes: usize,
    pub big_endian: bool,
}

/// How a number's bits are meant.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Float,
    Signed,
    Unsigned,
}

/// Runs the pickle and takes the array that it leaves.
pub(super) fn read(pickle: &[u8]) -> Result<Array, UnpickleError> {
    let finished = pickle::run(pickle, Numpy { decoded_budget: pickle.len() })?;
    let found = match finished.value {
        Value::Object(place) => match finished.heap.object(place) {
            Object::Made(Made::Array(parts)) => return checked(&finished.heap, *parts),
            Object::Made(Made::Decoded(_)) => "bytes",
            Object::Made(Made::Dtype { .. }) => "a dtype",
            Object::Made(Made::EmptyArray) => "an array without content",
            Object::Tuple(_) => "a tuple",
            Object::List(_) => "a list",
            Object::Dict(_) => "a dict",
        },
        Value::Bytes(_) => "bytes",
        Value::Text(_) => "a text",
        Value::Int(_) | Value::Long(_) | Value::Float(_) | Value::Bool(_) => "a number",
        Value::None => "nothing",
        Value::Global(_) => "a function",
    };
    Err(UnpickleError::NotArray { found })
}

fn checked<'a>(heap: &Heap<'a, Numpy>, parts: Parts<'a>) -> Result<Array, UnpickleError> {
    let damaged = |what| UnpickleError::Damaged { what };
    let shape = heap.tuple(parts.shape).ok_or_else(|| damaged("its shape is not a tuple"))?;
    let length = |value: &ValueOf<'a, Numpy>| match value {
        Value::Int(length) => usize::try_from(*length).ok(),
        _ => None,
    };
    let shape: Option<Vec<usize>> = shape.iter().map(length).collect();
    let shape = shape.ok_or_else(|| damaged("its shape is not made of lengths"))?;
    let dtype = dtype(heap, parts.dtype)?;
    let bytes = match (parts.bytes, heap.made(parts.bytes)) {
        (Value::Bytes(bytes), _) => bytes,
        (_, Some(Made::Decoded(bytes))) => bytes,
        _ => return Err(damaged("it has no numbers")),
    };
    let needed = shape.iter().try_fold(dtype.bytes, |product, length| product.checked_mul(*length));
    if needed != Some(bytes.len()) {
        return Err(damaged("its shape does not fit its numbers"));
    }
    Ok(Array { shape, dtype, fortran: parts.fortran, bytes: bytes.to_vec() })
}

fn dtype<'a>(heap: &Heap<'a, Numpy>, value: ValueOf<'a, Numpy>) -> Result<Dtype, UnpickleError> {
    let (name, order) = match (value, heap.made(value)) {
        (Value::Text(name), _) => (name, None),
        (_, Some(Made::Dtype { name, order })) => (*name, *order),
        _ => return Err(UnpickleError::Damaged { what: "its dtype is none" }),
    };
    let (prefix, item) = match name.as_bytes().first() {
        Some(b'<' | b'>' | b'|' | b'=') => name.split_at(1),
        _ => ("", name),
    };
    let order = order.unwrap_or(prefix);
    let known = match item {
        "f8" => Some((Kind::Float, 8)),
        "f4" => Some((Kind::Float, 4)),
        "i8" => Some((Kind::Signed, 8)),
        "i4" => Some((Kind::Signed, 4)),
        "i2" => Some((Kind::Signed, 2)),
        "i1" => Some((Kind::Signed, 1)),
        "u8" => Some((Kind::Unsigned, 8)),
        "u4" => Some((Kind::Unsigned, 4)),
        "u2" => Some((Kind::Unsigned, 2)),
        "u1" | "b1" => Some((Kind::Unsigned, 1)),
        _ => None,
    };
    match (known, order) {
        (Some((kind, bytes)), "<" | ">" | "|" | "=" | "") => {
            Ok(Dtype { kind, bytes, big_endian: order == ">" })
        }
        _ => Err(UnpickleError::Dtype { dtype: format!("{order}{item}").chars().take(80).collect() }),
    }
}

/// The names that a pickle may refer to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Global {
    Reconstruct,
    FromBuffer,
    Ndarray,
    Dtype,
    Encode,
}

/// What has no form in plain values.
pub(super) enum Made<'a> {
    /// Bytes that a text was encoded into.
    Decoded(Vec<u8>),
    /// The type as numpy names it, and the byte order if it is said apart.
    Dtype {
        name: &'a str,
        order: Option<&'a str>,
    },
    /// What `_reconstruct` makes: an array that waits for its state.
    EmptyArray,
    Array(Parts<'a>),
}

/// An array's parts, not yet checked against each other.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    shape: Value<'a, Global>,
    dtype: Value<'a, Global>,
    fortran: bool,
    bytes: Value<'a, Global>,
}

/// The vocabulary of numpy's arrays.
pub(super) struct Numpy {
    /// Bytes that texts may still be encoded into; an honest file encodes each of its texts once.
    decoded_budget: usize,
}

impl Numpy {
    /// The bytes of a text in Latin-1, which is how protocol 2 stores bytes.
    fn encoded(&mut self, text: &str) -> Result<Vec<u8>, &'static str> {
        let bytes: Result<Vec<u8>, _> = text.chars().map(|letter| u8::try_from(u32::from(letter))).collect();
        let bytes = bytes.map_err(|_| "bytes with a letter beyond Latin-1")?;
        let left = self.decoded_budget.checked_sub(bytes.len());
        self.decoded_budget = left.ok_or("the same bytes encoded again and again")?;
        Ok(bytes)
    }
}

impl<'a> Vocabulary<'a> for Numpy {
    type Global = Global;
    type Made = Made<'a>;
    const CONTENT: &'static str = "numpy arrays";
    /// An array takes under a hundred; with this bound, what a file makes the machine hold beside its own bytes stays
    /// under 20 MiB, however long the file is.
    const STEPS_MAX: usize = 100_000;

    fn global(module: &str, name: &str) -> Option<Global> {
        match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Some(Global::Reconstruct),
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Some(Global::FromBuffer),
            ("numpy", "ndarray") => Some(Global::Ndarray),
            ("numpy", "dtype") => Some(Global::Dtype),
            ("_codecs", "encode") => Some(Global::Encode),
            _ => None,
        }
    }

    fn call(
        &mut self,
        _heap: &Heap<'a, Self>,
        callee: Global,
        arguments: &[ValueOf<'a, Self>],
    ) -> Result<Object<'a, Self>, &'static str> {
        let made = match (callee, arguments) {
            (Global::Reconstruct, [Value::Global(Global::Ndarray), _, _]) => Made::EmptyArray,
            (Global::Dtype, [Value::Text(name), ..]) => Made::Dtype { name, order: None },
            (Global::Ndarray, [shape, dtype, bytes]) => {
                Made::Array(Parts { shape: *shape, dtype: *dtype, fortran: false, bytes: *bytes })
            }
            (Global::FromBuffer, [bytes, dtype, shape, Value::Text(order @ ("C" | "F"))])
            | (Global::FromBuffer, [bytes, dtype, shape, Value::Text(order @ ("C" | "F")), Value::None]) => {
                Made::Array(Parts { shape: *shape, dtype: *dtype, fortran: *order == "F", bytes: *bytes })
            }
            (Global::Encode, [Value::Text(text), Value::Text("latin1")]) => {
                Made::Decoded(self.encoded(text)?)
            }
            _ => return Err("a call with arguments that make no array"),
        };
        Ok(Object::Made(made))
    }

    fn build(
        &mut self,
        heap: &Heap<'a, Self>,
        target: usize,
        state: ValueOf<'a, Self>,
    ) -> Result<Option<Object<'a, Self>>, &'static str> {
        let state = heap.tuple(state).ok_or("a state that is not a tuple")?;
        let built = match (heap.object(target), state) {
            // (version, shape, dtype, whether in Fortran order, bytes)
            (Object::Made(Made::EmptyArray), [Value::Int(_), shape, dtype, Value::Bool(fortran), bytes]) => {
                Made::Array(Parts { shape: *shape, dtype: *dtype, fortran: *fortran, bytes: *bytes })
            }
            // (version, byte order, then what only structured types have)
            (
                Object::Made(Made::Dtype { name, .. }),
                [Value::Int(_), Value::Text(order), Value::None, Value::None, Value::None, ..],
            ) => Made::Dtype { name, order: Some(order) },
            _ => return Err("a state that is neither an array's nor a plain dtype's"),
        };
        Ok(Some(Object::Made(built)))
    }

    fn persistent(
        &mut self,
        _heap: &Heap<'a, Self>,
        _id: ValueOf<'a, Self>,
    ) -> Result<Object<'a, Self>, &'static str> {
        Err("a reference to something outside of it")
    }
}
