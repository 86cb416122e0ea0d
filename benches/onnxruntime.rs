//! The CPU time of edge against onnxruntime on the same graph and the same chunks, one thread each.
//!
//!     cargo bench --bench onnxruntime [-- PATH…]
//!
//! Whole processes are compared, in turn, three times; the ratio of the medians is what counts, for both
//! suffer alike from whatever else the machine does. edge reads, cuts, tokenises, embeds, stores and writes;
//! onnxruntime gets the token ids ready-made. It comes from PyPI into `target/onnxruntime-venv`.

use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use edge::inference::{ModelFolder, Tokens};
use serde_json::Value;

/// All optimisations on, one thread; `onnxruntime.py` says how.
const PINNED: [&str; 2] = ["onnxruntime==1.31.1", "numpy"];
const ROUNDS: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|argument| argument != "--bench").map(PathBuf::from).collect();
    if paths.is_empty() {
        paths = ["README.md", "src", "models/export.py"].map(|path| root.join(path)).into();
    }
    let python = python(root)?;
    let work = tempfile::tempdir()?;
    let (out, ids, vectors) =
        (work.path().join("out.jsonl"), work.path().join("ids.jsonl"), work.path().join("vectors.npy"));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut chunks = Vec::new();
    for round in 0..ROUNDS {
        ours.push(edge(&paths, work.path(), &out)?);
        if round == 0 {
            chunks = fs::read_to_string(&out)?
                .lines()
                .map(serde_json::from_str)
                .collect::<serde_json::Result<_>>()?;
            write_ids(root, &chunks, &ids)?;
        }
        let script = root.join("benches/onnxruntime.py");
        let model = root.join("models/all-minilm-l6-v2/model.onnx");
        let run =
            Command::new(&python).arg(script).arg(model).arg(&ids).arg("--vectors").arg(&vectors).output()?;
        theirs.push(parse(&run.stdout).map_err(|_| String::from_utf8_lossy(&run.stderr).into_owned())?);
    }
    let (least, mean) = cosines(&chunks, &fs::read(&vectors)?);
    let field = |runs: &[Value], key: &str| median(runs.iter().filter_map(|run| run[key].as_f64()).collect());
    let (edge_cpu, ort_cpu) = (field(&ours, "cpu_seconds"), field(&theirs, "cpu_s"));
    let edge_memory = field(&ours, "peak_memory_bytes") / 1e6;
    let count = chunks.len() as f64;
    println!("{} chunks, {} tokens, median of {ROUNDS} runs in turn", chunks.len(), ours[0]["tokens"]);
    println!("                 CPU s   CPU ms a chunk   peak MB");
    println!("edge          {edge_cpu:>8.2} {:>16.1} {edge_memory:>9.0}", edge_cpu * 1e3 / count);
    println!(
        "onnxruntime   {ort_cpu:>8.2} {:>16.1} {:>9.0}",
        ort_cpu * 1e3 / count,
        field(&theirs, "peak_rss_mb")
    );
    println!(
        "ratio         {:>8.2}   (cosine of the vectors: least {least:.6}, mean {mean:.6})",
        edge_cpu / ort_cpu
    );
    Ok(())
}

fn python(root: &Path) -> Result<PathBuf> {
    let venv = root.join("target/onnxruntime-venv");
    let python = venv.join("bin/python");
    if !venv.join("ready").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PINNED))?;
        fs::write(venv.join("ready"), "")?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn edge(paths: &[PathBuf], work: &Path, out: &Path) -> Result<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
    command.arg("embed").args(paths).args(["--fresh", "--threads", "1", "--json", "-o"]).arg(out);
    let output = command.env("EDGE_DATA_DIR", work.join("data")).output()?;
    parse(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned().into())
}

fn parse(stdout: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice(stdout)?)
}

fn write_ids(root: &Path, chunks: &[Value], path: &Path) -> Result<()> {
    let folder = ModelFolder::read(&root.join("models/all-minilm-l6-v2"))?;
    let tokens = Tokens::from_bytes(&folder.tokenizer()?.1)?;
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for chunk in chunks {
        let ids = tokens.ids(chunk["text"].as_str().unwrap_or_default())?;
        writeln!(file, "{}", serde_json::json!({ "ids": ids }))?;
    }
    Ok(file.flush()?)
}

/// Least and mean cosine of our vectors with the rows of a version 1.0 `.npy` file.
fn cosines(chunks: &[Value], npy: &[u8]) -> (f64, f64) {
    let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let (floats, _) = npy[header..].as_chunks::<4>();
    let rows: Vec<f64> = floats.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect();
    let dimension = rows.len() / chunks.len().max(1);
    let (mut least, mut sum) = (1.0f64, 0.0);
    for (chunk, row) in chunks.iter().zip(rows.chunks_exact(dimension.max(1))) {
        let ours: Vec<f64> =
            chunk["vector"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = dot(&ours, row) / (dot(&ours, &ours) * dot(row, row)).sqrt();
        least = least.min(cosine);
        sum += cosine;
    }
    (least, sum / chunks.len().max(1) as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
