//! The never-route list: sources that may not relay, whatever else holds (R3). Rows come from the
//! configuration and from `postern never-route`; the latter are kept on disk.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use ipnet::IpNet;
use relay_core::prefix::PrefixSet;
use rusqlite::Connection;

use crate::control::api;
use crate::database::open_alone;

/// Rows that `postern never-route` may make.
const ROWS_MAX: i64 = 100_000;

/// The list in memory, for the session, and on disk.
#[derive(Debug)]
pub struct NeverRoute {
    configured: Vec<IpNet>,
    rows: RwLock<PrefixSet<Row>>,
    disk: Mutex<Connection>,
}

#[derive(Debug, Clone)]
struct Row {
    comment: String,
    from_config: bool,
}

/// Why the list was not changed.
#[derive(Debug, thiserror::Error)]
pub enum NeverRouteError {
    #[error("the never-route list cannot be written: {0}")]
    Disk(#[from] rusqlite::Error),
    #[error("the never-route list is full: it holds {ROWS_MAX} rows")]
    Full,
}

impl NeverRoute {
    /// Opens the list in `file`, with the rows of the configuration in front.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a list.
    pub fn open(file: &Path, configured: &[IpNet]) -> Result<Self, NeverRouteError> {
        let disk = open_alone(file)?;
        disk.execute(
            "CREATE TABLE IF NOT EXISTS never_route (prefix TEXT PRIMARY KEY, comment TEXT NOT NULL)",
            (),
        )?;
        let list = Self {
            configured: configured.to_vec(),
            rows: RwLock::new(PrefixSet::new()),
            disk: Mutex::new(disk),
        };
        list.reload(&list.disk())?;
        Ok(list)
    }

    /// The longest row that holds the source.
    pub fn lookup(&self, source: IpAddr) -> Option<IpNet> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.lookup(source).map(|(prefix, _)| prefix)
    }

    pub fn rows(&self) -> Vec<api::NeverRoute> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let row = |(prefix, row): (IpNet, &Row)| api::NeverRoute {
            prefix,
            comment: row.comment.clone(),
            source: if row.from_config { "config" } else { "cli" }.to_owned(),
        };
        rows.iter().map(row).collect()
    }

    /// Adds rows, all or none; returns how many were not there before.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn add(&self, prefixes: &[IpNet], comment: &str) -> Result<u64, NeverRouteError> {
        let mut disk = self.disk();
        let change = disk.transaction()?;
        let mut added = 0;
        for prefix in prefixes {
            added += change.execute(
                "INSERT INTO never_route VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                (prefix.to_string(), comment),
            )?;
        }
        let rows: i64 =
            change.query_row("SELECT count(*) FROM never_route", (), |row| row.get(0))?;
        if rows > ROWS_MAX {
            return Err(NeverRouteError::Full);
        }
        change.commit()?;
        self.reload(&disk)?;
        Ok(added as u64)
    }

    /// Removes rows, all or none; returns how many there were, and those that there were not.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn remove(&self, prefixes: &[IpNet]) -> Result<(u64, Vec<IpNet>), NeverRouteError> {
        let mut disk = self.disk();
        let change = disk.transaction()?;
        let mut missing = Vec::new();
        for prefix in prefixes {
            let removed = change
                .execute("DELETE FROM never_route WHERE prefix = ?1", [prefix.to_string()])?;
            if removed == 0 {
                missing.push(*prefix);
            }
        }
        change.commit()?;
        self.reload(&disk)?;
        Ok(((prefixes.len() - missing.len()) as u64, missing))
    }

    /// Whether the configuration itself has this row.
    pub fn is_configured(&self, prefix: IpNet) -> bool {
        self.configured.contains(&prefix)
    }

    fn reload(&self, disk: &Connection) -> Result<(), rusqlite::Error> {
        let mut rows = PrefixSet::new();
        let mut query = disk.prepare("SELECT prefix, comment FROM never_route")?;
        let mut found = query.query(())?;
        while let Some(row) = found.next()? {
            let (prefix, comment): (String, String) = (row.get(0)?, row.get(1)?);
            match prefix.parse() {
                Ok(prefix) => drop(rows.insert(prefix, Row { comment, from_config: false })),
                Err(error) => {
                    tracing::error!(prefix, %error, "damaged row of the never-route list")
                }
            }
        }
        for &prefix in &self.configured {
            rows.insert(prefix, Row { comment: String::new(), from_config: true });
        }
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
        Ok(())
    }

    /// A transaction that a panic interrupts is rolled back by SQLite.
    fn disk(&self) -> MutexGuard<'_, Connection> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn rows_survive_and_those_of_the_configuration_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("never-route.db");
        let configured = nets(&["10.9.0.0/16"]);
        let list = NeverRoute::open(&file, &configured).unwrap();
        assert_eq!(list.add(&nets(&["192.0.2.0/24", "2001:db8::/32"]), "spammers").unwrap(), 2);
        assert_eq!(list.add(&nets(&["192.0.2.0/24"]), "again").unwrap(), 0);
        assert_eq!(list.lookup("192.0.2.9".parse().unwrap()), Some(nets(&["192.0.2.0/24"])[0]));
        drop(list);

        let list = NeverRoute::open(&file, &configured).unwrap();
        assert_eq!(list.rows().len(), 3);
        let (removed, missing) = list.remove(&nets(&["192.0.2.0/24", "198.51.100.0/24"])).unwrap();
        assert_eq!((removed, missing), (1, nets(&["198.51.100.0/24"])));
        assert_eq!(list.lookup("192.0.2.9".parse().unwrap()), None);
        assert!(list.lookup("10.9.1.1".parse().unwrap()).is_some());
    }
}
