//! Ctrl-C for commands that compute: once to stop in order, twice to stop at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

/// Says when SIGINT or SIGTERM has come; to be called before other threads are started.
///
/// The signals are taken by a thread of their own, so that nothing runs inside a signal handler. A second one
/// ends the process with code 130.
pub fn watch() -> std::io::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    let flag = Arc::clone(&stopped);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_ok() {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        }
    })?;
    Ok(stopped)
}
