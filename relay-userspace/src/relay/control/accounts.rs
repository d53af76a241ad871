//! The account verbs.

use axum::{Json, extract::State};

use super::{Answered, Relay};
use crate::{
    auth::AccountError,
    control::{
        api::{Account, AccountName, AccountPassword, Accounts, Code, Done, Problem, Time},
        extract::Body,
    },
};

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        let code = match &error {
            AccountError::Name(_) | AccountError::Password(_) => Code::Invalid,
            AccountError::Exists(_) => Code::Refused,
            AccountError::Unknown(_) => Code::NotFound,
            _ => Code::Storage,
        };
        Self::new(code, error.to_string())
    }
}

pub(super) async fn list(State(shared): Relay) -> Answered<Accounts> {
    let found = shared.accounts.list().await?;
    let account = |account: crate::auth::Account| Account {
        name: account.name,
        enabled: !account.disabled,
        created: Time(u64::try_from(account.created_s).unwrap_or(0)),
        last_used: None,
    };
    Ok(Json(Accounts { accounts: found.into_iter().map(account).collect() }))
}

pub(super) async fn add(
    State(shared): Relay,
    Body(request): Body<AccountPassword>,
) -> Answered<Done> {
    shared.accounts.add(&request.name, &request.password).await?;
    done("added", &request.name)
}

pub(super) async fn set_password(
    State(shared): Relay,
    Body(request): Body<AccountPassword>,
) -> Answered<Done> {
    shared.accounts.set_password(&request.name, &request.password).await?;
    done("given a new password", &request.name)
}

pub(super) async fn disable(
    State(shared): Relay,
    Body(request): Body<AccountName>,
) -> Answered<Done> {
    shared.accounts.set_disabled(&request.name, true).await?;
    done("disabled", &request.name)
}

pub(super) async fn enable(
    State(shared): Relay,
    Body(request): Body<AccountName>,
) -> Answered<Done> {
    shared.accounts.set_disabled(&request.name, false).await?;
    done("enabled", &request.name)
}

pub(super) async fn delete(
    State(shared): Relay,
    Body(request): Body<AccountName>,
) -> Answered<Done> {
    shared.accounts.delete(&request.name).await?;
    done("deleted", &request.name)
}

fn done(what: &str, account: &str) -> Answered<Done> {
    tracing::warn!(account, "account {what} by command");
    Ok(Json(Done {}))
}
