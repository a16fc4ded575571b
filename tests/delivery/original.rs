//! A server that sends and expects none of our headers, as the original of 2013 does: our client
//! delivers to it, and says that it is unverified.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use crate::common::{Client, append, deliver, rows, wait_until};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves HEAD and PUT as the original does; returns its port and what it holds.
fn original_server() -> (u16, Files) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let files = Files::default();
    let served = Arc::clone(&files);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = Arc::clone(&served);
            thread::spawn(move || while serve_one(&stream, &files).is_some() {});
        }
    });
    (port, files)
}

fn serve_one(stream: &TcpStream, files: &Files) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let value = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    for ours in ["if-match", "if-none-match", "repr-digest"] {
        assert!(
            value(ours).is_none(),
            "{ours} goes to an unverified server: {lines:?}"
        );
    }
    let mut words = lines[0].split(' ');
    let (method, path) = (words.next()?, words.next()?.to_owned());
    let answer = if method == "HEAD" {
        match files.lock().unwrap().get(&path) {
            Some(bytes) => format!("200 OK\r\nContent-Length: {}", bytes.len()),
            None => "404 Not Found\r\nContent-Length: 0".to_owned(),
        }
    } else {
        let length = value("content-length")?.parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let start = match value("content-range") {
            Some(range) => range
                .strip_prefix("bytes ")?
                .split('-')
                .next()?
                .parse()
                .ok()?,
            None => 0,
        };
        let mut files = files.lock().unwrap();
        let file = files.entry(path).or_default();
        if start == file.len() {
            file.extend_from_slice(&body);
            "200 OK\r\nContent-Length: 0".to_owned()
        } else {
            "416 Range Not Satisfiable\r\nContent-Length: 0".to_owned()
        }
    };
    let mut stream = stream;
    stream
        .write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes())
        .ok()
}

#[test]
fn our_client_delivers_to_an_original_server() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("a"), "one\ntwo\n").unwrap();
    fs::write(logs.join("b"), "b\n").unwrap();
    let (port, files) = original_server();
    // It has the beginning of one file already.
    files
        .lock()
        .unwrap()
        .insert("/logs/a".to_owned(), b"one\n".to_vec());
    let url = format!("http://127.0.0.1:{port}/");
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]);
    let mut client = Client::start(&home.path().join("client"), &config);
    let holds = |path: &str, bytes: &[u8]| {
        files
            .lock()
            .unwrap()
            .get(path)
            .is_some_and(|held| held == bytes)
    };
    wait_until("both arrive", || {
        holds("/logs/a", b"one\ntwo\n") && holds("/logs/b", b"b\n")
    });
    append(&logs.join("b"), "more\n");
    wait_until("an append arrives", || holds("/logs/b", b"b\nmore\n"));
    assert!(client.terminate().success());
    let progress = rows(&client.datadir, "progress");
    assert_eq!(progress.len(), 2, "{progress:?}");
    assert!(
        progress.iter().all(|row| row["verified"] == false),
        "{progress:?}"
    );

    let synced = client.sync(&[]);
    assert_eq!(synced.status.code(), Some(3), "unverified is not proven");
    let accepted = client.sync(&["--accept-unverified"]);
    assert_eq!(accepted.status.code(), Some(0));
}
