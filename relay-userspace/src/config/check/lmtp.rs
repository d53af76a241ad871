//! The socket by which programs of this machine hand in mail.

use toml::Spanned;

use super::Check;
use crate::config::{checked::Lmtp, file, parse};

impl Check<'_> {
    /// `Some(None)`: there is to be none.
    pub(super) fn lmtp(
        &mut self,
        file: &file::Lmtp,
        listeners: &[Spanned<file::Listener>],
    ) -> Option<Option<Lmtp>> {
        let default = std::mem::take(&mut self.default.lmtp);
        let socket = self.optional("lmtp.socket", &file.socket, parse::socket_path);
        let mode = self.text("lmtp.mode", &file.mode, &default.mode, parse::socket_mode);
        let group = self.optional("lmtp.group", &file.group, parse::not_empty);
        let users =
            self.texts("lmtp.relay_for_users", &file.relay_for_users, &None, parse::not_empty);
        let Some(socket) = socket? else {
            let users = file.relay_for_users.iter().flatten().next().map(Spanned::span);
            let group = file.group.as_ref().filter(|group| !group.get_ref().is_empty());
            self.place = users.or(group.map(Spanned::span));
            if self.place.is_some() {
                self.missing("lmtp.socket", "missing, and the rest is for it; write its path");
                self.place = None;
                return None;
            }
            return Some(None);
        };
        let names = listeners.iter().filter_map(|listener| listener.get_ref().name.as_ref());
        for name in names.filter(|name| name.get_ref() == Lmtp::NAME) {
            self.fail("listener.name", name, "that is what [lmtp] is called; take another name");
        }
        Some(Some(Lmtp { socket, mode: mode?, group: group?, relay_for_users: users? }))
    }
}
