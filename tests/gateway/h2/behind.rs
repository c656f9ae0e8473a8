//! What a connection under test leads to. The path of a request says what becomes of it: `/held` waits until the test
//! releases it, everything else is answered at once with 200 and `hello`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The crate's own server, for now.
#[derive(Debug)]
pub(super) struct Behind {
    address: SocketAddr,
    release: tokio::sync::watch::Sender<bool>,
    requests: Arc<AtomicUsize>,
}

impl Behind {
    pub(super) fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("an option");
        let address = listener.local_addr().expect("bound");
        let (release, held) = tokio::sync::watch::channel(false);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, held.clone(), Arc::clone(&count)));
                }
            });
        });
        Behind { address, release, requests }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn release(&self) {
        self.release.send_replace(true);
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(stream: tokio::net::TcpStream, held: tokio::sync::watch::Receiver<bool>, count: Arc<AtomicUsize>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(128).max_header_list_size(64 * 1024).enable_connect_protocol();
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await else { return };
    while let Some(request) = connection.accept().await {
        let Ok((request, mut respond)) = request else { continue };
        count.fetch_add(1, Ordering::SeqCst);
        let mut held = held.clone();
        tokio::spawn(async move {
            let (parts, mut body) = request.into_parts();
            while parts.uri.path() == "/unread" && !*held.borrow() {
                drop(held.changed().await);
            }
            while let Some(data) = body.data().await {
                let Ok(data) = data else { return };
                drop(body.flow_control().release_capacity(data.len()));
            }
            if body.trailers().await.is_err() {
                return;
            }
            if parts.uri.path() == "/held" {
                drop(held.wait_for(|open| *open).await);
            }
            let text: bytes::Bytes = match parts.uri.path().strip_prefix("/bytes/") {
                Some(count) => vec![b'a'; count.parse().expect("a count")].into(),
                None => bytes::Bytes::from_static(b"hello"),
            };
            let length = text.len().to_string();
            let answer = http::Response::builder().status(200).header("content-length", length).body(()).expect("it");
            let empty = parts.method == http::Method::HEAD;
            if let Ok(mut stream) = respond.send_response(answer, empty) {
                if !empty {
                    drop(stream.send_data(text, true));
                }
            }
        });
    }
}
