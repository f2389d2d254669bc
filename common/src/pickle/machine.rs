//! The instructions, the stack and the memo.

use super::{Finished, Heap, Object, PickleError, Value, ValueOf, Vocabulary};

/// Letters of a refused name that an error shows.
const NAME_LETTERS_MAX: usize = 200;
/// Bytes of the instruction that names the protocol.
const PROTOCOL_BYTES: usize = 2;

pub(super) struct Machine<'a, V: Vocabulary<'a>> {
    bytes: &'a [u8],
    /// The next byte, and the first byte of the instruction at work.
    at: usize,
    start: usize,
    stack: Vec<ValueOf<'a, V>>,
    /// Heights of the stack; nothing below the last one may be taken until it is gone.
    marks: Vec<usize>,
    memo: Vec<Option<ValueOf<'a, V>>>,
    heap: Heap<'a, V>,
    vocabulary: V,
}

impl<'a, V: Vocabulary<'a>> Machine<'a, V> {
    /// A machine that is behind the instruction that names the protocol.
    pub fn new(bytes: &'a [u8], vocabulary: V) -> Self {
        Self {
            bytes,
            at: PROTOCOL_BYTES,
            start: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            heap: Heap(Vec::new()),
            vocabulary,
        }
    }

    /// Follows the instructions to the end.
    pub fn run(mut self) -> Result<Finished<'a, V>, PickleError> {
        for step in 0..V::STEPS_MAX {
            if !self.step(step)? {
                let value = self.pop()?;
                let Self { vocabulary, heap, at, .. } = self;
                return Ok(Finished { vocabulary, heap, value, length: at });
            }
        }
        Err(self.damaged("more instructions than an honest file needs"))
    }

    /// The `step`-th instruction; false once the pickle has stopped.
    fn step(&mut self, step: usize) -> Result<bool, PickleError> {
        self.start = self.at;
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(false),
            // FRAME: how many bytes to read ahead.
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => self.unsigned(1)?,
            b'M' => self.unsigned(2)?,
            b'J' => self.long(4)?,
            0x8a => {
                let width = self.length(1)?;
                self.long(width)?;
            }
            0x8b => {
                let width = self.length(4)?;
                self.long(width)?;
            }
            b'G' => {
                let mut bits = [0; 8];
                bits.copy_from_slice(self.take(8)?);
                self.stack.push(Value::Float(f64::from_be_bytes(bits)));
            }
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            // What Python 2 calls a string may be either.
            b'U' => self.text_or_bytes(1)?,
            b'T' => self.text_or_bytes(4)?,
            b'C' => self.byte_string(1)?,
            b'B' => self.byte_string(4)?,
            // BINBYTES8 and BYTEARRAY8.
            0x8e | 0x96 => self.byte_string(8)?,
            b')' => self.tuple(0)?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let parts = self.since_mark()?;
                self.push_object(Object::Tuple(parts));
            }
            b']' => self.push_object(Object::List(Vec::new())),
            b'a' => {
                let part = self.pop()?;
                self.append(vec![part])?;
            }
            b'e' => {
                let parts = self.since_mark()?;
                self.append(parts)?;
            }
            b'}' => self.push_object(Object::Dict(Vec::new())),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let pairs = self.since_mark()?;
                self.set(&pairs)?;
            }
            0x94 => {
                let top = self.top()?;
                self.memo.push(Some(top));
            }
            b'q' => self.put(1, step)?,
            b'r' => self.put(4, step)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err(self.damaged("a name that is not a text"));
                };
                self.global(module, name)?;
            }
            b'i' => {
                // INST would call a name of its own; a hostile one is told by that name.
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
                return Err(self.unknown(opcode));
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                let made = self.vocabulary.persistent(&self.heap, id).map_err(|what| self.damaged(what))?;
                self.push_object(made);
            }
            _ => return Err(self.unknown(opcode)),
        }
        Ok(true)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let known = V::global(module, name).ok_or_else(|| PickleError::Global {
            name: format!("{module}.{name}").chars().take(NAME_LETTERS_MAX).collect(),
            content: V::CONTENT,
            offset: self.start,
        })?;
        self.stack.push(Value::Global(known));
        Ok(())
    }

    /// What Python would do by calling; here each known name has its one meaning.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let arguments = self.heap.tuple(arguments).ok_or_else(|| self.damaged("a call without arguments"))?;
        let Value::Global(callee) = callee else {
            return Err(self.damaged("a call of what is no name"));
        };
        let made = self.vocabulary.call(&self.heap, callee, arguments);
        let made = made.map_err(|what| self.damaged(what))?;
        self.push_object(made);
        Ok(())
    }

    /// Gives the object below the top the state on top.
    fn build(&mut self) -> Result<(), PickleError> {
        let (state, target) = (self.pop()?, self.top()?);
        let Value::Object(place) = target else {
            return Err(self.damaged("a state for what has none"));
        };
        let built = self.vocabulary.build(&self.heap, place, state);
        if let Some(built) = built.map_err(|what| self.damaged(what))? {
            self.heap.0[place] = built;
        }
        Ok(())
    }

    fn append(&mut self, parts: Vec<ValueOf<'a, V>>) -> Result<(), PickleError> {
        match self.top()? {
            Value::Object(place) => match &mut self.heap.0[place] {
                Object::List(list) => list.extend(parts),
                _ => return Err(self.damaged("parts for what is no list")),
            },
            _ => return Err(self.damaged("parts for what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, pairs: &[ValueOf<'a, V>]) -> Result<(), PickleError> {
        let (pairs, rest) = pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.damaged("a key without a value"));
        }
        match self.top()? {
            Value::Object(place) => match &mut self.heap.0[place] {
                Object::Dict(entries) => entries.extend(pairs.iter().map(|[key, value]| (*key, *value))),
                _ => return Err(self.damaged("entries for what is no dict")),
            },
            _ => return Err(self.damaged("entries for what is no dict")),
        }
        Ok(())
    }

    fn unsigned(&mut self, width: usize) -> Result<(), PickleError> {
        let value = self.length(width)?;
        self.stack.push(Value::Int(value as i64));
        Ok(())
    }

    /// A little-endian two's complement integer of `width` bytes; of none at all for zero.
    fn long(&mut self, width: usize) -> Result<(), PickleError> {
        let bytes = self.take(width)?;
        let negative = bytes.last().is_some_and(|highest| *highest >= 0x80);
        let sign = if negative { 0xff } else { 0 };
        let (low, high) = bytes.split_at(width.min(8));
        let mut low_first = [sign; 8];
        low_first[..low.len()].copy_from_slice(low);
        let value = i64::from_le_bytes(low_first);
        let fits = high.iter().all(|byte| *byte == sign) && (value < 0) == negative;
        let value = if fits { Value::Int(value) } else { Value::Long(bytes) };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), PickleError> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn text_or_bytes(&mut self, width: usize) -> Result<(), PickleError> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        self.stack.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text));
        Ok(())
    }

    fn byte_string(&mut self, width: usize) -> Result<(), PickleError> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        self.stack.push(Value::Bytes(bytes));
        Ok(())
    }

    fn tuple(&mut self, n_parts: usize) -> Result<(), PickleError> {
        let first = self.stack.len().checked_sub(n_parts).filter(|first| *first >= self.floor());
        let first = first.ok_or_else(|| self.damaged("a tuple of too few values"))?;
        let parts = self.stack.split_off(first);
        self.push_object(Object::Tuple(parts));
        Ok(())
    }

    fn put(&mut self, width: usize, step: usize) -> Result<(), PickleError> {
        let place = self.length(width)?;
        let top = self.top()?;
        // Python numbers its memo without gaps, so no place is beyond the number of instructions.
        if place > step {
            return Err(self.damaged("a memo place beyond what the pickle needs"));
        }
        if place >= self.memo.len() {
            self.memo.resize(place + 1, None);
        }
        self.memo[place] = Some(top);
        Ok(())
    }

    fn get(&mut self, width: usize) -> Result<(), PickleError> {
        let place = self.length(width)?;
        let value = self.memo.get(place).copied().flatten();
        let value = value.ok_or_else(|| self.damaged("a memo place that holds nothing"))?;
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object<'a, V>) {
        self.stack.push(Value::Object(self.heap.0.len()));
        self.heap.0.push(object);
    }

    fn since_mark(&mut self) -> Result<Vec<ValueOf<'a, V>>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("an end without a beginning"))?;
        Ok(self.stack.split_off(mark))
    }

    /// Below this height, the stack belongs to what is not finished.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<ValueOf<'a, V>, PickleError> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Result<ValueOf<'a, V>, PickleError> {
        let above = self.stack.get(self.floor()..).and_then(<[_]>::last);
        above.copied().ok_or_else(|| self.damaged("a value is missing"))
    }

    /// An unsigned little-endian integer of `width` bytes, at most 8.
    fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let bytes = self.take(width)?;
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| self.damaged("a length beyond the address space"))
    }

    /// A line of text without its end.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or(PickleError::Truncated { offset: self.bytes.len() })?;
        let line = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| self.damaged("a name that is not UTF-8"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated { offset: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn unknown(&self, opcode: u8) -> PickleError {
        PickleError::Opcode { opcode, content: V::CONTENT, offset: self.start }
    }

    fn damaged(&self, what: &'static str) -> PickleError {
        PickleError::Damaged { what, offset: self.start }
    }
}
