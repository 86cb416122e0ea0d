//! `edge man DIR`: a manual page for each command, from the same words as `--help`; for who makes a package.

use std::{fs, path::Path};

use anyhow::Context as _;

use super::{exit::Exit, human, talk};

/// Writes the pages of `command` and all below it to `folder`.
pub(super) fn run(command: clap::Command, folder: &Path) -> anyhow::Result<Exit> {
    let failed = || format!("cannot write manual pages to {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(command, folder).with_context(failed)?;
    let pages = fs::read_dir(folder).with_context(failed)?.count();
    talk::say(&format!("{} in {}", human::count(pages as u64, "manual page"), folder.display()));
    Ok(Exit::Done)
}
