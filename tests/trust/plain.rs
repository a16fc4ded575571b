//! Plain HTTP that leaves the machine: warned of once, by whoever speaks it.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::{
    Client, Daemon, Server, append, deliver, free_port, program, tree, wait_until, yaml,
};

/// The warnings of plain HTTP in what a daemon has said.
fn warnings(output: &str) -> Vec<String> {
    let is_one = |line: &&str| line.contains("WARN") && line.to_lowercase().contains("plain http");
    output.lines().filter(is_one).map(str::to_owned).collect()
}

/// A command that runs a program in a network of its own, in which nothing leaves the machine though
/// it has an address that others could reach.
const NETWORK: [&str; 5] = ["unshare", "--map-root-user", "--net", "sh", "-ec"];

#[test]
#[ignore = "needs unshare and ip"]
fn plain_http_that_leaves_loopback_is_warned_of_once_on_each_side() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "one\n").unwrap();
    let (datadir, config) = (home.path().join("server"), home.path().join("server.yaml"));
    let port = free_port();
    let text = format!(
        "datadir: {}\nlisten_port: {port}\nbind_address: 0.0.0.0\n",
        yaml(&datadir)
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(NETWORK[0]);
    command
        .args(&NETWORK[1..])
        .arg("ip link set lo up; ip address add 192.0.2.1/32 dev lo; exec \"$@\"")
        .arg("sh")
        .arg(program())
        .args(["server", "--stdout", "--config"])
        .arg(&config);
    let mut server = Daemon::spawn(command, &home.path().join("server.out"));
    wait_until("it listens", || server.output().contains("listening on"));

    // Of three ways to it, one leaves loopback.
    let urls = ["192.0.2.1", "127.0.0.1", "localhost"];
    let urls = urls.map(|host| format!("http://{host}:{port}/by-{host}/"));
    let urls = urls.each_ref().map(String::as_str);
    let settings = deliver(&[("logs", &logs.join("*"))], &urls);
    let mut client = Client::configure(&home.path().join("client"), &settings);
    client.wrapper = [
        "nsenter",
        "--target",
        &server.pid().to_string(),
        "--user",
        "--net",
        "--preserve-credentials",
    ]
    .map(str::to_owned)
    .into();
    client.restart();
    let connected = |client: &mut Client, url: &str| {
        let output = client.process().output();
        output.contains(&format!("{url}: connected"))
    };
    wait_until("it is connected by each", || {
        urls.iter().all(|url| connected(&mut client, url))
    });
    // What goes on says nothing of it again.
    for daemon in [&mut server, client.process()] {
        daemon.signal(Signal::HUP);
    }
    append(&logs.join("log"), "two\n");
    wait_until("the lines arrive", || {
        tree(&datadir)
            .values()
            .filter(|(length, _)| *length == 8)
            .count()
            == urls.len()
    });
    assert!(client.terminate().success());
    assert!(server.terminate().success());
    let told = warnings(&server.output());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("0.0.0.0 is reached over plain HTTP"),
        "{told:?}"
    );
    let said = fs::read_to_string(home.path().join("client.out")).unwrap();
    let told = warnings(&said);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(&format!("{}: plain HTTP", urls[0])),
        "{told:?}"
    );
}

#[test]
fn plain_http_on_loopback_is_no_reason_to_warn() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "one\n").unwrap();
    let mut server = Server::start(&home.path().join("server"), "");
    let urls = ["127.0.0.1", "localhost"];
    let urls = urls.map(|host| format!("http://{host}:{}/by-{host}/", server.port));
    let urls = urls.each_ref().map(String::as_str);
    let settings = deliver(&[("logs", &logs.join("*"))], &urls);
    let mut client = Client::start(&home.path().join("client"), &settings);
    wait_until("the line arrives", || {
        tree(&server.datadir).len() == urls.len()
    });
    assert!(client.terminate().success());
    assert!(server.terminate().success());
    let said = fs::read_to_string(home.path().join("client.out")).unwrap();
    for output in [server.output(), said] {
        assert_eq!(warnings(&output), [""; 0], "{output}");
    }
}
