//! What every subcommand starts from: valid settings, and the way to lock and store.

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{Read, Write},
    os::unix::{fs::DirBuilderExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::{Global, exit::UsageError, talk};
use crate::{
    config::{Config, ConfigError, ConfigFile, SETTINGS, Setting},
    inference::Stop,
    store::{DirectoryLock, Identity, Store, StoreError},
};

/// A setting given by a flag: key, flag, value.
pub(super) type FlagSetting = (&'static str, &'static str, String);

pub(super) struct Context {
    pub(super) config: Config,
    pub(super) json: bool,
}

impl Context {
    pub(super) fn new(global: &Global, mut flags: Vec<FlagSetting>) -> anyhow::Result<Self> {
        if let Some(path) = &global.data_dir {
            let path = path.to_str().ok_or_else(|| UsageError("--data-dir is not UTF-8".into()))?;
            flags.push(("data_dir", "--data-dir", path.to_owned()));
        }
        if let Some(name) = &global.identity {
            flags.push(("identity", "--identity", name.clone()));
        }
        if global.verbose > 0 {
            let level = ["info", "debug", "trace"][usize::from(global.verbose.min(3)) - 1];
            flags.push(("log.level", "-v", level.to_owned()));
        }
        for name in SETTINGS.iter().map(Setting::variable) {
            if env::var_os(&name).is_some_and(|value| value.to_str().is_none()) {
                return Err(UsageError(format!("{name} in the environment is not UTF-8")).into());
            }
        }
        let file = config_file(global.config.as_deref())?;
        let config = Config::resolve(file.as_ref(), |name| env::var(name).ok(), &flags, &default_data_dir())?;
        Ok(Self { config, json: global.json })
    }

    /// Makes the identity's directory where it is absent, private to its owner.
    pub(super) fn directory(&self) -> anyhow::Result<PathBuf> {
        let path = self.config.identity_dir();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| StoreError::Directory { path: path.clone(), source })?;
        Ok(path)
    }

    /// Locks the identity's directory.
    pub(super) fn lock(&self, purpose: &str) -> anyhow::Result<DirectoryLock> {
        Ok(DirectoryLock::take(&self.directory()?, purpose)?)
    }

    /// Opens the store, and says so when a damaged one was set aside.
    pub(super) fn store(&self, lock: &DirectoryLock) -> anyhow::Result<Store> {
        let opened = Store::open(&self.config.identity_dir(), lock)?;
        if let Some((path, why)) = opened.set_aside {
            talk::say(&format!(
                "the store was damaged ({why}); it is set aside as {} and a new one begun: what it held is computed again when asked for",
                path.display()
            ));
        }
        Ok(opened.store)
    }

    /// The identity, made where there is none yet.
    pub(super) fn identity(&self) -> anyhow::Result<Identity> {
        Ok(Identity::load_or_create(&self.config.identity_dir())?)
    }

    /// Compute threads: as configured, or one a core that this process may use.
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.config.threads().unwrap_or_else(cores)
    }
}

/// A flag that the first Ctrl-C sets; the second one ends the process at once.
pub(super) fn stop_on_signals() -> anyhow::Result<Stop> {
    let stop = Stop::default();
    let ignored = ignored_signals();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        // The order matters: the second signal finds the flag set by the first.
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.flag())
            .context("cannot listen for signals")?;
        signal_hook::flag::register(signal, stop.flag()).context("cannot listen for signals")?;
    }
    Ok(stop)
}

/// From now on a write beyond the limit on file sizes (RLIMIT_FSIZE) is an error that names the file, and not the end.
pub(super) fn outlive_file_limit() -> anyhow::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())
        .context("cannot listen for signals")?;
    Ok(())
}

/// Wakes a thread that has nothing to do but wait for a signal, or for the end of something.
pub(super) struct Bell {
    ear: UnixStream,
    clapper: UnixStream,
}

impl Bell {
    /// One that every signal rings which [`stop_on_signals`] listens to; it must have been called before.
    pub(super) fn on_signals() -> anyhow::Result<Self> {
        let (ear, clapper) = UnixStream::pair().context("cannot listen for signals")?;
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            let clapper = clapper.try_clone().context("cannot listen for signals")?;
            signal_hook::low_level::pipe::register(signal, clapper).context("cannot listen for signals")?;
        }
        Ok(Self { ear, clapper })
    }

    /// Something that rings it.
    pub(super) fn rope(&self) -> anyhow::Result<impl FnOnce() + Send + 'static> {
        let mut clapper = self.clapper.try_clone().context("cannot wait for the node")?;
        Ok(move || {
            // Nobody waits any more where this fails.
            let _ = clapper.write_all(b".");
        })
    }

    /// Waits until it has rung.
    pub(super) fn wait(&mut self) {
        let mut rung = [0];
        // It can be interrupted, which is a signal as well.
        let _ = self.ear.read(&mut rung);
    }
}

/// Signals that whoever started us has switched off, as `nohup` does: bit `n - 1` stands for signal `n`. What is
/// ignored stays so.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn config_file(named: Option<&Path>) -> Result<Option<ConfigFile>, ConfigError> {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    if let Some(path) = named.map(Path::to_owned).or_else(|| var("EDGE_CONFIG").map(PathBuf::from)) {
        return ConfigFile::read(&path).map(Some);
    }
    let of_user = var("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(var("HOME")?).join(".config")));
    let places =
        of_user.map(|path| path.join("edge/config.toml")).into_iter().chain(["/etc/edge/config.toml".into()]);
    for path in places {
        match ConfigFile::read(&path) {
            // Nobody named this file: where it can not be, there is none.
            Err(ConfigError::Read { source, .. })
                if matches!(source.kind(), NotFound | NotADirectory | PermissionDenied) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

fn default_data_dir() -> String {
    let of_user = var("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(var("HOME")?).join(".local/share")));
    of_user.map_or("/var/lib/edge".into(), |path| path.join("edge").to_string_lossy().into_owned())
}

fn var(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
