//! What is asked of the contenders.

use crate::upstream;

/// One kind of request, made over and over.
#[derive(Debug, PartialEq)]
pub(crate) struct Workload {
    /// What `--workloads` calls it.
    pub(crate) key: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// Where it is at the upstream.
    pub(crate) path: &'static str,
    /// Bytes sent with it; none makes it a GET.
    pub(crate) body_bytes: usize,
    /// Bytes of the answer's body.
    pub(crate) answer_bytes: usize,
    /// Connections that ask at once.
    pub(crate) connections: u32,
    /// Requests in the shorter and in the longer instrumented run; their difference is what is counted.
    pub(crate) counted: (u32, u32),
}

// === impl Workload ===

impl Workload {
    /// In the order they are run and shown.
    pub(crate) const ALL: &'static [Workload] = &[
        Workload {
            key: "1k",
            title: "GET, 1 KiB answer",
            path: "/1k",
            body_bytes: 0,
            answer_bytes: 1024,
            connections: 16,
            counted: (500, 3500),
        },
        Workload {
            key: "post",
            title: "POST, 4 KiB body",
            path: "/post",
            body_bytes: 4096,
            answer_bytes: 16,
            connections: 16,
            counted: (500, 3500),
        },
        Workload {
            key: "100k",
            title: "GET, 100 KiB answer",
            path: "/100k",
            body_bytes: 0,
            answer_bytes: 100 * 1024,
            connections: 16,
            counted: (200, 1200),
        },
        Workload {
            key: "10m",
            title: "GET, 10 MiB answer",
            path: "/10m",
            body_bytes: 0,
            answer_bytes: 10 * 1024 * 1024,
            connections: 4,
            counted: (5, 25),
        },
        Workload {
            key: "stream",
            title: "GET, stream of 50 chunks",
            path: upstream::STREAM_PATH,
            body_bytes: 0,
            answer_bytes: upstream::CHUNKS * upstream::CHUNK,
            // The upstream takes its time over a stream, so more of them are needed to keep a proxy busy.
            connections: 64,
            counted: (20, 80),
        },
    ];

    /// The workload that `--workloads` calls `key`.
    pub(crate) fn named(key: &str) -> Result<&'static Workload, String> {
        let known = || Workload::ALL.iter().map(|workload| workload.key).collect::<Vec<_>>().join(", ");
        let found = Workload::ALL.iter().find(|workload| workload.key == key);
        found.ok_or_else(|| format!("there is no workload {key:?}; there are {}", known()))
    }

    /// Method and target.
    pub(crate) fn request_line(&self) -> String {
        format!("{} {}", if self.body_bytes == 0 { "GET" } else { "POST" }, self.path)
    }

    /// What is sent.
    pub(crate) fn body(&self) -> Vec<u8> {
        vec![b'x'; self.body_bytes]
    }
}
