//! `tuner completions` and `tuner man`: what a shell and a reader of manuals get.

use std::io::Write;
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use engine::util::create_folder;
use engine::util::files::write_atomically;

use crate::cli::Failure;
use crate::report::count;

#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for the pages, which is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn completions(args: &CompletionsArgs, mut tuner: Command, out: &mut dyn Write) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tuner, "tuner", &mut script);
    Ok(out.write_all(&script)?)
}

/// A page for the program and one for each command, as git names them: `tuner.1`, `tuner-run.1`.
pub fn man(args: &ManArgs, tuner: Command, out: &mut dyn Write) -> Result<(), Failure> {
    create_folder(&args.out)?;
    let mut tuner = tuner.disable_help_subcommand(true);
    // Commands then have names with that of the program.
    tuner.build();
    let commands: Vec<Command> = tuner.get_subcommands().cloned().collect();
    let pages: Vec<Man> = std::iter::once(tuner).chain(commands).map(Man::new).collect();
    for page in &pages {
        let mut text = Vec::new();
        page.render(&mut text)?;
        write_atomically(&args.out.join(page.get_filename()), &text)?;
    }
    Ok(writeln!(out, "{}: {}", args.out.display(), count(pages.len(), "page"))?)
}
