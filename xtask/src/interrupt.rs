//! Ctrl-C while containers run: noted, and asked for between steps, so that what was started is ended in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on SIGINT and SIGTERM end this process only at the next `check`. A handler, not a blocked signal: programs that are
/// started would inherit the latter, and have to end on SIGINT themselves.
///
/// # Errors
/// The kernel refuses the handler.
pub(crate) fn defer() -> Result<()> {
    let handler: extern "C" fn(libc::c_int) = note;
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does one atomic store; the old action is not asked for.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(std::io::Error::last_os_error()).context("cannot handle signals");
        }
    }
    Ok(())
}

/// Fails once a signal has come.
///
/// # Errors
/// A signal has come.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
