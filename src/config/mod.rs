//! `gateway.yaml`: from bytes to a [`Config`] that cannot be wrong, or to every problem at once.
//!
//! In order: `file` reads YAML into a bounded tree with places, `expand` fills in `${…}`, `conform` compares the tree with
//! the `shape` of the contract, `merge` lays the defaults under, `decode` reads the types, `check` looks at the whole.
//! `problem` and `excerpt` say what is wrong. The shape is one table; `schema`, the documentation and the defaults come
//! from it.

mod certificate;
mod check;
mod conform;
mod decode;
mod diff;
mod effective;
mod excerpt;
mod expand;
mod file;
mod inputs;
mod merge;
mod problem;
mod reader;
mod scalar;
mod schema;
mod secret;
mod shape;
mod suggest;
mod types;

pub use diff::{Change, diff};
pub use effective::effective;
pub use excerpt::Excerpt;
pub use expand::{Environment, ProcessEnvironment, UnknownEnvironment};
pub use inputs::Inputs;
pub use problem::{Problem, Problems};
pub use scalar::parse_duration;
pub use schema::{key_table, schema};
pub use secret::{Secret, SecretBytes};
pub use types::*;

use conform::{At, Context};
use problem::Report;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// A configuration that was read, and what is worth knowing about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The SHA-256 of the file's bytes, in lower-case hexadecimal.
    pub hash: String,
    /// What is legal and may surprise.
    pub notes: Vec<Problem>,
    /// What it was read from.
    pub inputs: Arc<Inputs>,
}

/// Reads the file at `path`.
///
/// # Errors
/// Every problem of the file; one that says so where it cannot be read.
pub fn load(path: &Path, env: &dyn Environment) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    match read(path) {
        Ok(bytes) => parse(&name, &bytes, env),
        Err(error) => Err(Problems { inputs: Arc::new(Inputs::of_file(path, None)), ..unreadable(&name, &error) }),
    }
}

/// Reads `bytes` as the file called `name`; relative paths in it start at that file's folder.
///
/// # Errors
/// Every problem of the file.
pub fn parse(name: &str, bytes: &[u8], env: &dyn Environment) -> Result<Loaded, Problems> {
    let base = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut report = Report::default();
    let mut inputs = Inputs::of_file(Path::new(name), Some(bytes));
    let text = file::decode(bytes, &mut report);
    let config = text.and_then(|text| tree(text, base, env, &mut report, &mut inputs));
    let inputs = Arc::new(inputs);
    match (report.finish(name, text.unwrap_or_default()), config) {
        (Ok(notes), Some(config)) => Ok(Loaded { config, hash: hash(bytes), notes, inputs }),
        (Ok(_), None) => Err(Problems::of_file(name, "the file cannot be read".into(), "see the lines above")),
        (Err(problems), _) => Err(Problems { inputs, ..problems }),
    }
}

/// Text to configuration. What is returned means something only where nothing was reported.
fn tree(text: &str, base: &Path, env: &dyn Environment, report: &mut Report, inputs: &mut Inputs) -> Option<Config> {
    let mut expander = expand::Expander::new(base, env);
    let root = file::read(text, &mut |text, span, report| expander.expand(text, span, report), report);
    inputs.extend(expander.files.into_iter());
    let root = root?;
    let mut cx = Context::new(std::mem::take(report), env, base);
    cx.expanded = expander.used;
    cx.report.shape_known();
    conform::conform(&root, &shape::FILE, &At::TOP, &mut cx);
    let config = root.entries().is_some().then(|| decode::config(&root, &mut cx));
    inputs.extend(cx.files_read());
    *report = cx.report;
    config.map(|config| Config { files: inputs.named().map(Path::to_owned).collect(), ..config })
}

/// Reads a duration as the file has them: `250ms`, `5s`, `1m`, `2h`.
///
/// # Errors
/// How to write one.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    scalar::duration(text).map_err(|fault| fault.help.unwrap_or("write at most `8784h`, a year".into()).into_owned())
}

/// The bytes of the file, at most one more than [`parse`] takes.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(file::BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(name: &str, error: &std::io::Error) -> Problems {
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => "name it with `-c FILE`, or start from the gateway.yaml of the documentation",
        std::io::ErrorKind::PermissionDenied => "let the user that runs Sluice read it",
        _ => "check the path",
    };
    Problems::of_file(name, format!("the configuration cannot be read: {error}"), help)
}

fn hash(bytes: &[u8]) -> String {
    hex(&inputs::digest(bytes))
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
