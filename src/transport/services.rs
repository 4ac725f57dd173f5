//! What the transport requires of the services behind it.

use crate::rpc::response::ResponseBody;
use http::Response;
use std::convert::Infallible;
use tonic::body::Body;
use tower::Service;

/// The services that handle calls; each transport has a clone.
///
/// Implemented for every [`Service`] of gRPC requests whose response body is a [`ResponseBody`].
pub trait Services:
    Service<http::Request<Body>, Response = Response<Self::Reply>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of a response.
    type Reply: ResponseBody + From<Body>;
}

impl<S, B> Services for S
where
    S: Service<http::Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: ResponseBody + From<Body>,
{
    type Reply = B;
}
