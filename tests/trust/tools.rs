//! Other people's tools agree on what our certificates and handshakes are.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::commands::{done, tls};
use crate::common::{Server, said};

fn tool(directory: &Path, words: &str) -> Output {
    let mut words = words.split_whitespace();
    Command::new(words.next().unwrap())
        .args(words)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whether the tool says this and succeeds.
fn agrees(directory: &Path, line: &str, words: &[&str]) {
    let output = tool(directory, line);
    assert!(output.status.success(), "{line}: {}", said(&output));
    for words in words {
        assert!(
            said(&output).contains(words),
            "{line}: {words}: {}",
            said(&output)
        );
    }
}

fn fails(directory: &Path, line: &str) {
    let output = tool(directory, line);
    assert!(!output.status.success(), "{line}: {}", said(&output));
}

#[test]
#[ignore = "needs openssl and curl"]
fn openssl_and_curl_agree() {
    let home = TempDir::new().unwrap();
    let pki = home.path().join("pki");
    done(&tls(&pki, &["init"]));
    let config = done(&tls(&pki, &["issue", "localhost"]));
    done(&tls(&pki, &["issue", "web1"]));
    let other = home.path().join("other");
    done(&tls(&other, &["init"]));
    done(&tls(&other, &["issue", "web1"]));
    agrees(
        &pki,
        "openssl verify -x509_strict -CAfile ca.pem localhost.pem web1.pem",
        &["web1.pem: OK"],
    );
    fails(&pki, "openssl verify -CAfile ../other/ca.pem web1.pem");

    let server = Server::start(&home.path().join("server"), &config);
    let port = server.port;
    let connect = format!(
        "openssl s_client -connect localhost:{port} -verify_return_error -verify_hostname localhost"
    );
    let known = format!("{connect} -CAfile ca.pem -cert web1.pem -key web1.key");
    agrees(
        &pki,
        &format!("{known} -tls1_3"),
        &["Verification: OK", "TLSv1.3", "Early data was not sent"],
    );
    agrees(
        &pki,
        &format!("{known} -tls1_2"),
        &["Verification: OK", "TLSv1.2"],
    );
    // At this level OpenSSL itself still speaks what we do not.
    let old = "-cipher ALL:@SECLEVEL=0";
    agrees(&pki, &format!("{known} -tls1_2 {old}"), &["TLSv1.2"]);
    fails(&pki, &format!("{known} -tls1_1 {old}"));
    fails(
        &pki,
        &format!("{connect} -CAfile ../other/ca.pem -cert web1.pem -key web1.key"),
    );

    let url = format!("https://localhost:{port}");
    let curl = "curl --silent --show-error --cacert ca.pem --fail --http1.1";
    let known = format!("{curl} --cert web1.pem --key web1.key");
    agrees(
        &pki,
        &format!("{known} --head {url}/"),
        &["200 OK", "shaftlog-store"],
    );
    fs::write(pki.join("body"), "hello\n").unwrap();
    let uploaded = Command::new("curl")
        .args(known.split_whitespace().skip(1))
        .args([
            "--upload-file",
            "body",
            "--header",
            "Content-Range: bytes 0-5/6",
        ])
        .arg(format!("{url}/web1/log"))
        .current_dir(&pki)
        .output()
        .unwrap();
    assert!(uploaded.status.success(), "{}", said(&uploaded));
    assert!(server.holds("web1/log", b"hello\n"));
    fails(&pki, &format!("{known} --head {url}/web2/log"));
    fails(&pki, &format!("{curl} --head {url}/"));
    fails(
        &pki,
        &format!("{curl} --cert ../other/web1.pem --key ../other/web1.key --head {url}/"),
    );
}
