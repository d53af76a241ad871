//! Request bodies and queries as typed values; what cannot be read answers as a [`Problem`].

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::api::{Code, Problem};

/// A JSON body. Its size is bounded by the route's `DefaultBodyLimit`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(too_large)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(Code::Invalid, format!("the request cannot be read: {error}"))
        })?;
        Ok(Self(value))
    }
}

/// The query of the request's path.
#[derive(Debug)]
pub struct Ask<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Ask<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(Problem::new(Code::Invalid, error.body_text())),
        }
    }
}

fn too_large(error: BytesRejection) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(Code::TooLarge, "the request is larger than this socket takes")
            .remedy("split it")
    } else {
        Problem::new(Code::Invalid, error.body_text())
    }
}
