//! Errors of the admin listener, as RFC 9457 problems.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An answer that says what was wrong and what to do.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Value,
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        let body = json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "detail": detail.into(),
            "reason": reason,
        });
        Problem { status, fields: Vec::new(), body }
    }

    /// Adds a field to the answer's head.
    pub(super) fn with_field(mut self, name: HeaderName, value: &'static str) -> Self {
        self.fields.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Adds a member to the problem.
    pub(super) fn with(mut self, member: &str, value: Value) -> Self {
        self.body[member] = value;
        self
    }

    /// Names the path the problem is about.
    pub(super) fn at(self, path: &str) -> Self {
        self.with("instance", path.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.extend(self.fields);
        response
    }
}
