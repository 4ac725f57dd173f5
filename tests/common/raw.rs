//! A client that speaks HTTP/2 by hand over a blocking socket, for what no proper client does: to stop reading.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use socket2::{Domain, Socket, Type};

use super::{
    PATIENCE,
    frames::{self, Unframer},
};

pub struct RawClient {
    socket: TcpStream,
}

impl RawClient {
    /// A transport with a receive buffer as small as the kernel allows, so that it is soon full.
    pub fn connect(addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&addr.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { socket: socket.into() };
        client.sends(&frames::handshake());
        client
    }

    /// Opens a call as stream 1 and reads until its response headers are here.
    pub fn joins(&mut self, room: &str, name: &str) {
        self.opens(&frames::chat_call(1, room, name));
    }

    /// Sends what opens a call and reads until its response headers are here.
    pub fn opens(&mut self, call: &[u8]) {
        self.sends(call);
        while self.reads_frame().0 != frames::HEADERS {}
    }

    pub fn sends(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Reads on until it has heard this many texts.
    pub fn receives(&mut self, texts: usize) -> Vec<String> {
        let (mut unframer, mut received) = (Unframer::default(), Vec::with_capacity(texts));
        while received.len() < texts {
            let (kind, payload) = self.reads_frame();
            if kind == frames::DATA {
                let text = |body: &[u8]| String::from_utf8(body[frames::text_in(body)].to_vec()).unwrap();
                unframer.take(&payload, |body| received.push(text(body)));
            }
        }
        received
    }

    /// The next frame's kind and payload; acknowledges SETTINGS.
    fn reads_frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).unwrap();
        let (kind, flags) = (head[3], head[4]);
        if kind == frames::SETTINGS && flags & frames::ACK == 0 {
            let ack = frames::frame(frames::SETTINGS, frames::ACK, 0, &[]);
            self.sends(&ack);
        }
        (kind, payload)
    }
}

/// A client in a process of its own, so that it can be killed: `cat` into a socket that bash has opened.
pub struct Mortal {
    process: Child,
}

impl Mortal {
    pub fn connect(addr: SocketAddr) -> Self {
        let script = format!("exec cat 1<>/dev/tcp/{}/{}", addr.ip(), addr.port());
        let process = Command::new("bash").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let mut mortal = Self { process };
        mortal.sends(&frames::handshake());
        mortal
    }

    pub fn sends(&mut self, bytes: &[u8]) {
        let pipe = self.process.stdin.as_mut().unwrap();
        pipe.write_all(bytes).unwrap();
        pipe.flush().unwrap();
    }

    /// SIGKILL.
    pub fn dies(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `chatroom chat` in a process of its own, which can be stopped and never goes on.
pub struct Sleeper {
    process: Child,
}

impl Sleeper {
    pub fn joins(addr: SocketAddr, room: &str, name: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
        command.args(["chat", "--addr", &addr.to_string(), "--room", room, "--name", name]);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        Self { process }
    }

    /// SIGSTOP.
    pub fn stops(&self) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-STOP", &pid]).status();
        assert!(sent.unwrap().success(), "no such process: {pid}");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
