//! How long certificates and lists are good, as `db inspect` shows it beside the database.

use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{CertificateParams, date_time_ymd};
use serde_json::{Value, json};

use super::authority::{Certified, dns, put};
use super::certificates::Guarded;
use crate::common::{Client, deliver, run, said, wait_until, yaml};

/// The rows about certificates, without the directory of their files.
fn certificates(config: &Path) -> Vec<Value> {
    let output = run([
        "db".as_ref(),
        "inspect".as_ref(),
        "--json".as_ref(),
        "--config".as_ref(),
        config.as_os_str(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut rows: Vec<Value> = rows
        .filter(|row: &Value| row["table"] == "certificates")
        .collect();
    for row in &mut rows {
        let file = Path::new(row["file"].as_str().unwrap());
        assert!(file.is_absolute(), "{row}");
        row["file"] = file.file_name().unwrap().to_str().into();
    }
    rows
}

#[test]
fn inspect_shows_how_long_certificates_and_lists_are_good() {
    let mut guarded = Guarded::start("");
    let crl = guarded.home.path().join("crl.pem");
    put(&crl, &guarded.authority.revoke(&[]), 0o644);
    let config = fs::read_to_string(guarded.server.config()).unwrap();
    let config = config.split_once("tls:").unwrap().1;
    let config = config.replace("authorize:", &format!("  crl: {}\nauthorize:", yaml(&crl)));
    guarded.server.reconfigure(&format!("tls:{config}"));
    guarded.server.terminate();
    guarded.server.restart();
    let rows = certificates(&guarded.server.config());
    let keys: Vec<_> = rows
        .iter()
        .map(|row| row["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["cert", "client_ca", "crl"]);
    assert_eq!(
        rows[2],
        json!({
            "table": "certificates",
            "key": "crl",
            "file": "crl.pem",
            "subject": "CN=CA",
            "not_before": "2020-01-01T00:00:00Z",
            "not_after": "2120-01-01T00:00:00Z",
            "state": "good",
        })
    );

    let logs = guarded.home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let own = guarded.authority.certify_with(|params| {
        params.subject_alt_names = vec![dns("x")];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let (cert, key) = own.put(guarded.home.path(), "x");
    let url = format!("https://localhost:{}/x/", guarded.server.port);
    let tls = format!(
        "  tls: {{ca: {}, cert: {}, key: {}}}\n",
        yaml(&guarded.home.path().join("client_ca.pem")),
        yaml(&cert),
        yaml(&key)
    );
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]) + &tls;
    let client = Client::start(&guarded.home.path().join("client"), &config);
    wait_until("its database is there", || {
        client.datadir.join(".shaftlog/client.redb").exists()
    });
    let rows = certificates(&client.config());
    let expired = rows.iter().find(|row| row["key"] == "cert").unwrap();
    assert_eq!(expired["destination"], url.as_str());
    assert_eq!(expired["not_after"], "2021-01-01T00:00:00Z");
    assert_eq!(expired["state"], "expired");
    // For people too, and by its state.
    let output = run([
        "db".as_ref(),
        "inspect".as_ref(),
        "--state".as_ref(),
        "expired".as_ref(),
        "--config".as_ref(),
        client.config().as_os_str(),
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("certificates") && text.contains("2021-01-01T00:00:00Z"),
        "{text}"
    );
    // Without a configuration nothing is known of them.
    let output = run([
        "db".as_ref(),
        "inspect".as_ref(),
        "--json".as_ref(),
        "--datadir".as_ref(),
        client.datadir.as_os_str(),
    ]);
    assert!(!said(&output).contains("certificates"), "{}", said(&output));
}

#[test]
fn what_expires_within_thirty_days_is_warned_of_by_whose_it_is_and_shown() {
    let mut guarded = Guarded::start("");
    let home = guarded.home.path().to_owned();
    let end = Timestamp::now() + SignedDuration::from_hours(24 * 10);
    let end = end.to_zoned(TimeZone::UTC).date();
    let soon = |name: &str| -> Certified {
        guarded
            .authority
            .certify_with(|params: &mut CertificateParams| {
                params.subject_alt_names = vec![dns(name)];
                let (month, day) = (end.month().cast_unsigned(), end.day().cast_unsigned());
                params.not_after = date_time_ymd(end.year().into(), month, day);
            })
    };
    let (cert, key) = soon("x").put(&home, "x");
    let own = soon("localhost");
    guarded.server.terminate();
    own.put(&home, "own");
    guarded.server.restart();
    let logs = home.join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "line\n").unwrap();
    let url = format!("https://localhost:{}/x/", guarded.server.port);
    let tls = format!(
        "  tls: {{ca: {}, cert: {}, key: {}}}\n",
        yaml(&home.join("client_ca.pem")),
        yaml(&cert),
        yaml(&key)
    );
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]) + &tls;
    let mut client = Client::start(&home.join("client"), &config);
    // It is still good, and believed.
    wait_until("the line arrives", || {
        guarded.server.holds("x/logs/log", b"line\n")
    });
    let configs = [guarded.server.config(), client.config()];
    for (daemon, config, cert) in [
        (guarded.server.process(), &configs[0], home.join("own.pem")),
        (client.process(), &configs[1], cert),
    ] {
        wait_until("it is warned of", || daemon.output().contains("expire"));
        let output = daemon.output();
        let place = format!("tls.cert: {}: expires in ", cert.display());
        let until = format!(" days, at {end}T00:00:00Z");
        let warnings = output.lines().filter(|line| line.contains("expire"));
        let warnings: Vec<_> = warnings.collect();
        assert_eq!(warnings.len(), 1, "{output}");
        assert!(
            warnings[0].contains("WARN")
                && warnings[0].contains(&place)
                && warnings[0].contains(&until),
            "{output}"
        );
        let rows = certificates(config);
        let state = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap()["state"].clone();
        assert_eq!(state("cert"), "expires_soon", "{rows:?}");
        let ca = if rows.iter().any(|row| row["key"] == "ca") {
            "ca"
        } else {
            "client_ca"
        };
        assert_eq!(state(ca), "good", "{rows:?}");
    }
}
