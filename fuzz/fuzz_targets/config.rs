//! Configurations of either daemon: any bytes are an error that names a line of the text, or
//! settings which, printed as `shaftlog check` does it, are read as the same settings again.
//! Aliases that multiply and nesting without end show as libFuzzer's own `-timeout` and
//! `-rss_limit_mb`.
#![no_main]

use std::fmt::Debug;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use shaftlog::cli;
use shaftlog::config::{ConfigError, Environment, Settings, parse, parse_client, parse_server};

const FILE: &str = "fuzz.yaml";

fuzz_target!(|data: &[u8]| {
    let file = Path::new(FILE);
    let environment = Environment {
        hostname: "host.example".to_owned(),
        machine_id: |_| Ok("0123456789abcdef".to_owned()),
        user_id: |name| Ok((name != "nobody").then_some(1000)),
    };
    let client = parse_client(file, data, &environment);
    let server = parse_server(file, data);
    for error in [client.as_ref().err(), server.as_ref().err()]
        .into_iter()
        .flatten()
    {
        is_helpful(error, data);
    }
    match parse(file, data, &environment) {
        Err(error) => {
            is_helpful(&error, data);
            assert!(client.is_err() && server.is_err());
        }
        Ok(settings) => {
            match &settings {
                Settings::Client(settings) => same(settings, &client.expect("a client's")),
                Settings::Server(settings) => same(settings.as_ref(), &server.expect("a server's")),
            }
            survives(&settings, &environment);
        }
    }
});

/// What is in force, printed and read again, is in force.
fn survives(settings: &Settings, environment: &Environment) {
    let printed = cli::in_force(settings).expect("settings can be printed");
    let again = parse(Path::new(FILE), printed.as_bytes(), environment)
        .unwrap_or_else(|error| panic!("{error}\n{printed}"));
    same(&again, settings);
    assert_eq!(cli::in_force(&again).ok(), Some(printed));
}

/// Settings hold regular expressions, which compare by their text only.
fn same<T: Debug>(one: &T, other: &T) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

fn is_helpful(error: &ConfigError, text: &[u8]) {
    let lines = text.split(|byte| *byte == b'\n').count();
    let line = error.line().expect("a fault of the text");
    assert!(
        (1..=lines).contains(&line),
        "line {line} of {lines}: {error}"
    );
    let said = error.to_string();
    assert!(said.starts_with(&format!("{FILE}:{line}: ")), "{said}");
    assert!(!said.chars().any(char::is_control), "{said:?}");
}
