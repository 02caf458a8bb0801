//! Ctrl-C while containers run: noted, and asked for between steps, so that what was started is ended in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM end this process only at the next `check`. To be called before any thread is started;
/// programs that are started are not affected.
///
/// # Errors
/// The kernel refuses a signal mask or a thread.
pub(crate) fn defer() -> Result<()> {
    // SAFETY: an all-zero sigset_t is a valid argument for sigemptyset, which makes it a valid set.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `signals` outlives the call.
    unsafe { libc::sigemptyset(&raw mut signals) };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: `signals` is an initialised set and the signal exists.
        unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    // SAFETY: `signals` is an initialised set; the old mask is not asked for.
    let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) };
    if blocked != 0 {
        return Err(std::io::Error::from_raw_os_error(blocked)).context("cannot block signals");
    }
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both outlive the call, and this thread has the signals blocked, as sigwait demands.
        if unsafe { libc::sigwait(&raw const signals, &raw mut signal) } == 0 {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("cannot start a thread")?;
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
