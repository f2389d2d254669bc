//! Large buffers that a thread uses again for its next layer.
//!
//! The work on a layer needs several buffers with an entry for each pair of rows. Taking each afresh from the system
//! means that it zeroes every page of them for every layer, which was a fifth of a trial's CPU time.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

use lsa_common::cost::SPARE_BYTES_MAX;

const CACHE_LINE_BYTES: usize = 64;

/// A vector whose memory goes back to the thread that drops it, or to the system where it is more than [`SPARE_BYTES_MAX`].
pub struct Scratch<T: Spare>(Vec<T>);

/// Entries of which buffers are kept.
pub trait Spare: Sized + 'static {
    /// The buffers of the current thread that nobody uses.
    fn spare() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>>;
}

thread_local! {
    static SPARE_F64: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
    static SPARE_U64: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

impl Spare for f64 {
    fn spare() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>> {
        &SPARE_F64
    }
}

impl Spare for u64 {
    fn spare() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>> {
        &SPARE_U64
    }
}

impl<T: Spare> Scratch<T> {
    /// An empty buffer with room for `count` entries: one that lies about and is large enough, or a new one.
    pub fn with_capacity(count: usize) -> Self {
        let found = T::spare().with_borrow_mut(|spare| {
            let place = spare.iter().position(|buffer| buffer.capacity() >= count)?;
            Some(spare.swap_remove(place))
        });
        Self(found.unwrap_or_else(|| Vec::with_capacity(count)))
    }
}

/// The first `count` entries from where a cache line begins, of a buffer that is made long enough for it.
///
/// Products of matrices may round otherwise where the matrices are aligned otherwise.
pub fn aligned(buffer: &mut Vec<f64>, count: usize) -> &mut [f64] {
    buffer.resize(count + CACHE_LINE_BYTES / size_of::<f64>(), 0.0);
    let start = buffer.as_ptr().align_offset(CACHE_LINE_BYTES);
    &mut buffer[start..start + count]
}

/// The same entries of a buffer that [`aligned`] has made.
pub fn aligned_part(buffer: &[f64], count: usize) -> &[f64] {
    let start = buffer.as_ptr().align_offset(CACHE_LINE_BYTES);
    &buffer[start..start + count]
}

impl<T: Spare> Deref for Scratch<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Spare> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Spare> Drop for Scratch<T> {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        if (buffer.capacity() * size_of::<T>()) as u64 > SPARE_BYTES_MAX {
            return;
        }
        buffer.clear();
        // While a thread ends, its spare buffers may be gone already; this one then goes the same way.
        let _ = T::spare().try_with(|spare| spare.borrow_mut().push(buffer));
    }
}

/// Gives the spare buffers of the current thread back to the system.
pub fn free_spare_buffers() {
    SPARE_F64.with_borrow_mut(|spare| *spare = Vec::new());
    SPARE_U64.with_borrow_mut(|spare| *spare = Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_come_back_empty() {
        let mut first = Scratch::<f64>::with_capacity(1000);
        first.push(1.0);
        let place = first.as_ptr();
        drop(first);
        let larger = Scratch::<f64>::with_capacity(5000);
        assert_ne!(larger.as_ptr(), place);
        let again = Scratch::<f64>::with_capacity(900);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        drop(again);
        free_spare_buffers();
        assert_eq!(SPARE_F64.with_borrow(Vec::len), 0);
    }
}
