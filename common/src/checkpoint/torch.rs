//! What torch pickles: a dict of tensors, each a view of a storage that lies outside the pickle.
//!
//! `torch.save` writes for each tensor a call of `torch._utils._rebuild_tensor_v2` with a storage, an offset, a shape
//! and strides. This vocabulary knows that call, its predecessors and the containers around it, and nothing else.

use std::collections::BTreeMap;

use super::{CheckpointError, Dtype, StoredTensor, WeightFile, shown};
use crate::pickle::{self, Heap, Object, PickleError, Value, Vocabulary};

/// Pickles beyond this are refused; the largest real ones have a few MB.
pub(super) const PICKLE_BYTES_MAX: u64 = 64 << 20;
/// As torch itself has it.
const DIMENSIONS_MAX: usize = 64;
/// Keys are small numbers, or addresses, as text.
const KEY_BYTES_MAX: usize = 64;
const FORMAT: &str = "torch checkpoint";

/// The storages of torch by name; each is a run of numbers of one format.
const STORAGES: &[(&str, Dtype)] = &[
    ("BFloat16Storage", Dtype::BF16),
    ("BoolStorage", Dtype::BOOL),
    ("ByteStorage", Dtype::U8),
    ("CharStorage", Dtype::I8),
    ("ComplexFloatStorage", Dtype::C64),
    ("DoubleStorage", Dtype::F64),
    ("FloatStorage", Dtype::F32),
    ("HalfStorage", Dtype::F16),
    ("IntStorage", Dtype::I32),
    ("LongStorage", Dtype::I64),
    ("ShortStorage", Dtype::I16),
];

/// A storage that a pickle refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage {
    pub dtype: Dtype,
    /// How many numbers it has.
    pub n_numbers: u64,
}

impl Storage {
    /// The bytes of its numbers, all of which have whole bytes.
    pub fn bytes(&self) -> Option<u64> {
        self.n_numbers.checked_mul(width(self.dtype))
    }
}

/// A tensor as pickled.
#[derive(Debug)]
struct Pickled {
    name: String,
    storage: String,
    dtype: Dtype,
    /// The numbers of the storage, or of the part of it, that it is a view of.
    window: (u64, u64),
    /// In numbers from the window's beginning.
    offset: u64,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// What the pickle of a checkpoint says.
#[derive(Debug)]
pub(super) struct Checkpoint {
    tensors: Vec<Pickled>,
    /// Every storage by key, those of tensors and any others.
    pub storages: BTreeMap<String, Storage>,
    /// Bytes of the pickle.
    pub length: usize,
}

/// Why a pickle holds no checkpoint.
#[derive(Debug)]
pub(super) enum Fault {
    Pickle(PickleError),
    /// It holds something else.
    Content(String),
    /// One of its tensors is none; which, and why.
    Tensor(String, &'static str),
}

impl From<PickleError> for Fault {
    fn from(error: PickleError) -> Self {
        Self::Pickle(error)
    }
}

impl Fault {
    /// The same, of that file.
    pub fn of(self, file: &WeightFile) -> CheckpointError {
        match self {
            Self::Pickle(source) => CheckpointError::Pickle { file: file.name.clone(), source },
            Self::Content(what) => file.malformed(FORMAT, what),
            Self::Tensor(tensor, what) => CheckpointError::Tensor { file: file.name.clone(), tensor, what },
        }
    }
}

/// The checkpoint in the pickle at the beginning of `bytes`.
///
/// A dict of tensors, or a dict that has one under `state_dict`; entries that are no tensors are ignored. A tensor that
/// stands alone has the empty name.
pub(super) fn checkpoint(bytes: &[u8]) -> Result<Checkpoint, Fault> {
    let finished = pickle::run(bytes, Torch::new())?;
    let (heap, torch) = (&finished.heap, &finished.vocabulary);
    let content = |what: &str| Fault::Content(what.to_owned());
    let mut named: BTreeMap<&str, &View> = BTreeMap::new();
    let entries = if let Some(Made::Tensor(view)) = heap.made(finished.value) {
        named.insert("", view);
        &[]
    } else {
        let outer = heap.dict(finished.value).ok_or_else(|| content("it holds no dict of tensors"))?;
        // Of equal keys the last one counts, as in Python.
        let nested = outer.iter().rev().find(|(key, _)| *key == Value::Text("state_dict"));
        nested.and_then(|(_, value)| heap.dict(*value)).unwrap_or(outer)
    };
    for (key, value) in entries {
        match (key, heap.made(*value)) {
            (Value::Text(name), Some(Made::Tensor(view))) => {
                named.insert(name, view);
            }
            (Value::Text(name), _) => {
                named.remove(name);
            }
            (_, Some(Made::Tensor(_))) => return Err(content("it holds a tensor whose name is no text")),
            _ => {}
        }
    }
    if named.is_empty() {
        return Err(content("it holds no tensors by name"));
    }
    let mut tensors = Vec::with_capacity(named.len());
    for (name, view) in named {
        let fault = |what| Fault::Tensor(shown(name), what);
        let (shape, strides) = (lengths(heap, view.shape), lengths(heap, view.strides));
        let (shape, strides) =
            shape.zip(strides).ok_or_else(|| fault("has a shape or strides that are none"))?;
        if shape.len() != strides.len() {
            return Err(fault("has other numbers of sides and strides"));
        }
        let Reference { key, storage, window } = torch.references[view.reference];
        tensors.push(Pickled {
            name: name.to_owned(),
            storage: key.to_owned(),
            dtype: storage.dtype,
            window,
            offset: view.offset,
            shape,
            strides,
        });
    }
    let storages = torch.storages.iter().map(|(key, storage)| ((*key).to_owned(), *storage)).collect();
    Ok(Checkpoint { tensors, storages, length: finished.length })
}

impl Checkpoint {
    /// Every tensor where its storage lies; `starts` has the first byte of each that is in the file as a whole.
    pub fn placed(
        self,
        file: &WeightFile,
        starts: &BTreeMap<String, u64>,
    ) -> Result<BTreeMap<String, StoredTensor>, CheckpointError> {
        let place = |tensor: Pickled| {
            let fault = |what| Fault::Tensor(shown(&tensor.name), what).of(file);
            let start = starts.get(&tensor.storage).ok_or_else(|| fault("has no storage in the file"))?;
            let stored = placed(&tensor, *start, file.size).map_err(fault)?;
            Ok((tensor.name, stored))
        };
        self.tensors.into_iter().map(place).collect()
    }
}

/// A tensor whose storage begins at byte `start` of a file of `file_bytes` bytes.
fn placed(tensor: &Pickled, start: u64, file_bytes: u64) -> Result<StoredTensor, &'static str> {
    let width = width(tensor.dtype);
    let outside = "reaches beyond its storage";
    let sides = || tensor.shape.iter().zip(&tensor.strides);
    let numbers = sides().try_fold(1u64, |product, (side, _)| product.checked_mul(*side as u64));
    // A stride of 0 repeats numbers; a small file must not ask for more memory than a file of its size may.
    numbers
        .and_then(|numbers| numbers.checked_mul(width))
        .filter(|bytes| *bytes <= file_bytes)
        .ok_or("has more numbers than the whole file")?;
    let is_empty = numbers == Some(0);
    let reach = sides().try_fold(0u64, |sum, (side, stride)| {
        sum.checked_add((side.saturating_sub(1) as u64).checked_mul(*stride as u64)?)
    });
    let span = if is_empty { Some(0) } else { reach.and_then(|reach| reach.checked_add(1)) };
    let span = span.ok_or(outside)?;
    let (window_start, window_length) = tensor.window;
    tensor.offset.checked_add(span).filter(|end| *end <= window_length).ok_or(outside)?;
    // The storage lies in the file, and this in the storage, so neither sum nor product overflows.
    let start = start + (window_start + tensor.offset) * width;
    // Without numbers, every order is the same. With them, no product is beyond the file's size.
    let mut expected = 1;
    let row_major = is_empty
        || sides().rev().all(|(side, stride)| {
            let fits = *side == 1 || *stride == expected;
            expected *= *side;
            fits
        });
    Ok(StoredTensor {
        file: 0,
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        strides: (!row_major).then(|| tensor.strides.clone()),
        start,
        size_bytes: span * width,
    })
}

/// Bytes of one number; the formats of [`STORAGES`] have whole ones.
fn width(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

fn lengths<'a>(heap: &Heap<'a, Torch<'a>>, tuple: Plain<'a>) -> Option<Vec<usize>> {
    let parts = heap.tuple(tuple).filter(|parts| parts.len() <= DIMENSIONS_MAX)?;
    parts.iter().map(|part| length(*part).and_then(|part| usize::try_from(part).ok())).collect()
}

fn length(value: Plain<'_>) -> Option<u64> {
    match value {
        Value::Int(length) => u64::try_from(length).ok(),
        _ => None,
    }
}

type Plain<'a> = Value<'a, Global>;

/// The names that the pickle of a checkpoint may refer to.
#[derive(Clone, Copy, PartialEq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    Size,
    Storage(Dtype),
}

/// What has no form in plain values.
#[derive(Clone, Copy)]
enum Made<'a> {
    /// The place of a reference to a storage.
    Storage(usize),
    Tensor(View<'a>),
}

/// A tensor, its parts not yet checked.
#[derive(Clone, Copy)]
struct View<'a> {
    reference: usize,
    offset: u64,
    shape: Plain<'a>,
    strides: Plain<'a>,
}

/// A storage, or a part of it, as one persistent id names it.
#[derive(Clone, Copy)]
struct Reference<'a> {
    key: &'a str,
    storage: Storage,
    /// First number and how many.
    window: (u64, u64),
}

/// The vocabulary of torch's checkpoints.
struct Torch<'a> {
    storages: BTreeMap<&'a str, Storage>,
    references: Vec<Reference<'a>>,
    /// Values that calls may still copy; an honest file passes each of its lists to one call.
    copies_left: usize,
}

impl<'a> Torch<'a> {
    fn new() -> Self {
        Self { storages: BTreeMap::new(), references: Vec::new(), copies_left: Self::STEPS_MAX }
    }

    fn copy(&mut self, n_values: usize) -> Result<(), &'static str> {
        let left = self.copies_left.checked_sub(n_values).ok_or("the same values copied again and again")?;
        self.copies_left = left;
        Ok(())
    }
}

type Call<'a> = Result<Object<'a, Torch<'a>>, &'static str>;

impl<'a> Vocabulary<'a> for Torch<'a> {
    type Global = Global;
    type Made = Made<'a>;
    const CONTENT: &'static str = "tensors";
    /// A tensor takes some 33, so this is enough for 60 thousand of them in one file. What a hostile file makes the
    /// machine hold stays under 400 MiB.
    const STEPS_MAX: usize = 1 << 21;

    fn global(module: &str, name: &str) -> Option<Global> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor") => Some(Global::RebuildTensor),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensorV2),
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch", "Size") => Some(Global::Size),
            // Of bytes, whatever they mean.
            ("torch.storage" | "torch", "UntypedStorage") => Some(Global::Storage(Dtype::U8)),
            ("torch", name) => {
                let storage = STORAGES.iter().find(|(known, _)| *known == name);
                storage.map(|(_, dtype)| Global::Storage(*dtype))
            }
            _ => None,
        }
    }

    fn call(&mut self, heap: &Heap<'a, Self>, callee: Global, arguments: &[Plain<'a>]) -> Call<'a> {
        match (callee, arguments) {
            (Global::OrderedDict, []) => Ok(Object::Dict(Vec::new())),
            // As Python 2 has it: a list of pairs.
            (Global::OrderedDict, [pairs]) => {
                let pairs = heap.list(*pairs).ok_or("an OrderedDict of what is no list")?;
                self.copy(pairs.len())?;
                let pair = |pair: &Plain<'a>| match heap.list(*pair).or_else(|| heap.tuple(*pair)) {
                    Some([key, value]) => Some((*key, *value)),
                    _ => None,
                };
                let entries = pairs.iter().map(pair).collect::<Option<_>>();
                entries.map(Object::Dict).ok_or("an OrderedDict of what are no pairs")
            }
            (Global::Size, [sides]) => {
                let sides = heap.tuple(*sides).or_else(|| heap.list(*sides));
                let sides = sides.ok_or("a size of what are no sides")?;
                self.copy(sides.len())?;
                Ok(Object::Tuple(sides.to_vec()))
            }
            (Global::RebuildTensor, [storage, offset, shape, strides])
            // Then whether it takes a gradient, its hooks, and its attributes.
            | (Global::RebuildTensorV2, [storage, offset, shape, strides, _, _])
            | (Global::RebuildTensorV2, [storage, offset, shape, strides, _, _, _]) => {
                let Some(Made::Storage(reference)) = heap.made(*storage) else {
                    return Err("a tensor without a storage");
                };
                let offset = length(*offset).ok_or("a tensor whose offset is none")?;
                let view = View { reference: *reference, offset, shape: *shape, strides: *strides };
                Ok(Object::Made(Made::Tensor(view)))
            }
            (Global::RebuildParameter, [tensor, _, _]) => match heap.made(*tensor) {
                Some(Made::Tensor(view)) => Ok(Object::Made(Made::Tensor(*view))),
                _ => Err("a parameter that is no tensor"),
            },
            _ => Err("a call with arguments that make no tensor"),
        }
    }

    fn build(
        &mut self,
        heap: &Heap<'a, Self>,
        target: usize,
        state: Plain<'a>,
    ) -> Result<Option<Object<'a, Self>>, &'static str> {
        // Modules leave `_metadata` beside the entries of their dict, which says nothing of tensors.
        match (heap.object(target), heap.dict(state)) {
            (Object::Dict(_), Some(_)) => Ok(None),
            _ => Err("a state for what is no dict"),
        }
    }

    fn persistent(&mut self, heap: &Heap<'a, Self>, id: Plain<'a>) -> Call<'a> {
        let parts = heap.tuple(id).ok_or("a reference that is not a storage's")?;
        let (key, dtype, n_numbers, view) = match *parts {
            // The text after the key is the device, which does not matter.
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                _,
                n_numbers,
            ] => (key, dtype, n_numbers, Value::None),
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                _,
                n_numbers,
                view,
            ] => (key, dtype, n_numbers, view),
            _ => return Err("a reference that is not a storage's"),
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err("a storage whose key makes no sense");
        }
        let n_numbers = length(n_numbers).ok_or("a storage without a length")?;
        let storage = Storage { dtype, n_numbers };
        if *self.storages.entry(key).or_insert(storage) != storage {
            return Err("a storage that is referred to in two ways");
        }
        let window = match view {
            Value::None => (0, n_numbers),
            // Torch before 0.4 cut storages into parts: a key for the part, its first number and how many.
            view => match heap.tuple(view) {
                Some([_, first, count]) => {
                    let window = length(*first).zip(length(*count));
                    let inside = |(first, count): &(u64, u64)| {
                        first.checked_add(*count).is_some_and(|end| end <= n_numbers)
                    };
                    window.filter(inside).ok_or("a part of a storage that is not inside of it")?
                }
                _ => return Err("a part of a storage that is none"),
            },
        };
        self.references.push(Reference { key, storage, window });
        Ok(Object::Made(Made::Storage(self.references.len() - 1)))
    }
}
