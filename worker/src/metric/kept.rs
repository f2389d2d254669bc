//! What is kept of layers for their comparison: lists of numbers, in memory or, where that is short, in a file.
//!
//! Where the lists of the current thread go is set once for the thread, as its spare buffers are; no result depends on
//! it. A file that cannot be written or read remembers why, and NaN stands for what it should have held: whoever made
//! the file asks [`ScratchFile::fault`] before a result is used.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers that are written and read at a time; a multiple of what is compared at a time.
const BLOCK: usize = 1 << 15;

/// A file without a name, gone with the process, to which many lists are written side by side.
pub struct ScratchFile {
    file: File,
    end: AtomicU64,
    fault: Mutex<Option<io::Error>>,
}

impl ScratchFile {
    /// An empty file in `folder`.
    pub fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self::of(tempfile::tempfile_in(folder)?))
    }

    fn of(file: File) -> Self {
        Self { file, end: AtomicU64::new(0), fault: Mutex::new(None) }
    }

    /// The first thing that went wrong with it; the next call tells nothing of it.
    pub fn fault(&self) -> Option<io::Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn remember(&self, error: io::Error) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Where the bytes have been written.
    fn append(&self, bytes: &[u8]) -> u64 {
        let start = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Err(error) = self.file.write_all_at(bytes, start) {
            self.remember(error);
        }
        start
    }

    /// Whether the bytes could be read.
    fn read(&self, start: u64, bytes: &mut [u8]) -> bool {
        self.file.read_exact_at(bytes, start).map_err(|error| self.remember(error)).is_ok()
    }
}

thread_local! {
    static FILE: RefCell<Option<Arc<ScratchFile>>> = const { RefCell::new(None) };
}

/// Sends the lists that the current thread begins from now on to `file`, or into memory.
pub fn keep_in(file: Option<Arc<ScratchFile>>) {
    FILE.set(file);
}

/// A kind of number that lists are made of.
pub trait Number: Copy {
    /// The bytes of one.
    const BYTES: usize;
    /// The number nearest to `value`.
    fn nearest(value: f64) -> Self;
    /// Its value.
    fn value(self) -> f64;
    /// Writes it to exactly its bytes.
    fn put(self, bytes: &mut [u8]);
    /// Reads it from exactly its bytes.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($type:ident) => {
        impl Number for $type {
            const BYTES: usize = size_of::<Self>();

            #[inline(always)]
            fn nearest(value: f64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn value(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn put(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_ne_bytes());
            }

            #[inline(always)]
            fn take(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(bytes.try_into().expect("its bytes"))
            }
        }
    };
}
number!(f64);
number!(f32);
number!(i32);

/// A list of numbers that is written once, in order, and then read.
pub struct Kept<T> {
    /// Full blocks that lie in a file; none where the list is in memory.
    written: Option<Written>,
    /// All other numbers.
    rest: Vec<T>,
}

struct Written {
    file: Arc<ScratchFile>,
    /// Where each block begins.
    starts: Vec<u64>,
}

impl<T: Number> Kept<T> {
    /// An empty list with room for `count` numbers.
    pub fn with_capacity(count: usize) -> Self {
        match FILE.with_borrow(Clone::clone) {
            None => Self { written: None, rest: Vec::with_capacity(count) },
            Some(file) => Self {
                written: Some(Written { file, starts: Vec::new() }),
                rest: Vec::with_capacity(count.min(BLOCK)),
            },
        }
    }

    /// These numbers.
    pub fn from_vec(numbers: Vec<T>) -> Self {
        let mut kept = Self::with_capacity(0);
        if kept.written.is_none() {
            kept.rest = numbers;
        } else {
            numbers.chunks(BLOCK).for_each(|block| kept.extend_by(block, |number| *number));
        }
        kept
    }

    /// Appends the numbers nearest to these.
    pub fn extend_from_slice(&mut self, values: &[f64]) {
        self.extend_by(values, |value| T::nearest(*value));
    }

    /// Appends the number that `number` makes of each item.
    fn extend_by<I>(&mut self, mut items: &[I], number: impl Fn(&I) -> T) {
        while let Some(written) = &mut self.written {
            let room = BLOCK - self.rest.len();
            let Some((now, later)) = items.split_at_checked(room) else { break };
            self.rest.extend(now.iter().map(&number));
            written.append(&self.rest);
            self.rest.clear();
            items = later;
        }
        self.rest.extend(items.iter().map(number));
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.in_file() + self.rest.len()
    }

    fn in_file(&self) -> usize {
        self.written.as_ref().map_or(0, |written| BLOCK * written.starts.len())
    }

    /// Writes the values of `range` to the start of `out`; NaN where they cannot be read.
    ///
    /// # Panics
    /// Where `range` reaches from one block into another: ranges begin and end at multiples of a divisor of a block.
    pub fn copy_to(&self, range: Range<usize>, window: &mut Window, out: &mut [f64]) {
        let out = &mut out[..range.len()];
        match &self.written {
            Some(written) if range.start < self.in_file() => {
                let (block, first) = (range.start / BLOCK, range.start % BLOCK);
                assert!(first + range.len() <= BLOCK, "a range within a block");
                let start = written.starts[block];
                if !window.show::<T>(&written.file, start) {
                    return out.fill(f64::NAN);
                }
                let bytes = &window.bytes[first * T::BYTES..];
                let numbers = bytes.chunks_exact(T::BYTES).map(T::take);
                out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number.value());
            }
            _ => {
                let start = range.start - self.in_file();
                let numbers = &self.rest[start..start + range.len()];
                out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number.value());
            }
        }
    }
}

impl Written {
    fn append<T: Number>(&mut self, block: &[T]) {
        let mut bytes = vec![0; block.len() * T::BYTES];
        for (bytes, number) in bytes.chunks_exact_mut(T::BYTES).zip(block) {
            number.put(bytes);
        }
        self.starts.push(self.file.append(&bytes));
    }
}

/// The block of a list that was read last; a window of its own for each list makes reading in order cheap.
#[derive(Default)]
pub struct Window {
    start: Option<u64>,
    bytes: Vec<u8>,
}

impl Window {
    /// Whether the block that begins there could be read.
    fn show<T: Number>(&mut self, file: &ScratchFile, start: u64) -> bool {
        if self.start != Some(start) {
            self.bytes.resize(BLOCK * T::BYTES, 0);
            self.start = file.read(start, &mut self.bytes).then_some(start);
        }
        self.start.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a list gives back in ranges of 1024.
    fn read<T: Number>(kept: &Kept<T>) -> Vec<f64> {
        let (mut all, mut window) = (vec![0.0; kept.len()], Window::default());
        for start in (0..kept.len()).step_by(1024) {
            let end = (start + 1024).min(kept.len());
            kept.copy_to(start..end, &mut window, &mut all[start..end]);
        }
        all
    }

    #[test]
    fn a_list_gives_back_what_it_was_given_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        for file in [None, Some(Arc::new(ScratchFile::new(folder.path()).unwrap()))] {
            keep_in(file.clone());
            for count in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
                let values: Vec<f64> = (0..count).map(|place| f64::from(place as u32) - 1000.0).collect();
                let mut numbers = Kept::<f32>::with_capacity(count);
                let mut exact = Kept::<f64>::with_capacity(count);
                for part in values.chunks(1000) {
                    numbers.extend_from_slice(part);
                    exact.extend_from_slice(part);
                }
                let whole = Kept::from_vec(values.iter().map(|value| *value as i32).collect());
                for read in [read(&numbers), read(&exact), read(&whole)] {
                    assert!(read == values, "{count}");
                }
            }
            assert!(file.is_none_or(|file| file.fault().is_none()));
        }
        keep_in(None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn a_full_disk_is_remembered_and_leaves_nan() {
        let Ok(full) = File::options().read(true).write(true).open("/dev/full") else { return };
        let file = Arc::new(ScratchFile::of(full));
        keep_in(Some(Arc::clone(&file)));
        let kept = Kept::from_vec(vec![1i32; BLOCK]);
        keep_in(None);
        assert_eq!(file.fault().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
        assert_eq!(kept.len(), BLOCK);
    }
}
