//! Panics of a foreign reader as errors, without a word on standard error: the caller tells the user.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// What `run` gives, or what it said when it panicked.
///
/// What `run` was working on must not be used after a panic.
pub fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                usual(info);
            }
        }));
    });
    let outer = CONTAINED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    CONTAINED.set(outer);
    outcome.map_err(|payload| {
        let said = payload.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| payload.downcast_ref::<String>().cloned());
        said.unwrap_or_else(|| "the reader panicked".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_texts() {
        assert_eq!(contained(|| 7), Ok(7));
        assert_eq!(contained(|| panic!("bad {}", 1)), Err::<(), _>("bad 1".to_owned()));
        assert_eq!(contained(|| panic!("bad")), Err::<(), _>("bad".to_owned()));
        assert_eq!(contained(|| contained(|| panic!("inner"))), Ok(Err::<(), _>("inner".to_owned())));
        assert!(!CONTAINED.get());
    }
}
