//! What the gateway did while the load ran, from its own metrics: attempts by provider, what was asked again, circuits.
//!
//! The load sees answers only. That a provider failed and nobody noticed is in the gateway's counters.

use super::body::Content;
use super::load;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One line of the metrics.
#[derive(Debug, Clone, PartialEq)]
struct Count<'a> {
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

// === impl Count ===

impl<'a> Count<'a> {
    /// Those of one family, as Prometheus text has them.
    fn all(text: &'a str, family: &str) -> impl Iterator<Item = Count<'a>> {
        text.lines().filter_map(move |line| Self::read(line.strip_prefix(family)?))
    }

    /// What follows the name: labels, whose values are names of the configuration and need no escapes, and a number.
    fn read(rest: &'a str) -> Option<Self> {
        let (labels, value) = rest.strip_prefix('{')?.split_once("} ")?;
        let label = |label: &'a str| label.strip_suffix('"')?.split_once("=\"");
        Some(Count { labels: labels.split(',').filter_map(label).collect(), value: value.parse().ok()? })
    }

    fn label(&self, name: &str) -> &'a str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// What the gateway counted since its start, in a few lines, or why that cannot be said.
pub(super) async fn told(admin: SocketAddr) -> String {
    match timeout(TIMEOUT, metrics(admin)).await.unwrap_or_else(|_| Err("it took too long".to_owned())) {
        Ok(text) => summary(&text),
        Err(why) => format!("What the gateway counted is at http://{admin}/metrics; the demo cannot read it: {why}.\n"),
    }
}

async fn metrics(admin: SocketAddr) -> Result<String, String> {
    let stream = TcpStream::connect(admin).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().uri("/metrics").header(header::HOST, admin.to_string());
    if let Ok(token) = std::env::var("SLUICE_ADMIN_TOKEN") {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Content::empty()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = load::read(response.into_body()).await;
    driver.abort();
    match body {
        Ok(body) if status.is_success() => Ok(String::from_utf8_lossy(&body.bytes).into_owned()),
        _ => Err(format!("it answered {status}")),
    }
}

/// The lines that have something to say.
fn summary(text: &str) -> String {
    let mut attempts: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
    for count in Count::all(text, "sluice_attempts_total").filter(|count| count.value > 0.0) {
        attempts.entry(count.label("provider")).or_default().push((count.label("outcome"), count.value));
    }
    let mut lines = String::new();
    for (at, (provider, outcomes)) in attempts.iter().enumerate() {
        let title = if at == 0 { "attempts" } else { "" };
        let _ = write!(lines, "{title:<18} {provider:<6}");
        for (outcome, count) in outcomes {
            let _ = write!(lines, " {outcome} {count} ");
        }
        lines.truncate(lines.trim_end().len());
        lines.push('\n');
    }
    let retries = Count::all(text, "sluice_retries_total").map(|count| (count.label("reason"), count.value));
    line(&mut lines, "asked again after", retries);
    let opened = Count::all(text, "sluice_circuit_transitions_total").filter(|count| count.label("to") == "open");
    line(&mut lines, "circuits opened", opened.map(|count| (count.label("provider"), count.value)));
    let shed = Count::all(text, "sluice_queue_shed_total").map(|count| (count.label("reason"), count.value));
    line(&mut lines, "refused by sluice", shed);
    if lines.is_empty() { lines } else { format!("What the gateway counted since its start:\n{lines}") }
}

/// Sums by name, where there is anything to sum.
fn line<'a>(lines: &mut String, title: &str, counts: impl Iterator<Item = (&'a str, f64)>) {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, count) in counts.filter(|(_, count)| *count > 0.0) {
        *sums.entry(name).or_default() += count;
    }
    if sums.is_empty() {
        return;
    }
    let sums: Vec<_> = sums.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ = writeln!(lines, "{title:<18} {}", sums.join("  "));
}

/// For the whole of the question.
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE sluice_attempts_total counter\n\
        sluice_attempts_total{provider=\"alpha\",outcome=\"success\"} 90\n\
        sluice_attempts_total{provider=\"alpha\",outcome=\"failure\"} 0\n\
        sluice_attempts_total{provider=\"spare\",outcome=\"success\"} 5\n\
        sluice_attempts_total{provider=\"spare\",outcome=\"failure\"} 3\n\
        sluice_retries_total{route=\"api\",reason=\"503\"} 1\n\
        sluice_retries_total{route=\"spare\",reason=\"503\"} 2\n\
        sluice_retries_total{route=\"spare\",reason=\"reset\"} 1\n\
        sluice_circuit_transitions_total{provider=\"spare\",to=\"open\"} 1\n\
        sluice_circuit_transitions_total{provider=\"spare\",to=\"closed\"} 7\n\
        sluice_queue_shed_total{pool=\"main\",class=\"low\",reason=\"queue_full\"} 0\n";

    #[test]
    fn what_happened_is_summed_and_what_did_not_is_left_out() {
        let expected = "What the gateway counted since its start:\n\
            attempts           alpha  success 90\n                   spare  success 5  failure 3\n\
            asked again after  503 3  reset 1\ncircuits opened    spare 1\n";
        assert_eq!(summary(METRICS), expected);
        assert_eq!(summary("sluice_workers 2\n"), "");
    }

    #[tokio::test]
    async fn metrics_that_cannot_be_read_are_said_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let admin = listener.local_addr().expect("a bound socket");
        drop(listener);
        let text = told(admin).await;
        assert!(text.contains("/metrics; the demo cannot read it: "), "{text}");
    }
}
