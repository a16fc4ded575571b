//! Handshakes that are none, or never end.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

use super::authority::Certified;
use super::certificates::Guarded;
use super::identities::plain;
use super::speaker::Speaker;
use crate::common::{DEADLINE, Server, wait_until};

/// A `ClientHello` that knows TLS 1.1 at most (RFC 4346 section 7.4.1.2).
pub fn hello_of_tls_1_1() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x14, 0, 0x2f, 1, 0]);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}

/// What `own` speaks to the server, in one version only.
pub fn config(
    guarded: &Guarded,
    own: &Certified,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(guarded.authority.pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let chain = vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    builder.with_client_auth_cert(chain, key).unwrap()
}

/// A connection on which nothing has been said.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// What comes back for these bytes; the connection has to end in order.
pub fn answer(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn tls_1_1_is_refused_and_1_2_and_1_3_are_not() {
    let guarded = Guarded::start("");
    let own = guarded.authority.certify("x");
    let alert = answer(guarded.server.port, &hello_of_tls_1_1());
    // A fatal alert: protocol_version, or handshake_failure (RFC 8446 section 6.2).
    assert!(
        matches!(alert[..], [21, _, _, 0, 2, 2, 40 | 70]),
        "{alert:?}"
    );
    for version in [&TLS12, &TLS13] {
        let mut speaker =
            Speaker::meet_with(guarded.server.port, config(&guarded, &own, version)).unwrap();
        assert_eq!(speaker.ask("HEAD", "/", "", b"").unwrap().status, 200);
    }
    // Whoever wants nothing but another protocol inside is told so.
    let mut other = config(&guarded, &own, &TLS13);
    other.alpn_protocols = vec![b"h2".to_vec()];
    assert!(Speaker::meet_with(guarded.server.port, other).is_err());
}

#[test]
fn no_session_is_resumed_and_no_early_data_taken() {
    let guarded = Guarded::start("");
    let own = guarded.authority.certify("x");
    for version in [&TLS12, &TLS13] {
        let mut config = config(&guarded, &own, version);
        config.enable_early_data = true;
        // The store of sessions goes with the configuration.
        let config = Arc::new(config);
        for _ in 0..3 {
            let mut speaker = Speaker::meet_by(guarded.server.port, Arc::clone(&config)).unwrap();
            assert!(!speaker.is_resumed());
            assert_eq!(speaker.ask("HEAD", "/", "", b"").unwrap().status, 200);
        }
    }
}

#[test]
fn plain_on_tls_and_tls_on_plain_end_in_order() {
    let guarded = Guarded::start("");
    let body = "x".repeat(100_000);
    for request in [
        "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!(
            "PUT /x/log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-99999/100000\r\n\
             Content-Length: 100000\r\n\r\n{body}"
        ),
    ] {
        let answer = plain(guarded.server.port, &request);
        assert!(
            answer.starts_with("HTTP/1.1 400 This port speaks TLS"),
            "{answer}"
        );
    }
    let nonsense = answer(
        guarded.server.port,
        b"\0\x01\x02 nonsense, and some more of it",
    );
    assert_eq!(nonsense[0], 21, "an alert: {nonsense:?}");
    let mut speaker = guarded.meet(&guarded.authority.certify("x"));
    assert_eq!(speaker.put("/x/log", b"x").unwrap().status, 201);

    let home = TempDir::new().unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let said = answer(server.port, &hello_of_tls_1_1());
    assert!(
        said.starts_with(b"HTTP/1.1 400 "),
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert!(Speaker::meet(server.port, &guarded.authority, None).is_err());
    let answer = plain(
        server.port,
        "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn handshakes_that_stall_hold_up_nobody_and_are_ended() {
    let guarded = Guarded::start("");
    let own = guarded.authority.certify("x");
    let mut stalled: Vec<TcpStream> = (0..200).map(|_| connect(guarded.server.port)).collect();
    for (number, stream) in stalled.iter_mut().enumerate() {
        // Nothing, a byte, half a record, a record's head that promises more.
        let begun: &[u8] = [
            &b""[..],
            &[22],
            &[22, 3, 1, 2, 0, 1, 0, 1],
            &[22, 3, 1, 0x40, 0],
        ][number % 4];
        stream.write_all(begun).unwrap();
    }
    for _ in 0..3 {
        let mut speaker = guarded.meet(&own);
        assert_eq!(speaker.ask("HEAD", "/", "", b"").unwrap().status, 200);
    }
    for stream in &mut stalled {
        let mut rest = Vec::new();
        // It ends, by an alert, a FIN or a reset, long before the test's deadline.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}

#[test]
fn a_server_ends_in_time_though_handshakes_stall() {
    let mut guarded = Guarded::start("");
    let _stalled: Vec<TcpStream> = (0..10).map(|_| connect(guarded.server.port)).collect();
    assert!(guarded.server.terminate().success());
}

#[test]
fn failed_handshakes_are_told_of_once_and_not_each() {
    let guarded = Guarded::start("");
    for _ in 0..20 {
        let _ = answer(guarded.server.port, b"\0nonsense");
    }
    wait_until("it is told", || {
        guarded.server.output().contains("TLS handshakes failed")
    });
    let output = guarded.server.output();
    let lines = output
        .lines()
        .filter(|line| line.contains("TLS handshakes failed"));
    assert_eq!(lines.count(), 1, "{output}");
}
