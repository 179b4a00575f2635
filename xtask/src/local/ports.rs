//! Choosing the ports to listen on.

use std::io;
use std::net::TcpListener;

use super::LocalError;
use super::emulator::{Both, Emulator, HOST};

/// Ports that the user wants; where there is none, the last one is taken again, or any that is free.
pub(crate) type Ports = Both<Option<u16>>;

/// Settles the ports. Both are held until both are settled, so they differ.
pub(super) fn choose(wanted: Ports, last: Ports) -> Result<Both<u16>, LocalError> {
    let held = Both::try_build(|emulator| listen(emulator, *wanted.get(emulator), *last.get(emulator)))?;
    Both::try_build(|emulator| {
        let address = held.get(emulator).local_addr();
        address.map(|address| address.port()).map_err(|source| LocalError::Port { emulator, source })
    })
}

fn listen(emulator: Emulator, wanted: Option<u16>, last: Option<u16>) -> Result<TcpListener, LocalError> {
    if let Some(port) = wanted {
        return TcpListener::bind((HOST, port)).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => LocalError::PortInUse { emulator, port },
            _ => LocalError::Port { emulator, source },
        });
    }
    let again = last.and_then(|port| TcpListener::bind((HOST, port)).ok());
    again
        .map_or_else(|| TcpListener::bind((HOST, 0)), Ok)
        .map_err(|source| LocalError::Port { emulator, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Else a start would fail because of a program that the user has every right to run.
    #[test]
    fn does_not_insist_on_the_last_port() {
        let other_program = TcpListener::bind((HOST, 0)).unwrap();
        let last = other_program.local_addr().unwrap().port();
        let chosen = choose(Ports::default(), Both { ministack: Some(last), moto: None }).unwrap();
        assert_ne!(chosen.ministack, last);
    }

    #[test]
    fn says_which_flag_asks_for_a_port_in_use() {
        let other_program = TcpListener::bind((HOST, 0)).unwrap();
        let port = other_program.local_addr().unwrap().port();
        let error = choose(Both { ministack: None, moto: Some(port) }, Ports::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&port.to_string()) && text.contains("--port-ec2"), "{text}");
    }

    #[test]
    fn refuses_one_port_for_both() {
        let port = Some(choose(Ports::default(), Ports::default()).unwrap().moto);
        let error = choose(Both { ministack: port, moto: port }, Ports::default()).unwrap_err();
        assert!(matches!(error, LocalError::PortInUse { .. }), "{error}");
    }
}
