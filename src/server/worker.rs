//! A worker: one thread, one runtime, its share of every listener's connections.

use super::connection;
use super::listening::{Accepting, Listening};
use super::port::{Door, Port};
use crate::net::io::{Address, Socket};
use crate::proxy::Shared;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What a worker is told.
#[derive(Debug)]
pub enum Order {
    /// Accept connections from this socket of a port, until the port closes.
    Accept(Door, Listening),
    /// Say that you take orders.
    Answer(oneshot::Sender<()>),
    /// End now, with whatever is open.
    Stop,
}

/// One worker's share of everything.
#[derive(Debug)]
pub struct Worker {
    /// From 0.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
}

/// Starts a worker's thread. It ends when it is told to stop, or when nobody can tell it anything any more.
///
/// # Errors
/// The system refused a thread or a runtime.
pub fn spawn(worker: Worker) -> io::Result<(mpsc::Sender<Order>, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (orders, inbox) = mpsc::channel(ORDERS);
    let name = format!("worker-{}", worker.index);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(work(Arc::new(worker), inbox));
        // Not waiting for name look-ups under way: the system may take its time.
        runtime.shutdown_background();
    })?;
    Ok((orders, thread))
}

async fn work(worker: Arc<Worker>, mut inbox: mpsc::Receiver<Order>) {
    while let Some(order) = inbox.recv().await {
        let (door, socket) = match order {
            Order::Accept(door, socket) => (door, socket),
            Order::Answer(answer) => {
                // Whoever asked may not want to know any more.
                let _: Result<(), ()> = answer.send(());
                continue;
            }
            Order::Stop => break,
        };
        match socket.into_accepting() {
            Ok(listener) => drop(tokio::spawn(accept(listener, door, Arc::clone(&worker)))),
            Err(error) => {
                let address = &door.port().local;
                tracing::error!(%error, %address, "a worker cannot listen; restart the gateway");
            }
        }
    }
}

/// Whether every worker takes orders. Returns when all have answered, so never while one hangs; the order in which they were
/// told anything is the order in which they do it, so whatever they were told before is under way then.
pub async fn all_answer(workers: &[mpsc::Sender<Order>]) {
    let mut answers = Vec::new();
    for worker in workers {
        let (answer, answered) = oneshot::channel();
        // One that has ended has nothing to answer for.
        if worker.send(Order::Answer(answer)).await.is_ok() {
            answers.push(answered);
        }
    }
    for answered in answers {
        // Likewise.
        let _: Result<(), oneshot::error::RecvError> = answered.await;
    }
}

/// Accepts connections until the port closes; then takes what the kernel had completed for us, so that closing the socket
/// resets nobody.
async fn accept(listener: Accepting, door: Door, worker: Arc<Worker>) {
    let port = door.port();
    let mut closes = pin!(port.closes());
    while !port.is_closing() {
        let next = async {
            port.has_room().await;
            listener.accept().await
        };
        tokio::select! {
            biased;
            accepted = next => match accepted {
                Ok((socket, address)) => begin(socket, address, port, &worker),
                Err(error) => endure(&error).await,
            },
            () = closes.as_mut() => break,
        }
    }
    if port.is_kept() {
        // Whoever holds the socket too takes them.
        return;
    }
    // The runtime may not have heard of the last ones yet, so the socket itself is asked.
    if let Ok(socket) = listener.into_listening() {
        take_backlog(&socket, port, &worker);
    }
}

fn take_backlog(socket: &Listening, port: &Arc<Port>, worker: &Arc<Worker>) {
    loop {
        match socket.accept() {
            Ok((socket, address)) => begin(socket, address, port, worker),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

fn begin(socket: Socket, address: Address, port: &Arc<Port>, worker: &Arc<Worker>) {
    if let Socket::Tcp(stream) = &socket {
        // Without it small answers wait for the client's delayed acknowledgement. A socket that refuses is slower, not
        // broken.
        let _: io::Result<()> = stream.set_nodelay(true);
    }
    let place = port.enter(address);
    tokio::spawn(connection::serve(socket, place, Arc::clone(worker)));
}

/// A connection that died in the backlog concerns nobody. Out of descriptors or memory, trying again at once would only turn
/// a core, so we wait a moment; the backlog holds the clients meanwhile.
async fn endure(error: &io::Error) {
    if !is_of_one_connection(error) {
        tracing::warn!(%error, "cannot accept connections; raise the limit of open files or lower limits.connections");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the next connection may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Orders a worker has not come to yet; it comes to them at once, so a full inbox means a worker that hangs.
const ORDERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[test]
    fn all_answer_only_once_the_last_of_them_does() {
        let (workers, mut inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::channel(ORDERS)).unzip();
        let mut asked = pin!(all_answer(&workers));
        let mut have_answered = || asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!have_answered());
        let hangs = inboxes.pop().expect("three of them");
        for mut inbox in inboxes {
            let Ok(Order::Answer(answer)) = inbox.try_recv() else { panic!("it was asked") };
            answer.send(()).expect("somebody waits");
        }
        assert!(!have_answered(), "one hangs");
        drop(hangs);
        assert!(have_answered(), "one that has ended does not");
    }
}
