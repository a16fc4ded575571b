//! Who comes to the wrong door is told so, and so is the operator.

use std::fs;

use tempfile::TempDir;

use super::certificates::Guarded;
use crate::common::{Client, deliver, said, wait_until};

#[test]
fn a_client_that_speaks_plain_http_to_tls_is_told_to_use_https() {
    let guarded = Guarded::start("");
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "hello").unwrap();
    let to_all = deliver(&[("x", &logs.join("*"))], &[&guarded.server.url()]);
    let client = Client::configure(&home.path().join("client"), &to_all);
    let output = client.sync(&["--patience", "1s"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let text = said(&output);
    assert!(
        text.contains("status 400: This port speaks TLS: use https"),
        "{text}"
    );
    assert!(!text.contains("no shaftlog server"), "{text}");
    assert_eq!(guarded.server.file("x/log"), None);
}

#[test]
fn a_path_that_is_anothers_is_told_of_once_with_both_names() {
    let guarded = Guarded::start("");
    let own = guarded.authority.certify("hosta");
    for path in ["/hostb/1", "/hostb/2", "/hostc%1b/log", "/hostb/1"] {
        let said = guarded.meet(&own).put(path, b"x").unwrap();
        assert_eq!(said.status, 403, "{said:?}");
        let named = format!("{} is not hosta's", path.replace("%1b", "%1B"));
        assert!(said.text.contains(&named), "{said:?}");
    }
    let lines = || {
        let output = guarded.server.output();
        let lines = output.lines().filter(|line| line.contains(" is refused "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("it is told", || lines().len() >= 2);
    let lines = lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let told = "WARN hosta is refused /hostb (authorize, allow): /hostb/1 is not hosta's";
    assert!(lines[0].contains(told), "{lines:?}");
    assert!(
        lines[1].contains("hosta is refused /hostc%1B "),
        "{lines:?}"
    );
}
