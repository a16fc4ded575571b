//! A client of the tests' own: TLS with whatever certificate, HTTP with whatever words.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::authority::{Authority, Certified};
use crate::common::DEADLINE;

/// One connection.
pub struct Speaker(StreamOwned<ClientConnection, TcpStream>);

/// The head of an answer, and its body.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub text: String,
}

impl Speaker {
    /// Shakes hands with the server on `port`, which has to be `localhost` by a certificate of
    /// `authority`.
    pub fn meet(port: u16, authority: &Authority, own: Option<&Certified>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.pem().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.cert.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                let chain = chain.collect::<Result<_, _>>().unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Self::meet_with(port, config)
    }

    pub fn meet_with(port: u16, config: ClientConfig) -> io::Result<Self> {
        Self::meet_by(port, Arc::new(config))
    }

    /// Whether the handshake went on from an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    pub fn meet_by(port: u16, config: Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    /// Sends a request of which `head` is all but Host, and reads the answer.
    pub fn ask(&mut self, method: &str, target: &str, head: &str, body: &[u8]) -> io::Result<Said> {
        let line = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n");
        self.0.write_all(&[line.as_bytes(), body].concat())?;
        self.0.flush()?;
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        let mut text = String::from_utf8(text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if let Some(length) = length
            && method != "HEAD"
        {
            let mut body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut body)?;
            text += &String::from_utf8_lossy(&body);
        }
        Ok(Said { status, text })
    }

    /// Appends `bytes` to what is empty.
    pub fn put(&mut self, path: &str, bytes: &[u8]) -> io::Result<Said> {
        let length = bytes.len();
        let last = length - 1;
        let head =
            format!("Content-Range: bytes 0-{last}/{length}\r\nContent-Length: {length}\r\n");
        self.ask("PUT", path, &head, bytes)
    }
}
