//! Where models are looked for, and how one is added.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    inference::{Engine, GoldenReport, ModelError, ModelFolder, check_golden},
    store::sync_folder,
    wire::PeerId,
};

/// How far above the program a checkout's `models/` may lie: `target/<triple>/release/deps/`.
const ANCESTORS_MAX: usize = 6;

/// Why there is no such model.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// No folder of that name anywhere.
    #[error("there is no model `{name}`; looked in {}; `edge model list` shows what is there, `edge model add DIR` adds one", places.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// Folders that were looked in.
        places: Vec<String>,
    },
    /// The folder is no model.
    #[error("cannot use the model folder {}", path.display())]
    Model {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ModelError,
    },
    /// A model of that name is there already.
    #[error("there is another model `{name}` in {}; remove it first, or give the new one another name", path.display())]
    Exists {
        /// The name.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// The copy failed; nothing was added.
    #[error("cannot copy the model to {}", path.display())]
    Copy {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A folder in which models are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPlace {
    /// The folder.
    pub path: PathBuf,
    /// Why it is looked in, for people.
    pub why: &'static str,
}

/// Folders in which models are looked for, first come first: the data directory, beside the program, and
/// the checkout that the program was built in.
pub fn model_places(data_dir: &Path) -> Vec<ModelPlace> {
    let mut places = vec![ModelPlace { path: data_dir.join("models"), why: "data directory" }];
    // Without /proc, in a bare chroot, the system does not tell where the program is; its own name may.
    let named = || env::args_os().next().map(PathBuf::from).filter(|path| path.components().count() > 1);
    let program = env::current_exe()
        .ok()
        .or_else(named)
        .and_then(|path| fs::canonicalize(path).ok())
        .unwrap_or_default();
    let installed = program.parent().into_iter().flat_map(|bin| {
        [bin.join("models"), bin.join("../share/edge/models")]
            .map(|path| ModelPlace { path, why: "beside the program" })
    });
    places.extend(installed);
    places.push(ModelPlace { path: "/usr/share/edge/models".into(), why: "system" });
    let built_in =
        program.ancestors().skip(2).take(ANCESTORS_MAX).filter(|dir| dir.join("Cargo.toml").is_file());
    // cargo names the checkout itself, which helps where its target folder lies elsewhere.
    let named = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    for checkout in built_in.map(Path::to_owned).chain(named) {
        places.push(ModelPlace { path: checkout.join("models"), why: "checkout" });
    }
    places
}

/// The first model of that name. A name with a `/` is a folder.
///
/// # Errors
/// [`ModelsError::Unknown`] with the places; [`ModelsError::Model`] where the folder is there but wrong.
pub fn find_model(name: &str, data_dir: &Path) -> Result<ModelFolder, ModelsError> {
    if name.contains('/') {
        return read(Path::new(name));
    }
    let places = model_places(data_dir);
    match places.iter().map(|place| place.path.join(name)).find(|folder| folder.join("model.toml").is_file())
    {
        Some(folder) => read_named(&folder),
        None => {
            // A long list helps only whoever has none of the folders yet.
            let has_any = places.iter().any(|place| place.path.is_dir());
            let looked_in = places.iter().filter(|place| !has_any || place.path.is_dir());
            let places = looked_in.map(|place| place.path.display().to_string()).collect();
            Err(ModelsError::Unknown { name: name.to_owned(), places })
        }
    }
}

/// Every model folder of every place, right or wrong, in order.
pub fn list_models(data_dir: &Path) -> Vec<(ModelPlace, Result<ModelFolder, ModelsError>)> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for place in model_places(data_dir) {
        let Ok(entries) = fs::read_dir(&place.path) else { continue };
        let mut folders: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        folders.sort();
        for folder in folders.into_iter().filter(|folder| folder.join("model.toml").is_file()) {
            let canonical = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
            if !seen.contains(&canonical) {
                found.push((place.clone(), read_named(&folder)));
                seen.push(canonical);
            }
        }
    }
    found
}

/// Checks the model in `folder` in full, golden vectors included, then copies it to the data directory.
/// A copy that is interrupted leaves nothing that would be taken for a model.
///
/// # Errors
/// [`ModelsError`]; nothing was added.
pub fn add_model(folder: &Path, data_dir: &Path) -> Result<(ModelFolder, GoldenReport), ModelsError> {
    let model = read(folder)?;
    let wrong = |source| ModelsError::Model { path: folder.to_owned(), source };
    let engine = Arc::new(Engine::load(&model, PeerId::from_bytes([0; 32])).map_err(wrong)?);
    let report = check_golden(&model, &engine).map_err(wrong)?;
    let name = model.manifest().name.clone();
    let place = data_dir.join("models");
    let target = place.join(&name);
    if target.exists() {
        return Err(ModelsError::Exists { name, path: target });
    }
    copy(folder, &place, &target).map_err(|source| ModelsError::Copy { path: target.clone(), source })?;
    Ok((read_named(&target)?, report))
}

fn copy(folder: &Path, place: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let staging = tempfile::Builder::new().prefix(".adding-").tempdir_in(place)?;
    for name in ["model.onnx", "tokenizer.json", "model.toml", "LICENSE", "README.md"] {
        let (from, to) = (folder.join(name), staging.path().join(name));
        if from.is_file() {
            fs::copy(&from, &to)?;
            fs::File::open(&to)?.sync_all()?;
        }
    }
    fs::rename(staging.path(), target)?;
    // The folder has moved: there is nothing left to remove.
    let _ = staging.keep();
    sync_folder(place)
}

fn read(folder: &Path) -> Result<ModelFolder, ModelsError> {
    ModelFolder::read(folder).map_err(|source| ModelsError::Model { path: folder.to_owned(), source })
}

/// A model that is found by name must have the name of its folder, or two names would mean one model.
fn read_named(folder: &Path) -> Result<ModelFolder, ModelsError> {
    let model = read(folder)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if model.manifest().name == name {
        return Ok(model);
    }
    let reason =
        format!("is `{}`, and its folder is called `{name}`: rename one of them", model.manifest().name);
    let source = ModelError::Value { path: folder.join("model.toml"), key: "name", reason };
    Err(ModelsError::Model { path: folder.to_owned(), source })
}
