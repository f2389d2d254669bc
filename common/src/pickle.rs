//! The stack machine of a Python pickle, without Python: it builds values and calls nothing.
//!
//! A pickle is a program; Python runs whatever it names. This machine knows the instructions of protocols 2 to 5 that
//! build plain values. Every other name is asked of a [`Vocabulary`], which says what the few names of its format
//! mean and refuses all others.
//!
//! Values are small and copyable: texts and bytes are slices of the file, everything with parts lies in one
//! [`Heap`] and is referred to by its place. So copying a value is cheap however often a file asks for it, nothing is
//! nested in memory, dropping the machine never recurses, and what a file makes the machine hold is bounded by the
//! number of instructions.

mod machine;

use machine::Machine;

/// What the names in the pickles of one format mean.
pub trait Vocabulary<'a>: Sized {
    /// A known name.
    type Global: Copy;
    /// What calls and persistent ids make, beside plain values.
    type Made;
    /// What the pickles hold, in the plural, for errors.
    const CONTENT: &'static str;
    /// Instructions followed at most.
    const STEPS_MAX: usize;

    /// The name, if it is known.
    fn global(module: &str, name: &str) -> Option<Self::Global>;

    /// What Python would get by calling `callee`.
    fn call(
        &mut self,
        heap: &Heap<'a, Self>,
        callee: Self::Global,
        arguments: &[ValueOf<'a, Self>],
    ) -> Result<Object<'a, Self>, &'static str>;

    /// What becomes of the object at place `target` when it is given `state`; none leaves it as it is.
    fn build(
        &mut self,
        heap: &Heap<'a, Self>,
        target: usize,
        state: ValueOf<'a, Self>,
    ) -> Result<Option<Object<'a, Self>>, &'static str>;

    /// What a reference to something outside the pickle stands for.
    fn persistent(
        &mut self,
        heap: &Heap<'a, Self>,
        id: ValueOf<'a, Self>,
    ) -> Result<Object<'a, Self>, &'static str>;
}

/// A value on the stack, in the memo or in an object; `G` is a known name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a, G> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A longer integer, in two's complement from the lowest byte.
    Long(&'a [u8]),
    /// A float.
    Float(f64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A known name.
    Global(G),
    /// The place of an object in the heap.
    Object(usize),
}

/// A value in the pickles of a vocabulary.
pub type ValueOf<'a, V> = Value<'a, <V as Vocabulary<'a>>::Global>;

/// What has parts, or changes after it was made.
pub enum Object<'a, V: Vocabulary<'a>> {
    /// A tuple.
    Tuple(Vec<ValueOf<'a, V>>),
    /// A list.
    List(Vec<ValueOf<'a, V>>),
    /// A dict, in the order in which its entries were set; of equal keys the last one counts.
    Dict(Vec<(ValueOf<'a, V>, ValueOf<'a, V>)>),
    /// What the vocabulary made.
    Made(V::Made),
}

/// Every object of one run.
pub struct Heap<'a, V: Vocabulary<'a>>(Vec<Object<'a, V>>);

/// What a pickle leaves.
pub struct Finished<'a, V: Vocabulary<'a>> {
    /// The vocabulary, with what it noted.
    pub vocabulary: V,
    /// The objects.
    pub heap: Heap<'a, V>,
    /// The value of the pickle.
    pub value: ValueOf<'a, V>,
    /// Bytes of the pickle; more may follow.
    pub length: usize,
}

/// Why a pickle was not read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PickleError {
    /// The bytes are no pickle of protocol 2 to 5.
    #[error("not a Python pickle of protocol 2 to 5")]
    NotPickle,
    /// The bytes end before the pickle does.
    #[error("the pickle is cut off at byte {offset}")]
    Truncated {
        /// Where more bytes were needed.
        offset: usize,
    },
    /// The pickle wants something that its format does not need.
    #[error(
        "the pickle refers to {name:?} at byte {offset}; only {content} are read, and nothing is executed"
    )]
    Global {
        /// Module and name, joined by a dot.
        name: String,
        /// What would be read.
        content: &'static str,
        /// Where it does.
        offset: usize,
    },
    /// An instruction that no such content needs.
    #[error("the pickle has the instruction 0x{opcode:02x} at byte {offset}, which no {content} need")]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// What would be read.
        content: &'static str,
        /// Where it is.
        offset: usize,
    },
    /// Instructions and values do not fit together.
    #[error("the pickle is damaged at byte {offset}: {what}")]
    Damaged {
        /// What does not fit.
        what: &'static str,
        /// Where.
        offset: usize,
    },
}

/// Runs the pickle at the beginning of `bytes`.
pub fn run<'a, V: Vocabulary<'a>>(bytes: &'a [u8], vocabulary: V) -> Result<Finished<'a, V>, PickleError> {
    match bytes {
        [] | [0x80] => Err(PickleError::Truncated { offset: bytes.len() }),
        [0x80, 2..=5, ..] => Machine::new(bytes, vocabulary).run(),
        _ => Err(PickleError::NotPickle),
    }
}

impl<'a, V: Vocabulary<'a>> Heap<'a, V> {
    /// The object at a place that a value of the same run gave.
    pub fn object(&self, place: usize) -> &Object<'a, V> {
        &self.0[place]
    }

    /// The parts of a tuple.
    pub fn tuple(&self, value: ValueOf<'a, V>) -> Option<&[ValueOf<'a, V>]> {
        match value {
            Value::Object(place) => match self.object(place) {
                Object::Tuple(parts) => Some(parts),
                _ => None,
            },
            _ => None,
        }
    }

    /// The parts of a list.
    pub fn list(&self, value: ValueOf<'a, V>) -> Option<&[ValueOf<'a, V>]> {
        match value {
            Value::Object(place) => match self.object(place) {
                Object::List(parts) => Some(parts),
                _ => None,
            },
            _ => None,
        }
    }

    /// The entries of a dict.
    pub fn dict(&self, value: ValueOf<'a, V>) -> Option<&[(ValueOf<'a, V>, ValueOf<'a, V>)]> {
        match value {
            Value::Object(place) => match self.object(place) {
                Object::Dict(entries) => Some(entries),
                _ => None,
            },
            _ => None,
        }
    }

    /// What the vocabulary made.
    pub fn made(&self, value: ValueOf<'a, V>) -> Option<&V::Made> {
        match value {
            Value::Object(place) => match self.object(place) {
                Object::Made(made) => Some(made),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain values alone.
    struct Plain;

    impl<'a> Vocabulary<'a> for Plain {
        type Global = ();
        type Made = ();
        const CONTENT: &'static str = "plain values";
        const STEPS_MAX: usize = 1000;

        fn global(module: &str, name: &str) -> Option<()> {
            ((module, name) == ("known", "name")).then_some(())
        }

        fn call(&mut self, _: &Heap<'a, Self>, (): (), _: &[Value<'a, ()>]) -> Made<'a> {
            Err("a call")
        }

        fn build(
            &mut self,
            _: &Heap<'a, Self>,
            _: usize,
            _: Value<'a, ()>,
        ) -> Result<Option<Object<'a, Self>>, &'static str> {
            Ok(None)
        }

        fn persistent(&mut self, _: &Heap<'a, Self>, _: Value<'a, ()>) -> Made<'a> {
            Err("a reference")
        }
    }

    type Made<'a> = Result<Object<'a, Plain>, &'static str>;

    #[test]
    fn plain_values() {
        let check = |body: &[u8], expected: Value<'_, ()>| {
            let pickle = [b"\x80\x02", body, b".rest"].concat();
            let finished = run(&pickle, Plain).unwrap_or_else(|error| panic!("{body:?}: {error}"));
            assert_eq!(finished.value, expected, "{body:?}");
            assert_eq!(finished.length, body.len() + 3);
        };
        check(b"N", Value::None);
        check(b"\x88", Value::Bool(true));
        check(b"K\xff", Value::Int(255));
        check(b"M\x00\x01", Value::Int(256));
        check(b"J\xff\xff\xff\xff", Value::Int(-1));
        check(b"\x8a\x00", Value::Int(0));
        check(b"\x8a\x01\x80", Value::Int(-128));
        check(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", Value::Int(i64::MAX));
        check(b"\x8a\x09\0\0\0\0\0\0\0\0\x01", Value::Long(b"\0\0\0\0\0\0\0\0\x01"));
        check(b"\x8a\x09\0\0\0\0\0\0\0\x80\0", Value::Long(b"\0\0\0\0\0\0\0\x80\0"));
        check(b"\x8a\x09\x05\0\0\0\0\0\0\0\0", Value::Int(5));
        check(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff", Value::Int(-1));
        check(b"\x8b\x01\0\0\0\x07", Value::Int(7));
        check(b"G\x3f\xf8\0\0\0\0\0\0", Value::Float(1.5));
        check(b"X\x02\0\0\0hi", Value::Text("hi"));
        check(b"U\x02hi", Value::Text("hi"));
        check(b"U\x01\xff", Value::Bytes(b"\xff"));
        check(b"cknown\nname\n", Value::Global(()));
        check(b"K\x01q\x01", Value::Int(1));
    }

    #[test]
    fn containers() {
        // {"a": [1, 2], "b": (None,)}, with the list reached through the memo.
        let body = b"\x80\x04}(\x8c\x01a]\x94(K\x01K\x02e\x8c\x01bN\x85u\x8c\x01ch\x00s.";
        let finished = run(body, Plain).expect("sound");
        let entries = finished.heap.dict(finished.value).expect("a dict");
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].0, Value::Text("a"));
        assert_eq!(finished.heap.list(entries[0].1), Some(&[Value::Int(1), Value::Int(2)][..]));
        assert_eq!(finished.heap.tuple(entries[1].1), Some(&[Value::None][..]));
        assert_eq!(entries[2].1, entries[0].1);
    }

    #[test]
    fn what_is_refused_and_how() {
        let check = |body: &[u8], expected: &str| {
            let pickle = [b"\x80\x02", body].concat();
            let error = run(&pickle, Plain).err().expect("refused").to_string();
            assert!(error.contains(expected), "{body:?}: {error}");
        };
        check(b"cos\nsystem\n", "\"os.system\"");
        check(b"(X\x02\0\0\0idios\nsystem\n", "\"os.system\"");
        check(b"(iknown\nname\n", "instruction 0x69");
        check(b"cknown\nname\n)\x81", "instruction 0x81");
        check(b"(cknown\nname\no", "instruction 0x6f");
        check(b"cknown\nname\n)R", "a call");
        check(b"))R", "a call of what is no name");
        check(b"NQ", "a reference");
        check(b"N(0", "instruction 0x30");
        check(b"N(.", "a value is missing");
        check(b"N(\x85.", "too few values");
        check(b"Nt.", "an end without a beginning");
        check(b"}(Nu.", "a key without a value");
        check(b"N(NNu.", "no dict");
        check(b"NNa.", "no list");
        check(b"h\0.", "holds nothing");
        check(b"Nr\xff\xff\xff\xff.", "a memo place beyond");
        check(b"X\xff\xff\xff\xffa", "cut off");
        check(&[b'N'; 1001], "more instructions");
        assert_eq!(run(b"(lp0\n.", Plain).err(), Some(PickleError::NotPickle));
        assert_eq!(run(b"\x80\x06N.", Plain).err(), Some(PickleError::NotPickle));
    }
}
