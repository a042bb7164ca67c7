//! Opens the log of measurements for a command.

use engine::network::dtypes::Precision;
use engine::plan::records::WeightResidency;
use engine::runtime::machine::Machine;
use engine::util::error::Failure;
use engine::util::files::create_folder;

use crate::cli::args::TuneArgs;
use crate::log::file::LogError;
use crate::log::journal::Log;

/// The log of this machine; none where its folder can't be written.
pub fn open_log(
    machine: &Machine,
    args: &TuneArgs,
    threads: usize,
    types: Precision,
    cold: WeightResidency,
) -> Result<Option<Log>, Failure> {
    let folder = machine.folder(&args.host.results);
    let opened = create_folder(&folder)
        .and_then(|()| Ok(Log::open(&folder, machine, threads, types, cold, args.fresh || args.exhaustive)?));
    match opened {
        Ok(log) => Ok(Some(log)),
        Err(error)
            if matches!(error.downcast_ref(), Some(LogError::Foreign { .. } | LogError::Schema { .. })) =>
        {
            Err(error)
        }
        Err(error) => {
            eprintln!("note: {error}; measurements are not logged");
            Ok(None)
        }
    }
}
