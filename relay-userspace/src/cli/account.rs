//! `account`: who may submit mail, asked of the relay.

use super::args::AccountCommand;
use super::output::table;
use super::password;
use super::session::{Exit, Failure, Session};
use crate::control::api::*;

pub(super) async fn execute(
    command: AccountCommand,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let (path, name, done) = match command {
        AccountCommand::List => return list(on).await,
        AccountCommand::Add { name } => return set("/v1/accounts", name, "added", on).await,
        AccountCommand::Passwd { name } => {
            return set("/v1/accounts/password", name, "password set", on).await;
        }
        AccountCommand::Disable { name } => ("/v1/accounts/disable", name, "disabled"),
        AccountCommand::Enable { name } => ("/v1/accounts/enable", name, "enabled"),
        AccountCommand::Delete { name } => ("/v1/accounts/delete", name, "deleted"),
    };
    let request = AccountName { name };
    let answer: Done = on.relay.post(path, &request).await?;
    on.show(&answer, |_, out| writeln!(out, "account {}: {done}", request.name))?;
    Ok(Exit::Done)
}

async fn set(path: &str, name: String, done: &str, on: &mut Session<'_>) -> Result<Exit, Failure> {
    let password = password::read(on)?;
    let request = AccountPassword { name, password };
    let answer: Done = on.relay.post(path, &request).await?;
    on.show(&answer, |_, out| writeln!(out, "account {}: {done}", request.name))?;
    Ok(Exit::Done)
}

async fn list(on: &mut Session<'_>) -> Result<Exit, Failure> {
    let accounts: Accounts = on.relay.get("/v1/accounts").await?;
    on.show(&accounts, |accounts, out| {
        if accounts.accounts.is_empty() {
            return writeln!(out, "there are no accounts");
        }
        let rows = accounts.accounts.iter().map(|account| {
            vec![
                account.name.clone(),
                if account.enabled { "enabled" } else { "disabled" }.to_owned(),
                account.created.to_string(),
                account.last_used.map_or_else(|| "never".to_owned(), |at| at.to_string()),
            ]
        });
        table(out, Some(&["NAME", "STATE", "CREATED", "LAST USED"]), rows)
    })?;
    Ok(Exit::Done)
}
