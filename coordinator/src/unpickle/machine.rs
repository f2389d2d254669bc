//! The stack machine of a pickle, cut down to what arrays need.
//!
//! Values are small and copyable: texts and bytes are slices of the file, everything else with parts lies in one
//! list of objects and is referred to by its place. So copying a value is cheap however often a file asks for it,
//! nothing is nested in memory, and dropping the machine never recurses.

use super::UnpickleError;

/// Instructions followed at most. An array takes under a hundred; with this bound, what a file makes the machine hold
/// beside its own bytes stays under a few MiB, however long the file is.
const STEPS_MAX: usize = 100_000;

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
pub(super) fn run(pickle: &[u8]) -> Result<Array, UnpickleError> {
    let [0x80, 2..=5, ..] = pickle else {
        return Err(UnpickleError::NotPickle);
    };
    let mut machine = Machine {
        pickle,
        at: 2,
        start: 0,
        stack: Vec::new(),
        memo: Vec::new(),
        objects: Vec::new(),
        decoded_budget: pickle.len(),
    };
    for _ in 0..STEPS_MAX {
        if !machine.step()? {
            return machine.result();
        }
    }
    Err(machine.damaged("more instructions than any array needs"))
}

/// A value on the stack or in the memo.
#[derive(Clone, Copy)]
enum Value<'a> {
    Mark,
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Global(Global),
    /// The place of an object.
    Object(usize),
}

/// The names that a pickle may refer to.
#[derive(Clone, Copy, PartialEq)]
enum Global {
    Reconstruct,
    FromBuffer,
    Ndarray,
    Dtype,
    Encode,
}

/// What has parts, or changes after it was made.
enum Object<'a> {
    Tuple(Vec<Value<'a>>),
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
struct Parts<'a> {
    shape: Value<'a>,
    dtype: Value<'a>,
    fortran: bool,
    bytes: Value<'a>,
}

struct Machine<'a> {
    pickle: &'a [u8],
    /// The next byte, and the first byte of the instruction at work.
    at: usize,
    start: usize,
    stack: Vec<Value<'a>>,
    memo: Vec<Option<Value<'a>>>,
    objects: Vec<Object<'a>>,
    /// Bytes that texts may still be encoded into; an honest file encodes each of its texts once.
    decoded_budget: usize,
}

impl<'a> Machine<'a> {
    /// One instruction; false once the pickle has stopped.
    fn step(&mut self) -> Result<bool, UnpickleError> {
        self.start = self.at;
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(false),
            // FRAME: how many bytes to read ahead.
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.stack.push(Value::Mark),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let bytes = self.array::<4>()?;
                self.stack.push(Value::Int(i32::from_le_bytes(bytes).into()));
            }
            0x8a => self.long()?,
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.bytes(1)?,
            b'B' => self.bytes(4)?,
            // BINBYTES8 and BYTEARRAY8.
            0x8e | 0x96 => self.bytes(8)?,
            b')' => self.tuple(0)?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
                let mark = mark.ok_or_else(|| self.damaged("a tuple without a beginning"))?;
                let parts = self.stack.split_off(mark + 1);
                self.stack.pop();
                self.push_object(Object::Tuple(parts));
            }
            0x94 => {
                let top = self.top()?;
                self.memo.push(Some(top));
            }
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(self.damaged("a name that is not a text"));
                };
                self.global(module, name)?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => return Err(UnpickleError::Opcode { opcode, offset: self.start }),
        }
        Ok(true)
    }

    /// The array that the pickle left on the stack.
    fn result(mut self) -> Result<Array, UnpickleError> {
        let found = match self.pop()? {
            Value::Object(place) => match &self.objects[place] {
                Object::Array(parts) => return self.checked(*parts),
                Object::Tuple(_) => "a tuple",
                Object::Decoded(_) => "bytes",
                Object::Dtype { .. } => "a dtype",
                Object::EmptyArray => "an array without content",
            },
            Value::Bytes(_) => "bytes",
            Value::Text(_) => "a text",
            Value::Int(_) | Value::Bool(_) => "a number",
            Value::None | Value::Mark => "nothing",
            Value::Global(_) => "a function",
        };
        Err(UnpickleError::NotArray { found })
    }

    fn checked(&self, parts: Parts<'a>) -> Result<Array, UnpickleError> {
        let shape = self.parts_of(parts.shape).ok_or_else(|| self.damaged("a shape that is not a tuple"))?;
        let length = |value: &Value| match value {
            Value::Int(length) => usize::try_from(*length).ok(),
            _ => None,
        };
        let shape: Option<Vec<usize>> = shape.iter().map(length).collect();
        let shape = shape.ok_or_else(|| self.damaged("a shape that is not made of lengths"))?;
        let dtype = self.dtype(parts.dtype)?;
        let bytes = match parts.bytes {
            Value::Bytes(bytes) => bytes,
            Value::Object(place) => match &self.objects[place] {
                Object::Decoded(bytes) => bytes,
                _ => return Err(self.damaged("an array without numbers")),
            },
            _ => return Err(self.damaged("an array without numbers")),
        };
        let needed = shape.iter().try_fold(dtype.bytes, |product, length| product.checked_mul(*length));
        if needed != Some(bytes.len()) {
            return Err(self.damaged("an array whose shape does not fit its numbers"));
        }
        Ok(Array { shape, dtype, fortran: parts.fortran, bytes: bytes.to_vec() })
    }

    fn dtype(&self, value: Value<'a>) -> Result<Dtype, UnpickleError> {
        let (name, order) = match value {
            Value::Text(name) => (name, None),
            Value::Object(place) => match &self.objects[place] {
                Object::Dtype { name, order } => (*name, *order),
                _ => return Err(self.damaged("a dtype that is none")),
            },
            _ => return Err(self.damaged("a dtype that is none")),
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

    fn global(&mut self, module: &str, name: &str) -> Result<(), UnpickleError> {
        let known = match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::Reconstruct,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::FromBuffer,
            ("numpy", "ndarray") => Global::Ndarray,
            ("numpy", "dtype") => Global::Dtype,
            ("_codecs", "encode") => Global::Encode,
            _ => {
                let name: String = format!("{module}.{name}").chars().take(200).collect();
                return Err(UnpickleError::Global { name, offset: self.start });
            }
        };
        self.stack.push(Value::Global(known));
        Ok(())
    }

    /// What Python would do by calling; here each known name has its one meaning.
    fn reduce(&mut self) -> Result<(), UnpickleError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let arguments = self.parts_of(arguments).ok_or_else(|| self.damaged("a call without arguments"))?;
        let made = match (callee, arguments) {
            (Value::Global(Global::Reconstruct), [Value::Global(Global::Ndarray), _, _]) => {
                Object::EmptyArray
            }
            (Value::Global(Global::Dtype), [Value::Text(name), ..]) => Object::Dtype { name, order: None },
            (Value::Global(Global::Ndarray), [shape, dtype, bytes]) => {
                Object::Array(Parts { shape: *shape, dtype: *dtype, fortran: false, bytes: *bytes })
            }
            (Value::Global(Global::FromBuffer), [bytes, dtype, shape, Value::Text(order @ ("C" | "F"))])
            | (
                Value::Global(Global::FromBuffer),
                [bytes, dtype, shape, Value::Text(order @ ("C" | "F")), Value::None],
            ) => Object::Array(Parts { shape: *shape, dtype: *dtype, fortran: *order == "F", bytes: *bytes }),
            (Value::Global(Global::Encode), [Value::Text(text), Value::Text("latin1")]) => {
                let text = *text;
                self.encoded(text)?
            }
            _ => return Err(self.damaged("a call with arguments that make no array")),
        };
        self.push_object(made);
        Ok(())
    }

    /// The bytes of a text in Latin-1, which is how protocol 2 stores bytes.
    fn encoded(&mut self, text: &str) -> Result<Object<'a>, UnpickleError> {
        let bytes: Result<Vec<u8>, _> = text.chars().map(|letter| u8::try_from(u32::from(letter))).collect();
        let bytes = bytes.map_err(|_| self.damaged("bytes with a letter beyond Latin-1"))?;
        self.decoded_budget = self
            .decoded_budget
            .checked_sub(bytes.len())
            .ok_or_else(|| self.damaged("the same bytes encoded again and again"))?;
        Ok(Object::Decoded(bytes))
    }

    /// Gives the object below the top the state on top.
    fn build(&mut self) -> Result<(), UnpickleError> {
        let (state, target) = (self.pop()?, self.top()?);
        let state = self.parts_of(state).ok_or_else(|| self.damaged("a state that is not a tuple"))?;
        let Value::Object(place) = target else {
            return Err(self.damaged("a state for what has none"));
        };
        let built = match (&self.objects[place], state) {
            // (version, shape, dtype, whether in Fortran order, bytes)
            (Object::EmptyArray, [Value::Int(_), shape, dtype, Value::Bool(fortran), bytes]) => {
                Object::Array(Parts { shape: *shape, dtype: *dtype, fortran: *fortran, bytes: *bytes })
            }
            // (version, byte order, then what only structured types have)
            (
                Object::Dtype { name, .. },
                [Value::Int(_), Value::Text(order), Value::None, Value::None, Value::None, ..],
            ) => Object::Dtype { name, order: Some(order) },
            _ => return Err(self.damaged("a state that is neither an array's nor a plain dtype's")),
        };
        self.objects[place] = built;
        Ok(())
    }

    fn integer(&mut self, width: usize) -> Result<(), UnpickleError> {
        let value = self.length(width)?;
        self.stack.push(Value::Int(value as i64));
        Ok(())
    }

    /// A little-endian two's complement integer of a length of its own; lengths of arrays fit 64 bits.
    fn long(&mut self) -> Result<(), UnpickleError> {
        let width = self.length(1)?;
        let bytes = self.take(width)?;
        let negative = bytes.last().is_some_and(|highest| *highest >= 0x80);
        if negative || bytes.iter().skip(8).any(|byte| *byte != 0) {
            return Err(self.damaged("an integer that is no length"));
        }
        let value = bytes.iter().take(8).rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let value = i64::try_from(value).map_err(|_| self.damaged("an integer that is no length"))?;
        self.stack.push(Value::Int(value));
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), UnpickleError> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Result<(), UnpickleError> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        self.stack.push(Value::Bytes(bytes));
        Ok(())
    }

    fn tuple(&mut self, parts: usize) -> Result<(), UnpickleError> {
        let first =
            self.stack.len().checked_sub(parts).ok_or_else(|| self.damaged("a tuple of too few values"))?;
        let parts = self.stack.split_off(first);
        if parts.iter().any(|value| matches!(value, Value::Mark)) {
            return Err(self.damaged("a tuple of too few values"));
        }
        self.push_object(Object::Tuple(parts));
        Ok(())
    }

    fn put(&mut self, width: usize) -> Result<(), UnpickleError> {
        let place = self.length(width)?;
        let top = self.top()?;
        // Python numbers its memo from 0 without gaps.
        if place >= STEPS_MAX {
            return Err(self.damaged("a memo place beyond what any array needs"));
        }
        if place >= self.memo.len() {
            self.memo.resize(place + 1, None);
        }
        self.memo[place] = Some(top);
        Ok(())
    }

    fn get(&mut self, width: usize) -> Result<(), UnpickleError> {
        let place = self.length(width)?;
        let value = self.memo.get(place).copied().flatten();
        let value = value.ok_or_else(|| self.damaged("a memo place that holds nothing"))?;
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object<'a>) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn parts_of(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Object(place) => match &self.objects[place] {
                Object::Tuple(parts) => Some(parts),
                _ => None,
            },
            _ => None,
        }
    }

    fn pop(&mut self) -> Result<Value<'a>, UnpickleError> {
        match self.stack.pop() {
            Some(Value::Mark) | None => Err(self.damaged("a value is missing")),
            Some(value) => Ok(value),
        }
    }

    fn top(&self) -> Result<Value<'a>, UnpickleError> {
        match self.stack.last() {
            Some(Value::Mark) | None => Err(self.damaged("a value is missing")),
            Some(value) => Ok(*value),
        }
    }

    /// An unsigned little-endian integer of `width` bytes, at most 8.
    fn length(&mut self, width: usize) -> Result<usize, UnpickleError> {
        let bytes = self.take(width)?;
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| self.damaged("a length beyond the address space"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UnpickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A line of text without its end.
    fn line(&mut self) -> Result<&'a str, UnpickleError> {
        let rest = &self.pickle[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or(UnpickleError::Truncated { offset: self.pickle.len() })?;
        let line = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| self.damaged("a name that is not UTF-8"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], UnpickleError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.pickle.len());
        let end = end.ok_or(UnpickleError::Truncated { offset: self.pickle.len() })?;
        let taken = &self.pickle[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn damaged(&self, what: &'static str) -> UnpickleError {
        UnpickleError::Damaged { what, offset: self.start }
    }
}
