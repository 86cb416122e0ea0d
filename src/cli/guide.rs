//! `edge guide`: a page each for who lends a device, has documents, or runs a swarm; `edge man` writes the same for man.
//!
//! A page has a fixed form: titles in capitals, paragraphs, examples behind four blanks, and between backticks, which do
//! not cross a line, what is typed or printed. Nothing else marks anything, so that it reads well as it is.

use std::{
    fs,
    io::{self, Write, stdout},
    path::Path,
};

use clap::ValueEnum;

use super::exit::Exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  edge guide                 which pages there are
  edge guide lender          what is lent, when it rests, what others can see
  edge guide pool | less";

/// What stands before a line of an example.
const INDENT: &str = "    ";
const SEE_ALSO: &str = ".SH SEE ALSO\n\\fBedge\\fR(1), \\fBedge\\-guide\\fR(1)\n";

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Page {
    /// Lend a device, and stay its master
    Lender,
    /// Have documents computed, here or by a swarm
    Requester,
    /// Run a swarm, or the node where others find each other
    Pool,
}

impl Page {
    fn text(self) -> &'static str {
        match self {
            Self::Lender => include_str!("guide/lender.txt"),
            Self::Requester => include_str!("guide/requester.txt"),
            Self::Pool => include_str!("guide/pool.txt"),
        }
    }

    /// Its name and what it is about, as `--help` says them.
    fn title(self) -> (String, String) {
        let Some(value) = self.to_possible_value() else { return Default::default() };
        (value.get_name().to_owned(), value.get_help().map(ToString::to_string).unwrap_or_default())
    }
}

/// Runs `edge guide …`.
pub(super) fn run(page: Option<Page>) -> anyhow::Result<Exit> {
    let mut out = stdout().lock();
    if let Some(page) = page {
        out.write_all(page.text().as_bytes())?;
        return Ok(Exit::Done);
    }
    for page in Page::value_variants() {
        let (name, about) = page.title();
        writeln!(out, "edge guide {name:<9}  {about}")?;
    }
    Ok(Exit::Done)
}

/// Writes each as a page of the manual's section 7 to `folder`.
pub(super) fn write_manual(folder: &Path) -> io::Result<()> {
    for page in Page::value_variants() {
        let (name, about) = page.title();
        fs::write(folder.join(format!("edge-{name}.7")), roff(&name, &about, page.text()))?;
    }
    Ok(())
}

/// A page in the language of man(7).
fn roff(name: &str, about: &str, text: &str) -> String {
    let head = format!(".TH edge\\-{name} 7 \"\" \"edge {}\"", env!("CARGO_PKG_VERSION"));
    let mut roff = format!("{head}\n.SH NAME\nedge\\-{name} \\- {about}\n");
    let mut in_example = false;
    // One blank line more ends an example at the end.
    for line in text.lines().chain([""]) {
        let example = line.strip_prefix(INDENT);
        if example.is_some() != in_example {
            in_example = example.is_some();
            roff += if in_example { ".RS 4\n.nf\n" } else { ".fi\n.RE\n" };
        }
        roff += &match example {
            Some(example) => no_request(typed(example)),
            None if line.is_empty() => ".PP".to_owned(),
            None if is_title(line) => format!(".SH {line}"),
            None => no_request(filled(line)),
        };
        roff.push('\n');
    }
    roff + SEE_ALSO
}

fn is_title(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_uppercase()) && !line.contains(|c: char| c.is_ascii_lowercase())
}

/// A line of a paragraph: what stands between backticks is bold.
fn filled(line: &str) -> String {
    let bold = |(at, part): (usize, &str)| match at % 2 {
        0 => part.replace('\\', "\\(rs").replace('~', "\\(ti"),
        _ => format!("\\fB{}\\fR", typed(part)),
    };
    line.split('`').enumerate().map(bold).collect()
}

/// What is typed stays what it is: man makes other signs of these, which no shell knows.
fn typed(text: &str) -> String {
    let signs =
        [('\\', "\\(rs"), ('-', "\\-"), ('\'', "\\(aq"), ('`', "\\(ga"), ('~', "\\(ti"), ('^', "\\(ha")];
    let sign = |c: char| signs.iter().find(|(sign, _)| *sign == c).map(|(_, name)| (*name).to_owned());
    text.chars().map(|c| sign(c).unwrap_or_else(|| c.to_string())).collect()
}

/// A line that begins with one of these would be an order to man.
fn no_request(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::{
        cli::Arguments,
        config::{Config, ConfigFile, SETTINGS},
    };

    fn texts() -> impl Iterator<Item = &'static str> {
        Page::value_variants().iter().map(|page| page.text())
    }

    #[test]
    fn a_page_fits_a_terminal() {
        for text in texts() {
            assert!(is_title(text.lines().next().unwrap()) && text.lines().count() <= 75);
            for line in text.lines() {
                assert!(line.is_ascii() && line.len() <= 78 && line == line.trim_end(), "{line}");
                assert!(line.matches('`').count() % 2 == 0, "{line}");
            }
        }
    }

    #[test]
    fn what_is_text_is_no_order_to_man() {
        let odd = "ODD\n.de x\n'so a\na \\fB `.x -y` it's\n    .z --a 'b' \\c `d` ~\n";
        for text in texts().chain([odd]) {
            let page = roff("x", "y", text);
            let is_ours = |line: &str| {
                line.starts_with(".TH ")
                    || line.starts_with(".SH ")
                    || [".PP", ".RS 4", ".RE", ".nf", ".fi"].contains(&line)
            };
            assert!(page.lines().all(|line| is_ours(line) || !line.starts_with(['.', '\''])), "{page}");
            let titles = text.lines().filter(|line| is_title(line));
            let titles: Vec<&str> = ["NAME"].into_iter().chain(titles).chain(["SEE ALSO"]).collect();
            let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
            assert_eq!(sections, titles);
        }
        let paragraph = "\n\\&.de x\n\\&'so a\na \\(rsfB \\fB.x \\-y\\fR it's\n";
        let example = ".RS 4\n.nf\n\\&.z \\-\\-a \\(aqb\\(aq \\(rsc \\(gad\\(ga \\(ti\n.fi\n.RE\n";
        assert!(roff("x", "y", odd).contains(&format!("{paragraph}{example}")));
    }

    /// What a page says to type is there: commands, their flags, and settings.
    #[test]
    fn what_is_to_be_typed_exists() {
        let mut edge = Arguments::command();
        edge.build();
        let has =
            |command: &clap::Command, flag: &str| command.get_arguments().any(|a| a.get_long() == Some(flag));
        let typed = texts().flat_map(str::lines).flat_map(|line| match line.strip_prefix(INDENT) {
            Some(example) => example.split("  ").collect::<Vec<_>>(),
            None => line.split('`').skip(1).step_by(2).collect(),
        });
        let mut commands = 0;
        for typed in typed {
            if let Some(flag) = typed.strip_prefix("--").and_then(|flag| flag.split(' ').next()) {
                let mut anywhere = edge.get_subcommands().flat_map(|c| c.get_subcommands().chain([c]));
                assert!(anywhere.any(|command| has(command, flag)), "{typed}");
            }
            let section = typed.split_once('.').map(|(section, _)| format!("{section}."));
            if section.is_some_and(|section| SETTINGS.iter().any(|known| known.key.starts_with(&section))) {
                assert!(SETTINGS.iter().any(|known| known.key == typed), "{typed}");
            }
            let mut words = typed.split_whitespace();
            if !words.any(|word| word == "edge" || word.ends_with("/bin/edge")) {
                continue;
            }
            let mut command = &edge;
            for word in words {
                match (word.strip_prefix("--"), command.find_subcommand(word)) {
                    (Some(flag), _) => assert!(has(command, flag), "{typed}"),
                    (None, Some(below)) => (command, commands) = (below, commands + 1),
                    (None, None) => assert!(command.get_name() != "edge", "{typed}"),
                }
            }
        }
        assert!(commands > 50, "they were looked for in the wrong places: {commands}");
    }

    #[test]
    fn the_settings_of_an_example_are_right() {
        let lines = Page::Lender.text().lines().skip_while(|line| line.trim() != "[budget]");
        let lines: Vec<&str> = lines.map_while(|line| line.strip_prefix(INDENT)).collect();
        let file = ConfigFile::parse(Path::new("config.toml"), &lines.join("\n")).unwrap();
        assert!(file.value("budget.green").is_some());
        Config::resolve(Some(&file), |_| None, &[], "/x").unwrap().limits().unwrap();
    }
}
