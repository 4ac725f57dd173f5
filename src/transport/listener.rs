//! Listening sockets, the options of accepted ones, and the limit of open files.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Connections that may wait to be accepted. Reconnect storms lose SYNs with the usual 128.
const BACKLOG: i32 = 4096;

/// Bytes of a socket's send buffer in the kernel. By default a stuck peer occupies about 3 MB.
const SEND_BUFFER: usize = 256 * 1024;

/// Time without a TCP acknowledgement after which the kernel closes a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// An address on which the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", reason(.cause))]
pub struct ListenError {
    address: SocketAddr,
    cause: io::Error,
}

fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "address in use (set another port)".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied (ports below 1024 need it)".to_owned(),
        _ => cause.to_string(),
    }
}

/// A bound, listening TCP socket. Connections queue in the kernel until they are accepted.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds and listens.
    ///
    /// # Errors
    /// [`ListenError`] with the address and the cause.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |cause| ListenError { address, cause };
        Self::open(address).map_err(failed)
    }

    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart does not wait for the connections of the previous process to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The bound address, with the real port if 0 was requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// When the runtime has no I/O driver.
    pub fn into_async(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket)
    }
}

/// Sets the options of an accepted socket: no Nagle delay, a bounded send buffer, and a timeout for unacknowledged data.
///
/// # Errors
/// When the peer is gone already.
pub fn configure_socket(socket: &tokio::net::TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Raises the soft limit of open files to the hard limit, and returns it.
#[must_use]
pub fn raise_open_file_limit() -> u64 {
    let fallback = || rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|_| fallback())
}
