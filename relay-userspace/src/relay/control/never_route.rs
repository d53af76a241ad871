//! The never-route verbs.

use axum::{Json, extract::State};
use ipnet::IpNet;
use relay_core::prefix;

use super::{Answered, Relay};
use crate::{
    control::{
        api::{
            Affected, Code, NeverRouteRequest, NeverRoutes, PREFIXES_MAX, Problem, TEXT_BYTES_MAX,
        },
        extract::Body,
    },
    relay::never_route::NeverRouteError,
};

impl From<NeverRouteError> for Problem {
    fn from(error: NeverRouteError) -> Self {
        let code = match &error {
            NeverRouteError::Full => Code::Refused,
            NeverRouteError::Disk(_) => Code::Storage,
        };
        Self::new(code, error.to_string())
    }
}

/// All of the request's prefixes, or why not: nothing is half applied.
fn prefixes_of(request: &NeverRouteRequest) -> Result<Vec<IpNet>, Problem> {
    if request.prefixes.len() > PREFIXES_MAX {
        return Err(Problem::new(Code::TooLarge, format!("more than {PREFIXES_MAX} prefixes")));
    }
    if request.comment.len() > TEXT_BYTES_MAX {
        let message = format!("the comment is longer than {TEXT_BYTES_MAX} bytes");
        return Err(Problem::new(Code::TooLarge, message));
    }
    let parse = |text: &String| {
        prefix::parse(text).map_err(|error| Problem::new(Code::Invalid, error.to_string()))
    };
    request.prefixes.iter().map(parse).collect()
}

pub(super) async fn list(State(shared): Relay) -> Answered<NeverRoutes> {
    Ok(Json(NeverRoutes { rules: shared.never_route.rows() }))
}

pub(super) async fn add(
    State(shared): Relay,
    Body(request): Body<NeverRouteRequest>,
) -> Answered<Affected> {
    let prefixes = prefixes_of(&request)?;
    // A small write, but a synced one: not for the runtime's own threads.
    let count =
        tokio::task::block_in_place(|| shared.never_route.add(&prefixes, &request.comment))?;
    tracing::warn!(prefixes = ?request.prefixes, "never-route: added by command");
    Ok(Json(Affected { count, missing: Vec::new() }))
}

pub(super) async fn remove(
    State(shared): Relay,
    Body(request): Body<NeverRouteRequest>,
) -> Answered<Affected> {
    let prefixes = prefixes_of(&request)?;
    if let Some(fixed) = prefixes.iter().find(|&&prefix| shared.never_route.is_configured(prefix)) {
        let message = format!("{fixed} stands in the configuration");
        return Err(Problem::new(Code::Refused, message).remedy("remove it from relay.never_route"));
    }
    let (count, missing) = tokio::task::block_in_place(|| shared.never_route.remove(&prefixes))?;
    tracing::warn!(prefixes = ?request.prefixes, "never-route: removed by command");
    Ok(Json(Affected { count, missing: missing.iter().map(ToString::to_string).collect() }))
}
