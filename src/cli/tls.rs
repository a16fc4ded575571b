//! `shaftlog tls`: a private CA and certificates, and what to write into the configurations for
//! them.

use std::path::Path;

use super::args::{TlsInitArgs, TlsIssueArgs};
use super::datadir::quoted;
use super::exit::{Exit, Failure};
use super::out;
use crate::tls::issue::{self, IssueError, Issued};

/// Makes a CA.
pub(super) fn init(args: &TlsInitArgs) -> Result<Exit, Failure> {
    let directory = absolute(&args.place.dir)?;
    let issued = issue::init(&directory).map_err(failed)?;
    out::print(&format!(
        "Made a CA that is good until {}:\n  {}  for every client and server\n  {}  \
         the key that certificates are made with: keep it to yourself\n\
         Next: shaftlog tls issue NAME --dir {}\n",
        issued.until,
        issued.cert.display(),
        issued.key.display(),
        quoted(&directory),
    ))?;
    Ok(Exit::Done)
}

/// Makes a certificate.
pub(super) fn issue(args: &TlsIssueArgs) -> Result<Exit, Failure> {
    let directory = absolute(&args.place.dir)?;
    let issued = issue::issue(&directory, &args.name, args.days).map_err(failed)?;
    out::print(&described(&issued))?;
    Ok(Exit::Done)
}

/// What was made, and the lines that use it.
fn described(issued: &Issued) -> String {
    let Issued {
        ca,
        cert,
        key,
        until,
    } = issued;
    let (ca, cert, key) = (yaml(ca), yaml(cert), yaml(key));
    format!(
        "# Made a certificate that is good until {until}. Copy it, its key and the CA's certificate\n\
         # to the host it is for; the daemon's user must own the key.\n\
         #\n\
         # For a server's configuration:\n\
         tls:\n  cert: {cert}\n  key: {key}\n  client_ca: {ca}\n\
         authorize:\n- identity: \"*\"\n  paths: /{{identity}}/\n\
         #\n\
         # For a client's, below a destination's url, which begins with https:\n\
         #  tls:\n#    ca: {ca}\n#    cert: {cert}\n#    key: {key}\n"
    )
}

/// A path as a YAML value.
fn yaml(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

fn absolute(directory: &Path) -> Result<std::path::PathBuf, Failure> {
    Ok(std::path::absolute(directory)?)
}

fn failed(error: IssueError) -> Failure {
    match error {
        IssueError::Name(_) => Failure::usage(error),
        error => error.into(),
    }
}
