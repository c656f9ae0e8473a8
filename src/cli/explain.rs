//! `sluice explain`: what would happen to a request, without sending it.

use clap::Args;
use std::io::Write;
use std::path::Path;

/// The request to explain.
#[derive(Debug, Args)]
pub struct Explain {
    /// GET, POST, …
    method: String,
    /// `http://host/path?query`, or a path for any host
    url: String,
    /// A field of the request, as `name: value`; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
}

/// Explains; exit code 1 where the request or the configuration is not valid.
pub fn explain(request: &Explain, path: &Path, env: &dyn crate::config::Environment, out: &mut dyn Write) -> i32 {
    let _ = (request, path, env, out);
    1
}
