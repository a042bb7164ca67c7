//! Signals that end a command before its end.
//!
//! SIGINT and SIGTERM end the process at once, and leave no temporary file. A command that has something
//! to finish says so with an [`Interrupt`]: while it has one, the first signal is noted, and the second
//! ends the process. A file that grows beyond its limit is an error of writing, not a signal.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether a signal has come.
static STOP: AtomicBool = AtomicBool::new(false);

/// That signal.
static SIGNAL: AtomicUsize = AtomicUsize::new(0);

/// How many parts of the program finish what is at work.
static FINISHING: AtomicUsize = AtomicUsize::new(0);

/// What is left of a command that a signal ends.
static LEFT: OnceLock<String> = OnceLock::new();

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

/// From now on a signal that ends the process tells this of what is left.
pub fn tell_what_is_left(text: String) {
    let _ = LEFT.set(text);
}

/// While this is there, the first signal does not end the process.
pub struct Interrupt(());

impl Interrupt {
    pub fn watch() -> Self {
        FINISHING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }

    /// Becomes true with the signal.
    pub fn flag(&self) -> &AtomicBool {
        &STOP
    }

    /// Fails where there was a signal.
    pub fn check(&self) -> Result<(), Interrupted> {
        match STOP.load(Ordering::SeqCst) {
            true => Err(Interrupted(SIGNAL.load(Ordering::SeqCst))),
            false => Ok(()),
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        FINISHING.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(unix)]
pub use unix::handle;

/// Signals have their usual effects here.
#[cfg(not(unix))]
pub fn handle() {}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::thread;

    use engine::util::temporary;
    use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::flag;
    use signal_hook::iterator::Signals;

    use super::{FINISHING, Interrupted, LEFT, SIGNAL, STOP};
    use crate::cli::{messages, stdin};

    /// Of the thread that waits for signals.
    const STACK: usize = 256 << 10;

    /// From now on signals have the effects that this module describes. Where the system starts no
    /// thread for that, they have their usual ones.
    pub fn handle() {
        let _ = flag::register(SIGXFSZ, Arc::default());
        let _ = handle_ends();
    }

    fn handle_ends() -> io::Result<()> {
        let (send, receive) = mpsc::channel::<(Signals, Arc<AtomicBool>)>();
        let wait = move || {
            let Ok((mut signals, is_ending)) = receive.recv() else { return };
            signals.forever().for_each(|signal| received(signal, &is_ending));
        };
        thread::Builder::new().name("signals".to_owned()).stack_size(STACK).spawn(wait)?;
        let is_ending = Arc::new(AtomicBool::new(false));
        let handled = [SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal));
        let handled: Vec<i32> = handled.collect();
        for signal in &handled {
            // Where the end of the process is held up, as by a pipe that nobody reads.
            flag::register_conditional_default(*signal, is_ending.clone())?;
        }
        let _ = send.send((Signals::new(&handled)?, is_ending));
        Ok(())
    }

    /// Whether who started this process wants it to ignore a signal, as a shell does with SIGINT for
    /// what it runs in the background.
    fn is_ignored(signal: i32) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }

    fn received(signal: i32, is_ending: &AtomicBool) {
        SIGNAL.store(signal as usize, Ordering::SeqCst);
        let is_first = !STOP.swap(true, Ordering::SeqCst);
        if is_first && FINISHING.load(Ordering::SeqCst) > 0 {
            return;
        }
        is_ending.store(true, Ordering::SeqCst);
        temporary::abandon();
        stdin::remove();
        let interrupted = Interrupted(signal as usize);
        messages::end_progress();
        match LEFT.get() {
            Some(left) => messages::error(format!("{interrupted}; {left}")),
            None => messages::error(interrupted),
        }
        std::process::exit(interrupted.status().into());
    }
}
