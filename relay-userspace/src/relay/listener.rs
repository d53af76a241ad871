//! The sockets mail comes in by. They are bound as root, before the relay drops its privileges.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use anyhow::anyhow;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listener;

/// A connection waits here until it is accepted; as postscreen, which also faces the world.
const BACKLOG: i32 = 1024;

/// One bound address of a configured listener.
#[derive(Debug)]
pub struct Bound {
    /// Index into the configuration's listeners.
    pub listener: usize,
    pub address: SocketAddr,
    pub socket: TcpListener,
}

/// Binds every address of every listener.
///
/// # Errors
/// One sentence for the first address that cannot be had: in use, not ours, no privilege.
pub fn bind_all(listeners: &[Listener]) -> anyhow::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        for &address in &listener.addresses {
            let socket = bind(address).map_err(|error| explain(&listener.name, address, &error))?;
            let address = socket.local_addr()?;
            bound.push(Bound { listener: index, address, socket });
        }
    }
    Ok(bound)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Each family has its own socket, so that [::]:25 and 0.0.0.0:25 stand side by side and a
        // v4 client is never seen as ::ffff:a.b.c.d.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn explain(name: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let what = format!("listener {name:?} cannot listen on {address}");
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{what}: the port is in use; `ss -ltnp 'sport = :{}'` shows by whom, stop that or \
             change listener.address",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => anyhow!(
            "{what}: this machine has no such address; `ip address` lists them, change \
             listener.address"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("{what}: ports below 1024 need root or CAP_NET_BIND_SERVICE; start it as root")
        }
        _ => anyhow!("{what}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ListenerTls, Offer};

    fn listener(address: &str) -> Listener {
        Listener {
            name: "mx".into(),
            addresses: vec![address.parse().unwrap()],
            tls: ListenerTls::Off,
            auth: Offer::Off,
            dnsbl: false,
            relay_for: Vec::new(),
            proxy_protocol: Vec::new(),
            xclient: Vec::new(),
            xforward: Vec::new(),
            open_relay: false,
        }
    }

    #[test]
    fn a_port_in_use_is_one_sentence() {
        let first = bind_all(&[listener("127.0.0.1:0")]).unwrap();
        let taken = first[0].address.to_string();
        let error = bind_all(&[listener(&taken)]).unwrap_err().to_string();
        assert!(error.contains(&taken) && error.contains("in use") && error.contains("ss -ltnp"));
    }

    #[test]
    fn both_families_stand_side_by_side() {
        let v4 = bind_all(&[listener("0.0.0.0:0")]).unwrap();
        let same_port = format!("[::]:{}", v4[0].address.port());
        bind_all(&[listener(&same_port)]).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_one_sentence() {
        let error = bind_all(&[listener("192.0.2.1:0")]).unwrap_err().to_string();
        assert!(error.contains("no such address"), "{error}");
    }
}
