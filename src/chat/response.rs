//! Heads and trailers of responses that are not encoded by tonic.

use super::codec;
use http::{HeaderMap, HeaderValue, Response, header};
use tonic::Status;

/// A response whose head goes out now; its body follows as messages are published.
pub(super) fn open<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static(codec::ACCEPTED));
    response
}

/// The trailers that carry a status.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // A part of it cannot be a header value: the code is what matters.
        trailers.clear();
        let code = HeaderValue::from(status.code() as i32);
        trailers.insert(Status::GRPC_STATUS, code);
    }
    trailers
}
