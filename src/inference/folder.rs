//! A model is a folder: `model.toml` says what `model.onnx` and `tokenizer.json` must be.
//!
//! Nothing of a folder is believed: sizes bound what is read, hashes must hold before anything is parsed,
//! and [`super::check_golden`] computes what the folder says it would.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::TokenError;
use crate::wire::ModelHash;

const MANIFEST: &str = "model.toml";
/// Version of `model.toml`.
const MANIFEST_VERSION: u32 = 1;
/// 64 golden vectors of 4,096 floats in base64 fit.
const MANIFEST_BYTES_MAX: u64 = 2 << 20;
/// Protobuf ends at 2 GiB.
const GRAPH_BYTES_MAX: u64 = (2 << 30) - 1;
/// The largest published tokenizers take 34 MB.
const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// Of larger vectors nobody has heard.
const DIMENSION_MAX: usize = 8192;
/// Attention grows with the square; what a device with 1 GB can hold ends about here.
const TOKENS_MAX: usize = 8192;

/// Why a folder is no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that is absent or does not read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file beyond its bound.
    #[error("{} has {bytes} bytes; at most {bytes_max} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// `model.toml` is no TOML of this form.
    #[error("{} is not a model description", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value of `model.toml` that cannot be.
    #[error("{}: `{key}` {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file that is not the one described.
    #[error("{} is not the file that {MANIFEST} describes: {what} is {found}, not {expected}; copy the folder again", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Length or hash.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// tract refuses the graph.
    #[error("{} does not load", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// What tract said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer does not load.
    #[error("{} does not load", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the library said.
        #[source]
        source: TokenError,
    },
    /// The model loads and does not run.
    #[error("the model in {} does not run on its golden texts", path.display())]
    GoldenRun {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The model runs and computes something else than its folder says.
    #[error("the model in {} does not do what its {MANIFEST} says: {reason}", path.display())]
    Golden {
        /// The folder.
        path: PathBuf,
        /// Which promise is broken, and how.
        reason: String,
    },
}

/// Where token vectors become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// In the graph, which gives `[batch, dimension]`.
    Graph,
    /// The mean over tokens of `[batch, tokens, dimension]`.
    Mean,
    /// The first token of `[batch, tokens, dimension]`.
    Cls,
}

/// What `model.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// Name of the model: lower-case letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// SPDX expression.
    pub license: String,
    /// Where the weights come from.
    #[serde(default)]
    pub source: String,
    /// Floats in a vector.
    pub dimension: usize,
    /// Tokens that the model takes, special ones included.
    pub max_tokens: usize,
    /// Where token vectors become one vector.
    pub pooling: Pooling,
    /// Whether the graph's vectors have length 1 already.
    pub normalized: bool,
    /// Precision of the weights, in words.
    pub precision: String,
    /// What is put before a text.
    #[serde(default)]
    pub prefix: Prefix,
    files: Files,
    /// Texts with known ids and vectors.
    #[serde(default)]
    golden: Vec<GoldenText>,
}

/// What is put before a text, by what the vector is for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// Before a chunk of a document.
    #[serde(default)]
    pub document: String,
    /// Before a query.
    #[serde(default)]
    pub query: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    #[serde(rename = "model.onnx")]
    graph: Described,
    #[serde(rename = "tokenizer.json")]
    tokenizer: Described,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    bytes: u64,
    sha256: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenText {
    text: String,
    ids: Vec<u32>,
    vector: String,
}

/// A folder whose description has been read. Its large files are read when they are needed.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    manifest: Manifest,
    hash: ModelHash,
}

impl ModelFolder {
    /// Reads and checks `model.toml`.
    ///
    /// # Errors
    /// [`ModelError`] names the file, the key and what is wrong.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let file = path.join(MANIFEST);
        let bytes = read_bounded(&file, MANIFEST_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        let manifest: Manifest = toml::from_str(&text)
            .map_err(|source| ModelError::Manifest { path: file.clone(), source: Box::new(source) })?;
        if let Some((key, reason)) = manifest.first_wrong_value() {
            return Err(ModelError::Value { path: file, key, reason });
        }
        let hash = manifest.hash();
        Ok(Self { path: path.to_owned(), manifest, hash })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `model.toml` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Stands for the model in every content key. The files' hashes are those of `model.toml`; they are
    /// checked when the files are read, so no vector is ever made under a wrong hash.
    pub fn hash(&self) -> ModelHash {
        self.hash
    }

    /// Bytes of the graph and of the tokenizer together.
    pub fn bytes(&self) -> u64 {
        self.manifest.files.graph.bytes + self.manifest.files.tokenizer.bytes
    }

    /// Path and bytes of `model.onnx`, checked against its hash.
    ///
    /// # Errors
    /// [`ModelError::Read`], [`ModelError::TooLarge`], [`ModelError::Mismatch`].
    pub fn graph(&self) -> Result<(PathBuf, Vec<u8>), ModelError> {
        self.file("model.onnx", &self.manifest.files.graph, GRAPH_BYTES_MAX)
    }

    /// Path and bytes of `tokenizer.json`, checked against its hash.
    ///
    /// # Errors
    /// As [`ModelFolder::graph`].
    pub fn tokenizer(&self) -> Result<(PathBuf, Vec<u8>), ModelError> {
        self.file("tokenizer.json", &self.manifest.files.tokenizer, TOKENIZER_BYTES_MAX)
    }

    fn file(
        &self,
        name: &str,
        described: &Described,
        bytes_max: u64,
    ) -> Result<(PathBuf, Vec<u8>), ModelError> {
        let path = self.path.join(name);
        let bytes = read_bounded(&path, bytes_max)?;
        let mismatch =
            |what, found, expected| ModelError::Mismatch { path: path.clone(), what, found, expected };
        if bytes.len() as u64 != described.bytes {
            return Err(mismatch("its length", bytes.len().to_string(), described.bytes.to_string()));
        }
        let found = HEXLOWER.encode(&Sha256::digest(&bytes));
        if found != described.sha256.to_ascii_lowercase() {
            return Err(mismatch("its SHA-256", found, described.sha256.clone()));
        }
        Ok((path, bytes))
    }
}

impl Manifest {
    /// Text, token ids and vector of each golden text.
    pub fn golden(&self) -> impl Iterator<Item = (&str, &[u32], Vec<f32>)> {
        self.golden.iter().map(|golden| {
            let vector = decode_vector(&golden.vector).unwrap_or_default();
            (golden.text.as_str(), golden.ids.as_slice(), vector)
        })
    }

    fn first_wrong_value(&self) -> Option<(&'static str, String)> {
        let wrong = |bad: bool, key, reason: &str| bad.then(|| (key, reason.to_owned()));
        let vector =
            |golden: &GoldenText| decode_vector(&golden.vector).is_none_or(|v| v.len() != self.dimension);
        let hex = |file: &Described| HEXLOWER.decode(file.sha256.as_bytes()).is_ok_and(|h| h.len() == 32);
        wrong(self.version != MANIFEST_VERSION, "version", "is not 1, the only one that this edge reads")
            .or(wrong(
                !is_model_name(&self.name),
                "name",
                "takes 1 to 64 of a-z, 0-9, `.`, `_`, `-`, and begins with a letter or digit",
            ))
            .or(wrong(!(1..=DIMENSION_MAX).contains(&self.dimension), "dimension", "must lie in 1..=8192"))
            .or(wrong(!(16..=TOKENS_MAX).contains(&self.max_tokens), "max_tokens", "must lie in 16..=8192"))
            .or(wrong(self.prefix.document.len() > 256, "prefix.document", "is longer than 256 bytes"))
            .or(wrong(self.prefix.query.len() > 256, "prefix.query", "is longer than 256 bytes"))
            .or(wrong(!hex(&self.files.graph), "files.\"model.onnx\".sha256", "is no SHA-256 in hex"))
            .or(wrong(!hex(&self.files.tokenizer), "files.\"tokenizer.json\".sha256", "is no SHA-256 in hex"))
            .or(wrong(
                self.golden.is_empty(),
                "golden",
                "is empty: without one golden text nobody can tell whether the model works",
            ))
            .or(wrong(
                self.golden.iter().any(vector),
                "golden.vector",
                "is not base64 of `dimension` little-endian f32",
            ))
    }

    fn hash(&self) -> ModelHash {
        let mut hasher = blake3::Hasher::new_derive_key("edge 2026-11 model, version 1");
        for text in [&self.files.graph.sha256, &self.files.tokenizer.sha256] {
            hasher.update(text.to_ascii_lowercase().as_bytes());
        }
        for number in [self.dimension, self.max_tokens, self.pooling as usize, usize::from(self.normalized)] {
            hasher.update(&(number as u64).to_le_bytes());
        }
        ModelHash::from_bytes(*hasher.finalize().as_bytes())
    }
}

/// Whether `name` can be a model's name, and so a folder's.
pub(super) fn is_model_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

fn decode_vector(base64: &str) -> Option<Vec<f32>> {
    let bytes = BASE64.decode(base64.as_bytes()).ok()?;
    let (floats, []) = bytes.as_chunks::<4>() else { return None };
    Some(floats.iter().map(|four| f32::from_le_bytes(*four)).collect())
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
    let read = |source| ModelError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let bytes = fs::metadata(path).map_err(read)?.len();
    if bytes > bytes_max {
        return Err(ModelError::TooLarge { path: path.to_owned(), bytes, bytes_max });
    }
    let mut content = Vec::with_capacity(bytes as usize);
    file.take(bytes_max).read_to_end(&mut content).map_err(read)?;
    Ok(content)
}
