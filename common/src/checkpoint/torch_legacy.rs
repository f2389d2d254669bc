//! A torch checkpoint before 1.6: five pickles, then the storages one after another.
//!
//! The pickles are a magic number, the protocol, the sizes of C's types, the checkpoint, and the list of storages by
//! key in the order in which they follow, each behind its number of elements in 64 bits.

use std::collections::BTreeMap;

use super::torch::{self, Checkpoint, Fault, PICKLE_BYTES_MAX};
use super::{CheckpointError, StoredTensor, WeightFile, shown};
use crate::pickle::{self, Finished, Heap, Object, PickleError, Value, Vocabulary};

const FORMAT: &str = "torch checkpoint";
/// 0x1950a86a20f9469cfc6c, from the lowest byte.
const MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const PROTOCOL: i64 = 1001;
/// How much of a pickle, whose length nothing tells, is read at first. Fits that of most models.
const FIRST_READ_BYTES: u64 = 1 << 18;
/// Bytes of the number before each storage.
const COUNT_BYTES: u64 = 8;

/// The tensors of a file.
pub(super) fn read(file: &WeightFile) -> Result<BTreeMap<String, StoredTensor>, CheckpointError> {
    let malformed = |what: &str| file.malformed(FORMAT, what);
    let mut at = 0;
    let magic = |pickle: &Finished<'_, Plain>| pickle.value == Value::Long(MAGIC);
    if !plain(file, &mut at, magic)? {
        return Err(malformed("it is a pickle, but not one of torch.save"));
    }
    if !plain(file, &mut at, |pickle| pickle.value == Value::Int(PROTOCOL))? {
        return Err(malformed("its protocol is not 1001"));
    }
    let little_endian = (Value::Text("little_endian"), Value::Bool(true));
    let has = |pickle: &Finished<'_, Plain>| {
        pickle.heap.dict(pickle.value).is_some_and(|system| system.contains(&little_endian))
    };
    if !plain(file, &mut at, has)? {
        return Err(malformed("its numbers are big-endian"));
    }
    let checkpoint: Checkpoint = growing(file, &mut at, |bytes| {
        torch::checkpoint(bytes).map(|checkpoint| (checkpoint.length, checkpoint))
    })?;
    let keys = plain(file, &mut at, |pickle| {
        let key = |key: &Value<'_, NoName>| match key {
            Value::Text(key) => Some((*key).to_owned()),
            _ => None,
        };
        pickle.heap.list(pickle.value)?.iter().map(key).collect::<Option<Vec<String>>>()
    })?;
    let keys = keys.ok_or_else(|| malformed("its list of storages is none"))?;
    let mut starts = BTreeMap::new();
    for key in keys {
        let storage = checkpoint.storages.get(&key);
        let storage = storage.ok_or_else(|| malformed(&format!("storage {:?} is unknown", shown(&key))))?;
        let cut_off = || malformed(&format!("it is cut off in storage {:?}", shown(&key)));
        let start = at.checked_add(COUNT_BYTES).filter(|start| *start <= file.size).ok_or_else(cut_off)?;
        let mut count = [0; COUNT_BYTES as usize];
        file.read_at(&mut count, at)?;
        if u64::from_le_bytes(count) != storage.n_numbers {
            return Err(malformed(&format!("storage {:?} is not as long as its pickle says", shown(&key))));
        }
        let end = storage.bytes().and_then(|bytes| start.checked_add(bytes));
        at = end.filter(|end| *end <= file.size).ok_or_else(cut_off)?;
        if starts.insert(key.clone(), start).is_some() {
            return Err(malformed(&format!("storage {:?} is there twice", shown(&key))));
        }
    }
    checkpoint.placed(file, &starts)
}

/// What `take` finds in the pickle of plain values at `at`, which moves behind it.
fn plain<T>(
    file: &WeightFile,
    at: &mut u64,
    take: impl Fn(&Finished<'_, Plain>) -> T,
) -> Result<T, CheckpointError> {
    growing(file, at, |bytes| {
        let finished = pickle::run(bytes, Plain)?;
        Ok((finished.length, take(&finished)))
    })
}

/// What `run` makes of the pickle at `at`, and its length; `at` moves behind it.
///
/// Reads more of the file as long as the pickle is not at its end.
fn growing<T>(
    file: &WeightFile,
    at: &mut u64,
    run: impl Fn(&[u8]) -> Result<(usize, T), Fault>,
) -> Result<T, CheckpointError> {
    let rest = (file.size - *at).min(PICKLE_BYTES_MAX);
    let mut length = rest.min(FIRST_READ_BYTES);
    loop {
        match run(&file.bytes(*at, length)?) {
            Ok((used, made)) => {
                *at += used as u64;
                return Ok(made);
            }
            Err(Fault::Pickle(PickleError::Truncated { .. })) if length < rest => {
                length = rest.min(length * 8);
            }
            Err(fault) => return Err(fault.of(file)),
        }
    }
}

/// The vocabulary of the pickles around the checkpoint, which have plain values alone.
struct Plain;

/// There is none.
#[derive(Clone, Copy, PartialEq)]
enum NoName {}

impl<'a> Vocabulary<'a> for Plain {
    type Global = NoName;
    type Made = NoName;
    const CONTENT: &'static str = "tensors";
    /// Those of a list of storages; each takes two.
    const STEPS_MAX: usize = 1 << 20;

    fn global(_module: &str, _name: &str) -> Option<NoName> {
        None
    }

    fn call(
        &mut self,
        _heap: &Heap<'a, Self>,
        callee: NoName,
        _arguments: &[Value<'a, NoName>],
    ) -> Result<Object<'a, Self>, &'static str> {
        match callee {}
    }

    fn build(
        &mut self,
        _heap: &Heap<'a, Self>,
        _target: usize,
        _state: Value<'a, NoName>,
    ) -> Result<Option<Object<'a, Self>>, &'static str> {
        Err("a state for a plain value")
    }

    fn persistent(
        &mut self,
        _heap: &Heap<'a, Self>,
        _id: Value<'a, NoName>,
    ) -> Result<Object<'a, Self>, &'static str> {
        Err("a reference in a plain value")
    }
}
