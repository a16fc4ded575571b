//! How delivered files and the directories on the way to them are made: modes and ownership.

use super::error::Problem;
use super::fields::Fields;
use super::keys;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Mode of files.
    pub mode: u32,
    /// Mode of directories.
    pub directory_mode: u32,
    /// User, by name or id, to whom they are given.
    pub owner: Option<String>,
    /// Group, by name or id, to which they are given.
    pub group: Option<String>,
}

impl Default for Delivered {
    fn default() -> Self {
        Self {
            mode: 0o640,
            directory_mode: 0o750,
            owner: None,
            group: None,
        }
    }
}

/// Reads the key `files`.
pub(super) fn read(fields: &Fields<'_>) -> Result<Delivered, Problem> {
    let default = Delivered::default();
    let Some(files) = fields.mapping("files", keys::FILES, "a server's `files`")? else {
        return Ok(default);
    };
    let name = |key| {
        let names = files.words(key)?;
        match names.as_slice() {
            [] if !files.has(key) => Ok(None),
            [name] => Ok(Some(name.clone())),
            _ => Err(files.problem(key, "expected one name or id")),
        }
    };
    Ok(Delivered {
        mode: mode(&files, "mode", 0o600)?.unwrap_or(default.mode),
        directory_mode: mode(&files, "directory_mode", 0o700)?.unwrap_or(default.directory_mode),
        owner: name("owner")?,
        group: name("group")?,
    })
}

/// A mode of which the server itself needs the bits `least`.
fn mode(fields: &Fields<'_>, key: &str, least: u32) -> Result<Option<u32>, Problem> {
    let Some(mode) = fields.octal(key, 0o777)? else {
        return Ok(None);
    };
    if mode & 0o002 != 0 {
        return Err(fields
            .problem(key, format!("with {mode:04o} everybody could write"))
            .hint(format!("as in {:04o}", mode & !0o002)));
    }
    if mode & least != least {
        return Err(fields
            .problem(
                key,
                format!("with {mode:04o} the server itself could not go on"),
            )
            .hint(format!("as in {:04o}", mode | least)));
    }
    Ok(Some(mode))
}
