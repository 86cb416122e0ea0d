//! Layers, and what is said of a wrong one.

use std::path::Path;

use super::*;

fn resolve(
    file: &str,
    variable: Option<(&str, &str)>,
    flags: &[(&str, &str, String)],
) -> Result<Config, String> {
    let file = ConfigFile::parse(Path::new("edge.toml"), file).map_err(|e| e.to_string())?;
    let environment = |name: &str| variable.filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned());
    Config::resolve(Some(&file), environment, flags, "/data").map_err(|e| e.to_string())
}

#[test]
fn later_layers_win_and_are_named() {
    let file = "# mine\n[embed]\nthreads = 3\nchunk_tokens = 64\n";
    let flags = [("embed.threads", "--threads", "5".to_owned())];
    let config = resolve(file, Some(("EDGE_EMBED_THREADS", "4")), &flags).unwrap();
    assert_eq!(config.threads(), Some(5));
    assert_eq!(config.value("embed.threads").unwrap().source.to_string(), "--threads");
    let config = resolve(file, Some(("EDGE_EMBED_THREADS", "4")), &[]).unwrap();
    assert_eq!(config.threads(), Some(4));
    let config = resolve(file, None, &[]).unwrap();
    assert_eq!((config.threads(), config.chunk_tokens()), (Some(3), Some(64)));
    assert_eq!(config.value("embed.threads").unwrap().source.to_string(), "edge.toml:3");
    assert_eq!(config.value("model").unwrap().source, Source::Default);
    assert_eq!(config.identity_dir(), Path::new("/data/identities/default"));
}

#[test]
fn a_wrong_key_names_its_line_and_the_nearest_right_one() {
    let error = resolve("identity = \"a\"\n[embed]\nthread = 3\n", None, &[]).unwrap_err();
    assert_eq!(error, "edge.toml:3: there is no setting `embed.thread`; did you mean `embed.threads`?");
    let error = resolve("xyz = 3\n", None, &[]).unwrap_err();
    assert!(
        error.starts_with("edge.toml:1: there is no setting `xyz`; the settings are data_dir, "),
        "{error}"
    );
}

#[test]
fn a_wrong_value_names_its_place_and_what_it_takes() {
    let error = resolve("[embed]\nthreads = \"many\"\n", None, &[]).unwrap_err();
    assert_eq!(
        error,
        "edge.toml:2: `embed.threads` takes 1 to 256 threads, or 0 for one a core; it is `many`"
    );
    let error = resolve("", Some(("EDGE_LOG_LEVEL", "loud")), &[]).unwrap_err();
    assert_eq!(error, "EDGE_LOG_LEVEL: `log.level` takes error, warn, info, debug or trace; it is `loud`");
    let error = resolve("embed = 3\n", None, &[]).unwrap_err();
    assert!(error.starts_with("edge.toml:1: "), "{error}");
    let error = resolve("[embed]\nthreads = [1]\n", None, &[]).unwrap_err();
    assert!(error.starts_with("edge.toml:2: "), "{error}");
    let error = resolve("embed]\n", None, &[]).unwrap_err();
    assert!(error.contains("edge.toml"), "{error}");
}

#[test]
fn every_default_is_valid() {
    Config::resolve(None, |_| None, &[], "/data").unwrap();
}
