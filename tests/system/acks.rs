//! A proxy between client and server that writes down every acknowledgement before the client
//! gets it: what stands here, the server has promised.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// What the server promised about one path.
#[derive(Clone, PartialEq, Debug)]
pub struct Promise {
    /// `Shaftlog-Length` of an answer with 2xx to a PUT.
    pub length: u64,
    /// Its `ETag`: `"blake3:<64 hex digits>"`.
    pub etag: String,
}

/// The proxy; it ends with the test's process.
pub struct Acks {
    /// Where clients connect to.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    server: u16,
    withhold: bool,
    promises: BTreeMap<String, Promise>,
}

impl Acks {
    /// Passes everything on to the server at `server`.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(Mutex::new(State {
            server,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || connection(&client, &state));
            }
        });
        Self { port, state }
    }

    /// Where a client delivers to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// From now on no answer reaches the client; requests still reach the server.
    pub fn withhold(&self) {
        self.lock().withhold = true;
    }

    /// Answers pass again.
    pub fn resume(&self) {
        self.lock().withhold = false;
    }

    /// Everything promised so far.
    pub fn promises(&self) -> BTreeMap<String, Promise> {
        self.lock().promises.clone()
    }

    /// Bytes promised so far.
    pub fn bytes(&self) -> u64 {
        self.lock().promises.values().map(|p| p.length).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }
}

/// Requests whose answers are still to come, oldest first: method and path.
type Asked = Mutex<VecDeque<(String, String)>>;

fn connection(client: &TcpStream, state: &Mutex<State>) {
    let port = state.lock().expect("no panic").server;
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let asked = Asked::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = requests(client, &server, &asked);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = answers(&server, client, &asked, state);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn requests(from: &TcpStream, mut to: &TcpStream, asked: &Asked) -> io::Result<()> {
    let mut from = BufReader::new(from);
    while let Some(head) = Head::read(&mut from)? {
        let first = head.first();
        let [method, path, _] = first.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let request = (method.to_owned(), path.to_owned());
        asked.lock().expect("no panic").push_back(request);
        to.write_all(&head.bytes)?;
        let length = head.value("content-length").and_then(|v| v.parse().ok());
        copy(&mut from, to, length.unwrap_or(0))?;
    }
    Ok(())
}

fn answers(
    from: &TcpStream,
    mut to: &TcpStream,
    asked: &Asked,
    state: &Mutex<State>,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    while let Some(head) = Head::read(&mut from)? {
        let status = head.first().split(' ').nth(1).unwrap_or("").to_owned();
        if status.starts_with('1') {
            to.write_all(&head.bytes)?;
            continue;
        }
        let request = asked.lock().expect("no panic").pop_front();
        let (method, path) = request.ok_or(io::ErrorKind::InvalidData)?;
        {
            let mut state = state.lock().expect("no panic");
            if state.withhold {
                return Ok(());
            }
            if method == "PUT" && status.starts_with('2') {
                state.note(&path, &head);
            }
        }
        to.write_all(&head.bytes)?;
        let length = head.value("content-length").and_then(|v| v.parse().ok());
        let bodiless = method == "HEAD" || status == "204" || status == "304";
        copy(
            &mut from,
            to,
            if bodiless { 0 } else { length.unwrap_or(0) },
        )?;
    }
    Ok(())
}

impl State {
    fn note(&mut self, path: &str, head: &Head) {
        let length = head.value("shaftlog-length").and_then(|v| v.parse().ok());
        let (Some(length), Some(etag)) = (length, head.value("etag")) else {
            panic!(
                "an acknowledgement without length and hash: {}",
                head.text()
            );
        };
        let promise = Promise { length, etag };
        let known = self.promises.get(path);
        if known.is_none_or(|known| known.length < promise.length) {
            self.promises.insert(path.to_owned(), promise);
        }
    }
}

/// The head of a request or an answer, its empty line included.
struct Head {
    bytes: Vec<u8>,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(Self { bytes }))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn first(&self) -> String {
        self.text().lines().next().unwrap_or("").to_owned()
    }

    fn value(&self, name: &str) -> Option<String> {
        self.text().lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }
}

/// Passes `length` bytes on, as they come.
fn copy(from: &mut impl BufRead, mut to: &TcpStream, length: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(length), &mut to)?;
    if copied == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// What a HEAD says a file's durable length is; none without a 200.
pub fn head_length(port: u16, path: &str) -> Option<u64> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let head = Head::read(&mut BufReader::new(&stream)).ok()??;
    let found = head.first().split(' ').nth(1) == Some("200");
    let length = head.value("content-length").filter(|_| found)?;
    length.parse().ok()
}

#[test]
fn promises_are_noted_before_they_are_passed_on_and_withheld_on_demand() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let acks = Acks::start(server.local_addr().expect("bound").port());
    let put = |path: &str| {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, acks.port)).expect("listens");
        let request = format!("PUT {path} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
        client.write_all(request.as_bytes()).expect("taken");
        let (mut there, _) = server.accept().expect("passed on");
        let mut got = vec![0; request.len()];
        there.read_exact(&mut got).expect("passed on");
        assert_eq!(got, request.as_bytes());
        let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\
                      shaftlog-length: 3\r\netag: \"blake3:00\"\r\n\r\n";
        there.write_all(answer.as_bytes()).expect("taken");
        drop(there);
        let mut back = String::new();
        let _ = client.read_to_string(&mut back);
        (answer.to_owned(), back)
    };
    let (sent, got) = put("/a");
    assert_eq!(got, sent);
    assert_eq!(acks.promises()["/a"].length, 3);
    acks.withhold();
    let (_, got) = put("/b");
    assert!(!got.contains("204"), "{got}");
    assert!(!acks.promises().contains_key("/b"));
    acks.resume();
    put("/b");
    assert_eq!(acks.bytes(), 6);
}
