//! Listening sockets, and the descriptors they may use up.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Connections that may wait to be accepted: reconnect storms lose SYNs with the usual 128.
const BACKLOG: i32 = 4096;

/// Bytes the kernel may hold for one transport's peer: a stuck peer else holds about 3 MB.
const SEND_BUFFER: usize = 256 * 1024;

/// How long the kernel keeps sending without an acknowledgement before it gives the peer up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The address cannot be listened on.
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
    /// # Errors
    /// [`ListenError`] with the address and the cause.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |cause| ListenError { address, cause };
        Self::open(address).map_err(failed)
    }

    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // So that a restart need not wait for the last connections of the one before to time out.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The bound address: the real port where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the socket into the current runtime.
    ///
    /// # Errors
    /// When the runtime has no I/O driver.
    pub fn into_async(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket)
    }
}

/// Prepares an accepted socket: small frames leave at once, the kernel's share is bounded, and a peer that does not read is
/// given up.
///
/// # Errors
/// When the peer is gone already.
pub fn prepare(socket: &tokio::net::TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Raises the soft limit of open files to the hard one, and returns it.
#[must_use]
pub fn open_file_limit() -> u64 {
    let fallback = || rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|_| fallback())
}
