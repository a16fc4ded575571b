//! Whose files a pattern takes: the key `owner`.

use super::client::Environment;
use super::error::Problem;
use super::fields::Fields;

/// Stands for everybody, where the default of all patterns says something else.
const ANY: &str = "any";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Owners {
    /// Everybody's.
    #[default]
    Any,
    /// Those of these users only.
    Listed(Vec<Owner>),
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    written: String,
    uid: u32,
}

impl Owners {
    /// Whether a file of this user is taken.
    pub fn admit(&self, uid: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(owners) => owners.iter().any(|owner| owner.uid == uid),
        }
    }

    /// The users as they were written; none for everybody.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        let owners = match self {
            Self::Any => &[],
            Self::Listed(owners) => owners.as_slice(),
        };
        owners.iter().map(|owner| owner.written.as_str())
    }
}

/// Reads `owner`; `None` when it is missing.
pub(super) fn read(
    fields: &Fields<'_>,
    environment: &Environment,
) -> Result<Option<Owners>, Problem> {
    let words = fields.words("owner")?;
    if words.is_empty() {
        return if fields.has("owner") {
            Err(fields
                .problem("owner", "the list is empty")
                .hint("leave it out to take everybody's files"))
        } else {
            Ok(None)
        };
    }
    if words == [ANY] {
        return Ok(Some(Owners::Any));
    }
    let owner = |written: String| {
        let uid = uid(&written, environment).map_err(|problem| {
            fields
                .problem("owner", problem)
                .hint("a user who is not in there has a number: `id -u NAME` prints it")
        })?;
        Ok(Owner { written, uid })
    };
    let owners = words.into_iter().map(owner).collect::<Result<_, _>>()?;
    Ok(Some(Owners::Listed(owners)))
}

fn uid(written: &str, environment: &Environment) -> Result<u32, String> {
    // No leading zero and no sign: nobody knows what is meant.
    if let Ok(uid) = written.parse::<u32>()
        && uid.to_string() == written
    {
        return Ok(uid);
    }
    match (environment.user_id)(written) {
        Ok(Some(uid)) => Ok(uid),
        Ok(None) => Err(format!(
            "\"{}\" is neither a user id nor a user of /etc/passwd",
            written.escape_debug()
        )),
        Err(error) => Err(format!("cannot read /etc/passwd: {error}")),
    }
}
