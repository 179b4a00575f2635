//! Which process made a call: the one that holds the other end of its connection.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Pid;

/// The process whose socket has this address. Linux alone tells, in `/proc`.
pub(crate) fn of(peer: SocketAddr) -> Option<Pid> {
    // The kernel's table is read piece by piece, and a row can be missed that others move about.
    (0..3).find_map(|_| look(peer))
}

fn look(peer: SocketAddr) -> Option<Pid> {
    let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = inode(&sockets, peer)?;
    let link = format!("socket:[{inode}]");
    let mut numbers = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        holds(&entry.path().join("fd"), &link).then_some(number)
    });
    numbers.find_map(Pid::from_raw)
}

fn holds(files: &Path, link: &str) -> bool {
    // A process that has just ended, or belongs to somebody else, is not the one.
    let Ok(files) = fs::read_dir(files) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link))
}

/// The number of the socket with this local address, in the table of `/proc/net/tcp` (source: `proc_net_tcp(5)`).
fn inode(sockets: &str, local: SocketAddr) -> Option<&str> {
    let SocketAddr::V4(local) = local else { return None };
    // The address is written as the number that its bytes make in this machine's order.
    let address = u32::from_ne_bytes(local.ip().octets());
    let wanted = format!("{address:08X}:{:04X}", local.port());
    sockets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // What had the address before and still lingers belongs to nobody any more, which is inode 0.
        let inode = fields.get(9).copied().filter(|inode| *inode != "0")?;
        (fields.get(1) == Some(&wanted.as_str())).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A kill of the wrong process would prove nothing, and might end the emulator.
    #[test]
    fn a_connection_leads_to_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(of(stream.local_addr().unwrap()), Some(rustix::process::getpid()));
        assert_eq!(of("127.0.0.1:1".parse().unwrap()), None);
    }
}
