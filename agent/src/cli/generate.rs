//! `purser completions` and `purser man`: written from the definitions of the command line.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, print, say};

pub(super) fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "purser", &mut script);
    print(&script)
}

pub(super) fn man(dir: Option<&Path>) -> anyhow::Result<()> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return print(&page);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("cannot write the manual pages to {}", dir.display()))?;
    say(format_args!("wrote the manual pages to {}", dir.display()));
    Ok(())
}
