//! Finds the documents that the arguments name, and says why others are left out.

use std::{
    collections::HashSet,
    fs::{self, FileType},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use ignore::WalkBuilder;

/// A path that is no document, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// What the arguments come to.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// Files in the order of the arguments, and of their paths inside a folder.
    pub(super) files: Vec<PathBuf>,
    /// Left out for what they are.
    pub(super) skipped: Vec<Remark>,
    /// Named or found, and not readable.
    pub(super) failed: Vec<Remark>,
}

/// What the walk keeps away from.
pub(super) struct Exclude {
    /// Files that will be written, canonical. Naming one as an input is refused: it would be destroyed.
    pub(super) outputs: Vec<PathBuf>,
    /// The data directory, canonical.
    pub(super) data_dir: Option<PathBuf>,
}

/// Walks `inputs`, honouring `.gitignore` and skipping hidden files inside folders; follows a link only
/// where it is an argument itself, so links can not make a circle. A file named twice counts once.
/// `-` stays as it is, in its place.
///
/// # Errors
/// The input that is an output as well.
pub(super) fn find(inputs: &[PathBuf], exclude: &Exclude) -> Result<Documents, PathBuf> {
    let mut found = Documents::default();
    let mut seen = HashSet::new();
    for input in inputs {
        if input == Path::new("-") {
            found.add(input, input.clone(), &mut seen);
            continue;
        }
        let canonical = match fs::canonicalize(input) {
            Ok(canonical) => canonical,
            Err(error) => {
                found.fail(input, error.to_string());
                continue;
            }
        };
        if exclude.outputs.contains(&canonical) {
            return Err(input.clone());
        }
        if exclude.data_dir.as_ref().is_some_and(|data_dir| canonical.starts_with(data_dir)) {
            found.skip(input, "lies in edge's data directory");
            continue;
        }
        if !canonical.is_dir() {
            match kind(canonical.metadata().map(|m| m.file_type()).ok()) {
                // A named pipe would be waited for without end; the shell can feed it to stdin.
                Some(what) => {
                    found.fail(input, format!("is {what}; give its content to stdin: edge embed - < FILE"))
                }
                None => found.add(input, canonical, &mut seen),
            }
            continue;
        }
        found.walk(input, &canonical, exclude, &mut seen);
    }
    Ok(found)
}

impl Documents {
    fn walk(&mut self, root: &Path, canonical: &Path, exclude: &Exclude, seen: &mut HashSet<PathBuf>) {
        let real = |path: &Path| canonical.join(path.strip_prefix(root).unwrap_or(path));
        let (base, top) = (root.to_owned(), canonical.to_owned());
        let excluded: Vec<PathBuf> = exclude.outputs.iter().chain(&exclude.data_dir).cloned().collect();
        let walker = WalkBuilder::new(root)
            .require_git(false)
            .follow_links(false)
            .sort_by_file_path(Path::cmp)
            .filter_entry(move |entry| {
                let real = top.join(entry.path().strip_prefix(&base).unwrap_or(entry.path()));
                !excluded.contains(&real)
            })
            .build();
        for entry in walker {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let (path, why) = walk_error(&error, root);
                    self.fail(&path, why);
                    continue;
                }
            };
            let file_type = entry.file_type();
            if file_type.is_some_and(|t| t.is_dir()) || entry.depth() == 0 {
                continue;
            }
            match kind(file_type) {
                Some(what) => self.skip(entry.path(), &format!("is {what}")),
                None => {
                    let real = real(entry.path());
                    self.add(entry.path(), real, seen);
                }
            }
        }
    }

    fn add(&mut self, path: &Path, real: PathBuf, seen: &mut HashSet<PathBuf>) {
        if seen.insert(real) {
            self.files.push(path.to_owned());
        } else {
            self.skip(path, "was named twice");
        }
    }

    pub(super) fn skip(&mut self, path: &Path, why: &str) {
        self.skipped.push(Remark { path: path.to_owned(), why: why.to_owned() });
    }

    pub(super) fn fail(&mut self, path: &Path, why: String) {
        self.failed.push(Remark { path: path.to_owned(), why });
    }
}

/// What a thing is that is no regular file.
fn kind(file_type: Option<FileType>) -> Option<&'static str> {
    let Some(t) = file_type else { return Some("of an unknown kind") };
    let kinds = [
        (t.is_symlink(), "a symbolic link"),
        (t.is_fifo(), "a named pipe"),
        (t.is_socket(), "a socket"),
        (t.is_char_device() || t.is_block_device(), "a device"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
}

fn walk_error(error: &ignore::Error, root: &Path) -> (PathBuf, String) {
    match error {
        ignore::Error::WithPath { path, err } => (path.clone(), err.to_string()),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            walk_error(err, root)
        }
        other => (root.to_owned(), other.to_string()),
    }
}
