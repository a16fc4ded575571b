//! Datadirs as the original leaves them in mid-delivery: files and links, but no database. The
//! daemons refuse and name the command that makes one; after it nothing is sent twice.

use std::fs;

use tempfile::TempDir;

use super::faults::{Fault, Proxy};
use crate::common::{Client, Server, append, deliver, run, said, wait_for, wait_until};

#[test]
fn both_daemons_go_on_where_the_original_stopped() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let whole = "a line of the original's time\n".repeat(10_000);
    for name in ["done", "half", "new"] {
        fs::write(logs.join(name), &whole).unwrap();
    }

    // The server has one file whole, one to the middle, one not at all; and its left-overs.
    let server_dir = home.path().join("server");
    fs::create_dir_all(server_dir.join("logs")).unwrap();
    fs::write(server_dir.join("logs/done"), &whole).unwrap();
    fs::write(server_dir.join("logs/half"), &whole[..100_000]).unwrap();
    let config = home.path().join("server.yaml");
    let text = format!(
        "datadir: {}\nlogfile: {}/log\n",
        server_dir.display(),
        home.path().display()
    );
    fs::write(&config, text + "listen_port: 1\nbind_address: 127.0.0.1\n").unwrap();
    let config = config.to_str().unwrap();
    let refused = run(["server", "-f", config]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(
        said(&refused).contains("shaftlog db rebuild"),
        "{}",
        said(&refused)
    );
    let rebuilt = run(["db", "rebuild", "-f", config]);
    assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    let mut server = Server::start(&server_dir, "");
    let proxy = Proxy::start(server.port, Fault::None);

    // The client holds links to all three.
    let client_dir = home.path().join("client");
    fs::create_dir_all(client_dir.join("logs")).unwrap();
    for name in ["done", "half", "new"] {
        fs::hard_link(logs.join(name), client_dir.join("logs").join(name)).unwrap();
    }
    fs::write(
        client_dir.join(".machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
    fs::write(client_dir.join(".tmp.1234"), "").unwrap();
    let extra = deliver(&[("logs", &logs.join("*"))], &[&proxy.url()]);
    let mut client = Client::start(&client_dir, &extra);
    let ended = wait_for("the client refuses", || client.process().ended());
    let output = client.process().output();
    assert_eq!(ended.code(), Some(3), "{output}");
    assert!(output.contains("shaftlog db rebuild"), "{output}");
    let rebuilt = run(["db", "rebuild", "-f", client.config().to_str().unwrap()]);
    assert!(rebuilt.status.success(), "{}", said(&rebuilt));

    client.restart();
    for name in ["done", "half", "new"] {
        let path = format!("logs/{name}");
        wait_until(&format!("{path} is whole"), || {
            server.holds(&path, whole.as_bytes())
        });
    }
    let missing = 2 * whole.len() as u64 - 100_000;
    let overhead = 20_000;
    assert!(
        proxy.sent() < missing + overhead,
        "{} bytes for {missing}",
        proxy.sent()
    );
    let names: Vec<_> = fs::read_dir(server_dir.join("logs"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    append(&logs.join("done"), "and on\n");
    wait_until("appends go on", || {
        server.holds("logs/done", (whole.clone() + "and on\n").as_bytes())
    });
    assert!(server.terminate().success());
}
