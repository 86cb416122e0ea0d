//! A configuration file with every setting, none of which it changes: for people to edit.

use std::fmt::Write;

use super::{Config, ConfigError, SETTINGS, Setting};

/// Where the system's node keeps what it knows; the node of a user has its own place, which no file need name.
const SYSTEM_DATA_DIR: &str = "/var/lib/edge";

const HEAD: &str = "\
# Settings of edge. Each line shows a default; remove the `#` before it to set another value.
# Later ones win: the default, this file, EDGE_... in the environment (the system's service sets its
# data directory and its socket so), a flag. `edge config show` says what counts and who said so,
# `edge config check` whether all of it is right.
";

/// The text of the file.
///
/// # Errors
/// None but a default of the table's own that is wrong.
pub fn example() -> Result<String, ConfigError> {
    let defaults = Config::resolve(None, |_| None, &[], SYSTEM_DATA_DIR)?;
    let (mut text, mut section) = (HEAD.to_owned(), "");
    for setting in SETTINGS.iter() {
        let (own, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        // Writing to a text does not fail.
        if own != section {
            section = own;
            let _ = write!(text, "\n[{section}]");
        }
        let value = defaults.value(setting.key).map_or("", |value| value.text.as_str());
        let _ = write!(text, "\n{}#{key} = {}\n", comment(setting), literal(value));
    }
    Ok(text)
}

fn comment(setting: &Setting) -> String {
    let place = if setting.key == "data_dir" { "; a user's is ~/.local/share/edge" } else { "" };
    format!("# {}{place}; also {}\n", setting.help, setting.variable())
}

/// As TOML writes it.
fn literal(value: &str) -> String {
    let is_bare = value.parse::<u64>().is_ok() || matches!(value, "true" | "false");
    if is_bare {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ConfigFile;

    #[test]
    fn it_names_every_setting_and_changes_none() {
        let text = example().unwrap();
        let parse = |text: &str| ConfigFile::parse(Path::new("config.toml"), text).unwrap();
        let untouched = parse(&text);
        assert!(SETTINGS.iter().all(|setting| untouched.value(setting.key).is_none()));
        let edited: String = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let (file, environment) = (parse(&edited), |_: &str| None);
        let set = Config::resolve(Some(&file), environment, &[], "/elsewhere").unwrap();
        let unset = Config::resolve(None, environment, &[], SYSTEM_DATA_DIR).unwrap();
        for setting in SETTINGS.iter() {
            assert!(file.value(setting.key).is_some(), "no {} in {edited}", setting.key);
            let text = |config: &Config| config.value(setting.key).unwrap().text.clone();
            assert_eq!(text(&set), text(&unset), "{}", setting.key);
        }
    }
}
