//! `sluice check`: every problem of a configuration, by the code that a start and a reload use.

use crate::config::{self, Environment, Loaded, Problem, Problems};
use crate::gateway;
use std::io::{self, Write};
use std::path::Path;

/// Checks the file at `path` and writes to `out` what is wrong with it, or that nothing is. Returns the exit code: 0, or
/// 1 where there are problems or `out` takes no more.
pub fn check(path: &Path, env: &dyn Environment, out: &mut dyn Write, colour: bool) -> i32 {
    let name = path.display().to_string();
    let (written, code) = match config::load(path, env) {
        Ok(loaded) => match gateway::verify(&loaded.config) {
            Ok(()) => (success(&name, &loaded, out, colour), 0),
            Err(message) => (writeln!(out, "{name}: {message}"), 1),
        },
        Err(problems) => (failure(&problems, out, colour), 1),
    };
    if written.is_ok() { code } else { 1 }
}

fn success(name: &str, loaded: &Loaded, out: &mut dyn Write, colour: bool) -> io::Result<()> {
    for note in &loaded.notes {
        out.write_all(paint(note, name, colour).as_bytes())?;
    }
    let config = &loaded.config;
    let routes = count(config.routes.len(), "route");
    let pools = count(config.pools.len(), "pool");
    let providers = count(config.providers.len(), "provider");
    writeln!(out, "{name}: ok ({routes}, {pools}, {providers})")
}

fn failure(problems: &Problems, out: &mut dyn Write, colour: bool) -> io::Result<()> {
    for problem in &problems.problems {
        out.write_all(paint(problem, &problems.file, colour).as_bytes())?;
    }
    let all = problems.problems.len() + problems.more;
    if problems.more > 0 {
        writeln!(out, "{}: and {} more", problems.file, problems.more)?;
    }
    writeln!(out, "{}: {}", problems.file, count(all, "problem"))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// The problem as text; in colour, its head is bold and its marks are red, or cyan for a note.
fn paint(problem: &Problem, name: &str, colour: bool) -> String {
    let text = problem.render(name);
    if !colour {
        return text;
    }
    let marks = if problem.note { "\x1b[36m" } else { "\x1b[31m" };
    let mut painted = String::new();
    for (index, line) in text.lines().enumerate() {
        let style = match index {
            0 => "\x1b[1m",
            1 => "",
            _ => marks,
        };
        let reset = if style.is_empty() { "" } else { "\x1b[0m" };
        painted.extend([style, line, reset, "\n"]);
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;

    fn run(text: &str, colour: bool) -> (i32, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, text).expect("writable");
        let mut out = Vec::new();
        let code = check(&path, &ProcessEnvironment, &mut out, colour);
        let text = String::from_utf8(out).expect("text");
        (code, text.replace(&folder.path().display().to_string(), "DIR"))
    }

    const GOOD: &str = "listeners: [{ name: web, bind: \"127.0.0.1:0\" }]\nroutes: [{ name: all, respond: {} }]\n";

    #[test]
    fn a_good_file_is_counted_and_exits_with_0() {
        assert_eq!(run(GOOD, false), (0, "DIR/gateway.yaml: ok (1 route, 0 pools, 0 providers)\n".into()));
    }

    #[test]
    fn every_problem_is_printed_and_the_exit_code_is_1() {
        let (code, text) = run(&format!("{GOOD}wrokers: 1\nlgo: {{}}\n"), false);
        assert_eq!(code, 1);
        assert!(text.starts_with("DIR/gateway.yaml:3:1: unknown key `wrokers`\n"), "{text}");
        assert!(text.contains("DIR/gateway.yaml:4:1: unknown key `lgo`\n"), "{text}");
        assert!(text.ends_with("DIR/gateway.yaml: 2 problems\n"), "{text}");
    }

    #[test]
    fn colour_is_only_there_where_it_is_asked_for() {
        assert!(!run("x: 1", false).1.contains('\x1b'));
        assert!(run("x: 1", true).1.contains("\x1b[31m      | ^"));
    }

    #[test]
    fn a_missing_file_says_what_to_do() {
        let mut out = Vec::new();
        assert_eq!(check(Path::new("no/such/gateway.yaml"), &ProcessEnvironment, &mut out, false), 1);
        let text = String::from_utf8(out).expect("text");
        assert!(text.starts_with("no/such/gateway.yaml: the configuration cannot be read: No such file"), "{text}");
        assert!(text.contains("-c FILE"), "{text}");
    }
}
