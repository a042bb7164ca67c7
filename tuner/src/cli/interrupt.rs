//! Signals that end a command before its end: what is at work is finished and written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether a signal has asked this process to end.
pub struct Interrupt {
    stop: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

/// A command was ended by a signal.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped by signal {0}")]
pub struct Interrupted(usize);

impl Interrupted {
    /// The exit status that shells give a process that a signal has ended.
    pub fn status(self) -> u8 {
        128 | self.0 as u8
    }
}

impl Interrupt {
    /// From now on the first SIGINT or SIGTERM is noted, and the second ends the process.
    pub fn watch() -> std::io::Result<Self> {
        let watched = Self { stop: Arc::default(), signal: Arc::default() };
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            use signal_hook::flag;
            flag::register_conditional_default(signal, watched.stop.clone())?;
            flag::register(signal, watched.stop.clone())?;
            flag::register_usize(signal, watched.signal.clone(), signal as usize)?;
        }
        Ok(watched)
    }

    /// Becomes true with the signal.
    pub fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Fails where there was a signal.
    pub fn check(&self) -> Result<(), Interrupted> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Interrupted(self.signal.load(Ordering::Relaxed))),
            false => Ok(()),
        }
    }
}
