//! The system user and group `postern`: the relay runs as this user, and members of the group may
//! use the control sockets.

use anyhow::Result;

use super::Setup;
use crate::privilege::Privilege;
use crate::workspace::{find_program, output_of, run};

const NAME: &str = "postern";

pub(super) fn provide(setup: &mut Setup) -> Result<()> {
    let (user, group) = (exists("passwd"), exists("group"));
    if user && group {
        return Ok(());
    }
    let useradd = find_program("useradd");
    if setup.check || setup.privilege == Privilege::None || useradd.is_none() {
        setup.missing.push(format!(
            "the system user and group {NAME}, which the relay runs as; as root: {}",
            commands(user, group).join(" && ")
        ));
        return Ok(());
    }
    for line in commands(user, group) {
        setup.act(&line);
        let mut words = line.split(' ');
        let program = words.next().and_then(find_program).unwrap_or_default();
        run(setup.privilege.command(program, &[], "making the account")?.args(words))?;
    }
    Ok(())
}

fn exists(database: &str) -> bool {
    output_of(std::process::Command::new("getent").args([database, NAME])).is_some()
}

/// What makes the account, given which half of it is there.
fn commands(user: bool, group: bool) -> Vec<String> {
    let mut commands = Vec::new();
    if !group {
        commands.push(format!("groupadd --system {NAME}"));
    }
    if !user {
        commands.push(format!(
            "useradd --system --gid {NAME} --no-create-home --home-dir /var/lib/{NAME} \
             --shell /usr/sbin/nologin {NAME}"
        ));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_missing_half_is_made() {
        assert_eq!(commands(true, true), Vec::<String>::new());
        assert_eq!(commands(true, false), ["groupadd --system postern"]);
        assert!(commands(false, true)[0].starts_with("useradd --system --gid postern "));
        assert_eq!(commands(false, false).len(), 2);
    }
}
