//! Whether a contender does the job: complete answers, streams as they come, and the fields that all must write.

use crate::Outcome;
use crate::client::{self, Client};
use crate::load;
use crate::upstream;
use crate::wire::Dialer;
use crate::workloads::{Face, Protocol, Visit, Workload};
use std::net::SocketAddr;
use std::path::Path;

/// Whether a workload's answer arrives complete through the proxy at `address`, a stream as it comes, and whether both
/// ends see the fields that all contenders must write.
pub(crate) fn check_answer(
    workload: &'static Workload,
    address: SocketAddr,
    scratch: &Path,
    fields: bool,
) -> Outcome<()> {
    if !workload.by_wrk() {
        let dialer = Dialer::new(workload, address, scratch)?;
        return load::runtime()?.block_on(load::within(load::PATIENCE, check_wire(&dialer, workload, fields)));
    }
    // What a cache can answer is asked for twice, of which the second is a hit.
    let mut client = Client::connect(address)?;
    let mut ask = || client.ask_with(&workload.request_line(0), workload.field, &workload.body());
    let first = ask()?;
    let reply = if workload.face == Face::Cache { ask()? } else { first };
    if reply.status != workload.status {
        return Err(format!("{} gave {} instead of {}", workload.path, reply.status, workload.status).into());
    }
    if reply.body.len() != workload.answer_bytes {
        let (got, want) = (reply.body.len(), workload.answer_bytes);
        return Err(format!("{} brought {got} bytes instead of {want}", workload.path).into());
    }
    if workload.path == upstream::STREAM_PATH && reply.body_took < upstream::STREAM_TAKES / 2 {
        return Err(format!("it held the stream back: all of it came within {:?}", reply.body_took).into());
    }
    if fields {
        let asked = format!("{} {}", workload.method(), upstream::HEAD_PATH);
        check_fields(&client::fetch(address, &asked, &workload.body())?)?;
        check_answer_fields(&reply)?;
    }
    Ok(())
}

async fn check_wire(dialer: &Dialer, workload: &Workload, fields: bool) -> Outcome<()> {
    dialer.ask(&mut dialer.open_first().await?).await?;
    if workload.visit == Visit::Again {
        // The first connection brought the tickets.
        dialer.ask(&mut dialer.open().await?).await?;
    }
    // What is no request any more has no fields.
    if fields && workload.protocol != Protocol::WebSocket {
        check_fields(&dialer.ask_for(&mut dialer.open_first().await?, upstream::HEAD_PATH).await?)?;
    }
    Ok(())
}

/// Makes one request of `workload`.
pub(crate) fn ask_once(workload: &'static Workload, address: SocketAddr, scratch: &Path) -> Outcome<()> {
    let dialer = Dialer::new(workload, address, scratch)?;
    let asking = async { dialer.ask(&mut dialer.open_first().await?).await.map(drop) };
    load::runtime()?.block_on(load::within(load::PATIENCE, asking))
}

/// Whether the upstream, whose answer holds the head it received, and the client see what all contenders must write.
fn check_fields(reply: &client::Reply) -> Outcome<()> {
    let head = String::from_utf8_lossy(&reply.body).to_ascii_lowercase();
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-request-id", "via", "x-edge", "x-provider"] {
        if !head.contains(&format!("\n{name}:")) {
            return Err(format!("it does not send {name} to the upstream, as the others do").into());
        }
    }
    check_answer_fields(reply)
}

fn check_answer_fields(reply: &client::Reply) -> Outcome<()> {
    for name in ["x-request-id", "via", "x-served"] {
        reply.field(name).ok_or_else(|| format!("its answers lack {name}, which the others write"))?;
    }
    Ok(())
}
