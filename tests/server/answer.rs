//! Answers of the server, read strictly (RFC 9112), and what they answer. Pure.

/// What an answer answers.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    pub target: String,
    /// The last byte's offset + 1 of a PUT's range, or N of a confirm.
    pub end: Option<u64>,
    /// The highest commit number that was known when this was asked.
    pub known: u64,
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A header that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name).and_then(|value| value.parse().ok())
    }

    /// Whether the server ends the connection behind this answer.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The answer for people.
    pub fn shown(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!("HTTP/1.1 {}\n", self.status);
        for (name, value) in &self.headers {
            let _ = writeln!(text, "{name}: {value}");
        }
        text + &String::from_utf8_lossy(&self.body)
    }
}

/// Reads a status line and the header lines behind it.
pub fn parse_head(head: &[u8]) -> Result<Answer, String> {
    let text = std::str::from_utf8(head).map_err(|e| format!("an answer's head: {e}"))?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let status = lines
        .next()
        .and_then(|line| {
            line.strip_prefix("HTTP/1.1 ")
                .or(line.strip_prefix("HTTP/1.0 "))?
                .get(..3)?
                .parse()
                .ok()
        })
        .ok_or_else(|| format!("no status line: {text:?}"))?;
    let mut answer = Answer {
        status,
        ..Answer::default()
    };
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("no header line: {line:?}"))?;
        let name = name.to_ascii_lowercase();
        if answer.header(&name).is_some() {
            return Err(format!("{name} comes twice:\n{text}"));
        }
        answer.headers.push((name, value.trim().to_owned()));
    }
    Ok(answer)
}
