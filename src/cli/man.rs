//! `edge man DIR`: a manual page for each command, from the same words as `--help`, and for each page of `edge guide`;
//! for who makes a package.

use std::{fs, path::Path};

use anyhow::Context as _;

use super::{exit::Exit, guide, human, talk};

/// What clap_mangen calls the text after the options, which begins with examples nearly everywhere.
const EXTRA: &str = "\n.SH EXTRA\n";

/// Writes the pages of `command` and all below it to `folder`.
pub(super) fn run(command: clap::Command, folder: &Path) -> anyhow::Result<Exit> {
    let failed = || format!("cannot write manual pages to {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(command, folder).with_context(failed)?;
    guide::write_manual(folder).with_context(failed)?;
    let mut pages = 0;
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let page = fs::read_to_string(&path).with_context(failed)?;
        fs::write(&path, with_lines_kept(&page)).with_context(failed)?;
        pages += 1;
    }
    talk::say(&format!("{} in {}", human::count(pages, "manual page"), folder.display()));
    Ok(Exit::Done)
}

/// man fills paragraphs, which examples in columns do not survive.
fn with_lines_kept(page: &str) -> String {
    let Some((before, extra)) = page.split_once(EXTRA) else { return page.to_owned() };
    let (extra, after) = extra.split_at(extra.find("\n.SH ").map_or(extra.len(), |at| at + 1));
    format!("{before}\n.SH EXAMPLES AND NOTES\n.nf\n{extra}.fi\n{after}")
}
