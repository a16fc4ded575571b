//! Every key that a configuration may hold, what it is for, and what to say about any other.

use crate::types::words::distance;

/// A key of one of the mappings.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) required: bool,
    /// What the key says; shown when a required one is missing.
    pub(super) what: &'static str,
    /// Part of the design, but of a later version: refused, so that nobody relies on it.
    pub(super) later: bool,
}

const fn required(name: &'static str, what: &'static str) -> Key {
    Key {
        name,
        required: true,
        what,
        later: false,
    }
}

const fn optional(name: &'static str) -> Key {
    Key {
        name,
        required: false,
        what: "",
        later: false,
    }
}

const fn later(name: &'static str) -> Key {
    Key {
        later: true,
        ..optional(name)
    }
}

/// The top level of a client's configuration.
pub(super) const CLIENT: &[Key] = &[
    required(
        "datadir",
        "the directory of its hard links, on the filesystem of the log files",
    ),
    optional("logfile"),
    optional("scan_interval"),
    optional("status_interval"),
    optional("periodic_trigger_interval"),
    required(
        "scan_paths",
        "a list of `name` and `pattern`: which files to deliver",
    ),
    required("destinations", "a list of `url`: where to deliver them"),
    optional("connections"),
    optional("release_after"),
    optional("release_unverified"),
    optional("scrub"),
    optional("warn_free"),
    optional("owner"),
];

/// An entry of `scan_paths`.
pub(super) const SCAN_PATH: &[Key] = &[
    required("name", "a name of your choice for these files"),
    required("pattern", "the absolute paths of the files, as a glob"),
    optional("exclude"),
    optional("rename"),
    optional("regex_from"),
    optional("regex_to"),
    optional("volatile"),
    optional("owner"),
];

/// An entry of `volatile`.
pub(super) const VOLATILE: &[Key] = &[
    required("offset", "the byte at which it begins, counted from 0"),
    required("length", "its length in bytes"),
];

/// An entry of `destinations`.
pub(super) const DESTINATION: &[Key] = &[
    required(
        "url",
        "where the files go, as in https://logs.example.net:10655/{hostname}/",
    ),
    optional("tls"),
];

/// `tls` of a destination.
pub(super) const DESTINATION_TLS: &[Key] = &[
    optional("ca"),
    optional("cert"),
    optional("key"),
    optional("server_name"),
];

/// The top level of a server's configuration.
pub(super) const SERVER: &[Key] = &[
    required("datadir", "the directory for the delivered files"),
    optional("validate_regex"),
    optional("logfile"),
    optional("listen_port"),
    optional("bind_address"),
    optional("idle_timeout"),
    optional("status_interval"),
    optional("min_free"),
    optional("unconditional"),
    optional("scrub"),
    optional("quarantine"),
    later("history"),
    optional("tls"),
    optional("authorize"),
    optional("allow"),
    optional("limits"),
    optional("quota"),
    optional("files"),
    optional("append_only"),
];

/// `append_only` of a server.
pub(super) const APPEND_ONLY: &[Key] = &[optional("after")];

/// `files` of a server.
pub(super) const FILES: &[Key] = &[
    optional("mode"),
    optional("directory_mode"),
    optional("owner"),
    optional("group"),
];

/// `quota` of a server, and of an entry of its `authorize`.
pub(super) const QUOTA: &[Key] = &[optional("files"), optional("bytes")];

/// `limits` of a server.
pub(super) const LIMITS: &[Key] = &[
    optional("connections"),
    optional("connections_per_peer"),
    optional("requests"),
    optional("file_size"),
];

/// `scrub` of either.
pub(super) const SCRUB: &[Key] = &[optional("rate"), optional("period")];

/// `quarantine` of a server.
pub(super) const QUARANTINE: &[Key] = &[optional("size"), optional("keep")];

/// `tls` of a server.
pub(super) const SERVER_TLS: &[Key] = &[
    required("cert", "the PEM file of its certificate chain"),
    required("key", "the PEM file of the certificate's private key"),
    optional("client_ca"),
    optional("client_auth"),
    optional("crl"),
];

/// An entry of `authorize`.
pub(super) const AUTHORIZE: &[Key] = &[
    required("identity", "a pattern of names in clients' certificates"),
    required(
        "paths",
        "a list of the paths that are theirs, as in /{identity}/",
    ),
    optional("quota"),
];

/// Why a key or its value is refused.
pub(super) struct Refusal {
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

/// Refuses `key` unless it is among `known` and built.
pub(super) fn check(key: &str, known: &[Key]) -> Result<(), Refusal> {
    match known.iter().find(|candidate| candidate.name == key) {
        Some(found) if found.later => Err(Refusal {
            problem: "this key is not built yet in this version".to_owned(),
            hint: Some("leave it out".to_owned()),
        }),
        Some(_) => Ok(()),
        None => Err(Refusal {
            problem: "unknown key".to_owned(),
            hint: Some(suggestion(key, known)),
        }),
    }
}

/// The name that was meant, or all of them when none is like `key`.
fn suggestion(key: &str, known: &[Key]) -> String {
    match nearest(key, known) {
        Some((name, distance)) if distance * 2 <= name.len() => format!("did you mean `{name}`?"),
        _ => {
            let built = known.iter().filter(|candidate| !candidate.later);
            let names: Vec<_> = built.map(|candidate| candidate.name).collect();
            format!("there are {}", names.join(", "))
        }
    }
}

/// The name most like `key`, with the number of changed letters between them.
pub(super) fn nearest(key: &str, known: &[Key]) -> Option<(&'static str, usize)> {
    known
        .iter()
        .filter(|candidate| !candidate.later)
        .map(|candidate| (candidate.name, distance(key, candidate.name)))
        .min_by_key(|&(_, distance)| distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_meant() {
        for (typed, meant) in [
            ("scan_path", "scan_paths"),
            ("destination", "destinations"),
            ("Datadir", "datadir"),
            ("scan-interval", "scan_interval"),
            ("log_file", "logfile"),
        ] {
            assert_eq!(nearest(typed, CLIENT).unwrap().0, meant);
        }
    }
}
