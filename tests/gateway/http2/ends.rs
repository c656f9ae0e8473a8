//! Both ends of HTTP/2 as a test holds them, by the `h2` crate: a client's connection, and a provider.
//!
//! One thread of the test binary drives every connection. A test calls from its own thread and waits there, so that
//! providers that block stand beside these.

use crate::world::{PATIENCE, lock};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, request};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::task::{AbortHandle, JoinHandle};

/// A client's connection. It ends when this and every call on it is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    /// What requests are sent to: `http://` and an address.
    origin: String,
}

/// A request that was sent.
#[derive(Debug)]
pub(crate) struct Call {
    answer: ResponseFuture,
    /// Its body, as far as it is still to be sent.
    pub(crate) body: SendStream<Bytes>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) interims: Vec<Response<()>>,
    pub(crate) status: u16,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

/// A provider that speaks HTTP/2 from the first byte, on a port of its own.
#[derive(Debug)]
pub(crate) struct Http2Provider {
    address: SocketAddr,
    seen: Arc<Seen>,
}

/// What it has seen.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    /// Those that are open.
    open: AtomicUsize,
    requests: Mutex<Vec<Told>>,
    begun: AtomicUsize,
    /// How streams were reset from the other side.
    resets: Mutex<Vec<Reason>>,
    failures: Mutex<Vec<String>>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// Connections are to be ended by GOAWAY, in two steps.
    leaving: AtomicBool,
}

/// A request as a provider was told it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) head: request::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

/// A request at a provider.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) head: request::Parts,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
    /// Which of all requests this is, from 0.
    pub(crate) number: usize,
    seen: Arc<Seen>,
}

/// Where the connections of all tests are driven.
pub(crate) fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// Waits for `future` in this thread.
pub(crate) fn wait<T>(what: &str, future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    waited.unwrap_or_else(|_| panic!("still waiting: {what}"))
}

/// All fields of that name.
pub(crate) fn values<'a>(fields: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    fields.get_all(name).iter().map(|value| value.to_str().expect("visible ASCII")).collect()
}

/// Reads a body to its end, as fast as it comes.
pub(crate) async fn drain(body: &mut RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok((bytes, body.trailers().await?.unwrap_or_default()))
}

/// Sends some of `data` as the other side makes room, at least a byte; 0 where it makes none any more.
pub(crate) async fn send_some(body: &mut SendStream<Bytes>, data: &Bytes) -> usize {
    body.reserve_capacity(data.len());
    let mut room = body.capacity();
    while room == 0 {
        match poll_fn(|cx| body.poll_capacity(cx)).await {
            Some(Ok(more)) => room = more,
            _ => return 0,
        }
    }
    let room = room.min(data.len());
    if body.send_data(data.slice(..room), false).is_ok() { room } else { 0 }
}

/// Sends all of `data`; whether all of it was taken.
pub(crate) async fn send_all(body: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        let sent = send_some(body, &data).await;
        if sent == 0 {
            return false;
        }
        data = data.slice(sent..);
    }
    true
}

// === impl Client ===

impl Client {
    /// Connects by prior knowledge.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Client::connect_with(address, |_| {})
    }

    /// The same, with settings of its own.
    pub(crate) fn connect_with(address: SocketAddr, settings: impl FnOnce(&mut h2::client::Builder)) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
        settings(&mut builder);
        let begun = runtime().spawn(async move {
            let socket = TcpStream::connect(address).await.expect("the address takes connections");
            socket.set_nodelay(true).expect("a socket option");
            builder.handshake(socket).await.expect("the connection begins")
        });
        let (sender, connection) = wait("a connection", begun).expect("the driver lives");
        Client { sender, driver: runtime().spawn(connection), origin: format!("http://{address}") }
    }

    /// A request for `path`, with these fields.
    pub(crate) fn request(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.origin));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    /// Sends a request's head; nothing follows it if `ends`.
    pub(crate) fn begin(&self, request: Request<()>, ends: bool) -> Call {
        self.try_begin(request, ends).expect("a stream")
    }

    /// The same on a connection that may take none.
    pub(crate) fn try_begin(&self, request: Request<()>, ends: bool) -> Result<Call, h2::Error> {
        let sender = self.sender.clone();
        let mut sender = wait("room for a stream", sender.ready())?;
        let (answer, body) = sender.send_request(request, ends)?;
        Ok(Call { answer, body })
    }

    /// Sends a request, with a body where there is one, and reads its answer.
    pub(crate) fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut call = self.begin(self.request(method, path, fields), body.is_none());
        if let Some(body) = body {
            // What does not take it tells so in its answer.
            let _: bool = wait("the body is taken", send_all(&mut call.body, Bytes::copy_from_slice(body)));
            let _: Result<(), h2::Error> = call.body.send_data(Bytes::new(), true);
        }
        call.answer().expect("an answer")
    }

    /// GETs `path`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    /// Whether the peer takes an extended CONNECT.
    pub(crate) fn may_switch(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Loses the connection, whatever is under way.
    pub(crate) fn lose(self) {
        self.driver.abort();
    }

    /// Waits for the end of the connection; says how it came.
    pub(crate) fn end(self) -> Result<(), h2::Error> {
        let Client { sender, driver, .. } = self;
        drop(sender);
        wait("the connection ends", driver).expect("the driver lives")
    }

    /// Waits for the peer to end the connection, while this end would go on.
    pub(crate) fn ended(&mut self) -> Result<(), h2::Error> {
        wait("the peer ends the connection", &mut self.driver).expect("the driver lives")
    }
}

// === impl Call ===

impl Call {
    /// The head of the final answer.
    pub(crate) fn head(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        wait("the head of an answer", &mut self.answer)
    }

    /// The head of the next interim answer.
    pub(crate) fn interim(&mut self) -> Response<()> {
        let interim = wait("an interim answer", poll_fn(|cx| self.answer.poll_informational(cx)));
        interim.expect("one comes before the final answer").expect("an answer")
    }

    /// The whole answer.
    pub(crate) fn answer(mut self) -> Result<Answer, h2::Error> {
        let answer = &mut self.answer;
        let mut interims = Vec::new();
        let read = async {
            let head = poll_fn(|cx| {
                while let Poll::Ready(Some(interim)) = answer.poll_informational(cx) {
                    interims.push(interim?);
                }
                Pin::new(&mut *answer).poll(cx)
            });
            let (head, mut body) = head.await?.into_parts();
            let (body, trailers) = drain(&mut body).await?;
            Ok::<_, h2::Error>((head, body, trailers))
        };
        let (head, body, trailers) = wait("an answer", read)?;
        Ok(Answer { interims, status: head.status.as_u16(), fields: head.headers, body, trailers })
    }

    /// Why the stream was reset, or its connection ended, before the answer was complete.
    pub(crate) fn broken(self) -> h2::Error {
        self.answer().expect_err("the answer is not complete")
    }

    /// Gives the stream up.
    pub(crate) fn cancel(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }
}

// === impl Answer ===

impl Answer {
    /// The one value of a field; `None` where there is no such field.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let values = values(&self.fields, name);
        assert!(values.len() <= 1, "{name} is there more than once: {values:?}");
        values.first().copied()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// That it is a problem of ours, with this status and reason.
    pub(crate) fn is_problem(&self, status: u16, reason: &str) {
        assert_eq!((self.status, self.value("content-type")), (status, Some("application/problem+json")), "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("a problem is JSON");
        assert_eq!((&problem["status"], &problem["reason"]), (&status.into(), &reason.into()));
        let told = self.value("proxy-status").expect("a refusal says so");
        assert!(told.starts_with("sluice; error=") && told.contains(reason), "{told}");
        assert_eq!(self.value("connection"), None, "{self:?}");
    }
}

// === impl Http2Provider ===

impl Http2Provider {
    /// A provider that follows `script` for each request. A script that panics fails the test when the provider is dropped.
    pub(crate) fn scripted<F>(script: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Http2Provider::with(|_| {}, script)
    }

    /// The same, with settings of its own.
    pub(crate) fn with<F>(
        settings: impl FnOnce(&mut h2::server::Builder),
        script: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut builder = h2::server::Builder::new();
        settings(&mut builder);
        let seen = Arc::new(Seen::default());
        let (provider, script) = (Arc::clone(&seen), Arc::new(script));
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("a bound socket");
        let accepting = runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            loop {
                let (socket, _) = listener.accept().await.expect("the listener lives");
                socket.set_nodelay(true).expect("a socket option");
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let serving = serve(socket, builder.clone(), Arc::clone(&seen), Arc::clone(&script));
                seen.spawn(serving);
            }
        });
        lock(&provider.tasks).push(accepting.abort_handle());
        Http2Provider { address, seen: provider }
    }

    /// A provider that answers every request with 200 and this body.
    pub(crate) fn answering(body: &'static str) -> Self {
        Http2Provider::scripted(move |mut asked| async move {
            asked.all().await.expect("a whole request");
            asked.answer(200, &[], body).await;
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// How many requests have begun.
    pub(crate) fn begun(&self) -> usize {
        self.seen.begun.load(Ordering::SeqCst)
    }

    /// The whole requests that its script has read, in the order of their ends.
    pub(crate) fn requests(&self) -> Vec<Told> {
        lock(&self.seen.requests).clone()
    }

    /// How streams were given up by the gateway, as far as scripts looked.
    pub(crate) fn resets(&self) -> Vec<Reason> {
        lock(&self.seen.resets).clone()
    }

    /// Ends its connections by GOAWAY once what is under way is answered.
    pub(crate) fn leave(&self) {
        self.seen.leaving.store(true, Ordering::SeqCst);
    }

    /// Ends everything at once, as a process that is killed does.
    pub(crate) fn kill(&self) {
        for task in lock(&self.seen.tasks).drain(..) {
            task.abort();
        }
    }
}

impl Drop for Http2Provider {
    fn drop(&mut self) {
        self.kill();
        let failures = lock(&self.seen.failures);
        assert!(failures.is_empty() || std::thread::panicking(), "a provider's script failed: {failures:?}");
    }
}

/// Serves one connection.
async fn serve<F, S>(socket: TcpStream, builder: h2::server::Builder, seen: Arc<Seen>, script: Arc<S>)
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(Asked) -> F + Send + Sync + 'static,
{
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    seen.open.fetch_add(1, Ordering::SeqCst);
    let _closes = Closes(Arc::clone(&seen));
    let mut left = false;
    loop {
        let look = tokio::time::timeout(LOOK_EVERY, connection.accept());
        match look.await {
            Ok(Some(Ok((request, respond)))) => {
                let (head, body) = request.into_parts();
                let number = seen.begun.fetch_add(1, Ordering::SeqCst);
                seen.spawn(script(Asked { head, body, respond, number, seen: Arc::clone(&seen) }));
            }
            // The gateway ends connections in its own ways; what tests want to know of it they ask elsewhere.
            Ok(Some(Err(_)) | None) => return,
            Err(_) if seen.leaving.load(Ordering::SeqCst) && !left => {
                left = true;
                connection.graceful_shutdown();
            }
            Err(_) => {}
        }
    }
}

/// One open connection less when it is dropped.
struct Closes(Arc<Seen>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Seen ===

impl Seen {
    /// Runs a task that ends with the provider, and notes a panic.
    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let running = runtime().spawn(task);
        lock(&self.tasks).push(running.abort_handle());
        let seen = Arc::clone(self);
        runtime().spawn(async move {
            if let Err(error) = running.await
                && error.is_panic()
            {
                lock(&seen.failures).push(error.to_string());
            }
        });
    }
}

// === impl Asked ===

impl Asked {
    /// Reads the request to its end, and keeps it.
    pub(crate) async fn all(&mut self) -> Result<Told, h2::Error> {
        let (body, trailers) = drain(&mut self.body).await?;
        let told = Told { head: self.head.clone(), body, trailers };
        lock(&self.seen.requests).push(told.clone());
        Ok(told)
    }

    /// The head of an answer.
    pub(crate) fn head_of(status: u16, fields: &[(&str, &str)]) -> Response<()> {
        let mut head = Response::builder().status(status);
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        head.body(()).expect("a head")
    }

    /// Sends the head of the final answer.
    pub(crate) fn begin(&mut self, status: u16, fields: &[(&str, &str)], ends: bool) -> SendStream<Bytes> {
        self.respond.send_response(Asked::head_of(status, fields), ends).expect("the gateway waits")
    }

    /// Answers as a whole.
    pub(crate) async fn answer(&mut self, status: u16, fields: &[(&str, &str)], body: &str) {
        let mut send = self.begin(status, fields, body.is_empty());
        if !body.is_empty() {
            send_all(&mut send, Bytes::copy_from_slice(body.as_bytes())).await;
            send.send_data(Bytes::new(), true).expect("the gateway listens");
        }
    }

    /// Waits until the gateway gives the stream up, before its answer begins, and notes how; a connection that is gone says
    /// nothing.
    pub(crate) async fn given_up(&mut self) {
        if let Ok(reason) = poll_fn(|cx| self.respond.poll_reset(cx)).await {
            self.note(reason);
        }
    }

    /// Notes how the gateway gave a stream up.
    pub(crate) fn note(&self, reason: Reason) {
        lock(&self.seen.resets).push(reason);
    }
}

/// How soon a provider notices that it is to leave.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(10);
