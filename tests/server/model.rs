//! A model of the server's table: what the server has of one path, and what may come of a
//! request. Pure; [`crate::random`] holds the real server against it.

/// An append that a client tries.
#[derive(Clone, Debug)]
pub struct Put {
    pub path: usize,
    pub at: At,
    pub length: usize,
    /// Which byte of the body is not what one would expect.
    pub wrong: Option<usize>,
    /// t beyond the range's end; `None`: t is short of L, if the range allows that.
    pub total: u64,
    pub says: Says,
    pub digest: Says,
    /// After how many bytes the client goes away.
    pub cut: Option<usize>,
}

/// A position, relative to what the server has.
#[derive(Clone, Copy, Debug)]
pub enum At {
    Start,
    Vouched(isize),
    Size(isize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Says {
    Nothing,
    Right,
    Wrong,
    /// `If-None-Match: *`.
    Absent,
}

/// What the server has of one path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// Whether there is a row.
    pub row: bool,
    /// Everything on disk.
    pub bytes: Vec<u8>,
    /// How much of it is vouched for.
    pub vouched: usize,
    /// Found by `db rebuild` and confirmed by nobody: a shorter prefix may yet be proven.
    pub unproven: bool,
    /// Whether it was ever written conditionally; `None` when the contract leaves it open.
    pub conditional: Option<bool>,
}

/// What may come of a request.
pub struct Outcome {
    pub status: &'static [u16],
    pub problem: Option<&'static str>,
    pub after: File,
}

impl File {
    pub fn new() -> Self {
        Self {
            conditional: Some(false),
            ..Self::default()
        }
    }

    pub fn hash(&self, length: usize) -> Option<blake3::Hash> {
        self.bytes.get(..length).map(blake3::hash)
    }

    /// A position that a step means.
    pub fn position(&self, at: At) -> usize {
        let moved = |from: usize, by: isize| from.saturating_add_signed(by);
        match at {
            At::Start => 0,
            At::Vouched(by) => moved(self.vouched, by),
            At::Size(by) => moved(self.bytes.len(), by),
        }
    }

    fn refused(&self, status: &'static [u16], problem: &'static str) -> Outcome {
        Outcome {
            status,
            problem: Some(problem),
            after: self.clone(),
        }
    }

    fn done(&self, status: &'static [u16]) -> Outcome {
        Outcome {
            status,
            problem: None,
            after: self.clone(),
        }
    }

    fn success(&self) -> &'static [u16] {
        match (self.row, self.bytes.is_empty()) {
            (true, _) => &[204],
            (false, true) => &[201],
            // A new row for a file that lay there: both are true.
            (false, false) => &[201, 204],
        }
    }

    /// Row 4.
    pub fn confirm(&self, n: usize, says: Says) -> Vec<Outcome> {
        if n == 0 {
            let mut after = self.clone();
            after.row = true;
            let status: &[u16] = if self.row { &[204] } else { &[201] };
            let mut outcomes = vec![Outcome {
                status,
                problem: None,
                after,
            }];
            if says == Says::Wrong {
                // True of every file, and yet a wrong hash: the table does not say.
                outcomes.push(self.refused(&[412], "condition"));
            }
            return outcomes;
        }
        let right = says == Says::Right;
        match says {
            Says::Nothing => vec![self.refused(&[428], "unconditional")],
            // The table does not say which.
            Says::Absent => [
                (&[400][..], "condition"),
                (&[412], "condition"),
                (&[428], "unconditional"),
            ]
            .map(|(status, problem)| self.refused(status, problem))
            .into(),
            _ if n > self.bytes.len() => vec![self.refused(&[416], "gap")],
            _ if !right => vec![self.refused(&[412], "condition")],
            _ if n <= self.vouched && !self.unproven => vec![self.done(&[204])],
            _ => {
                let mut outcome = self.done(self.success());
                let after = &mut outcome.after;
                after.row = true;
                after.vouched = n;
                if std::mem::take(&mut after.unproven) {
                    // Whatever is behind it was never what this client delivers.
                    after.bytes.truncate(n);
                }
                after.open_conditional();
                vec![outcome]
            }
        }
    }

    /// What `db rebuild` makes of the file that lies there, if one does.
    pub fn rebuilt(&self, is_there: bool) -> Self {
        Self {
            row: is_there,
            vouched: self.bytes.len(),
            bytes: self.bytes.clone(),
            unproven: is_there,
            conditional: Some(false),
        }
    }

    fn open_conditional(&mut self) {
        if self.conditional == Some(false) {
            self.conditional = None;
        }
    }

    /// Rows 5 to 10, for a whole body.
    pub fn append(&self, put: &Put, a: usize, body: &[u8], total: usize) -> Vec<Outcome> {
        let (vouched, end) = (self.vouched, a + body.len());
        let conditional = put.says != Says::Nothing || put.digest != Says::Nothing;
        let same = |from: usize, to: usize| self.bytes[from..to] == body[from - a..to - a];
        if total < vouched {
            return vec![self.refused(&[416], "shrunk")];
        }
        if a > vouched && !(a <= self.bytes.len() && put.says == Says::Right) {
            return vec![self.refused(&[416], "gap")];
        }
        if end <= vouched {
            return vec![if same(a, end) {
                self.done(&[204])
            } else {
                self.refused(&[409], "differs")
            }];
        }
        if a < vouched {
            if put.digest == Says::Nothing {
                return vec![self.refused(&[416], "range")];
            }
            if !same(a, vouched) {
                return match put.digest {
                    Says::Right => vec![self.refused(&[409], "differs")],
                    _ => vec![
                        self.refused(&[409], "differs"),
                        self.refused(&[400], "digest"),
                    ],
                };
            }
        }
        if a == vouched {
            let holds = match put.says {
                Says::Nothing | Says::Right => true,
                Says::Wrong => false,
                Says::Absent => vouched == 0,
            };
            if !holds {
                return vec![self.refused(&[412], "condition")];
            }
        }
        let mut outcomes = Vec::new();
        if !conditional && self.unproven && self.bytes.len() > vouched {
            // Only at a = S; the table does not say how it is refused otherwise.
            outcomes.push(self.refused(&[416], "range"));
            outcomes.push(self.refused(&[416], "gap"));
            outcomes.push(self.refused(&[428], "unconditional"));
        }
        if !conditional && self.conditional != Some(false) {
            outcomes.push(self.refused(&[428], "unconditional"));
            if self.conditional == Some(true) {
                return outcomes;
            }
        }
        if put.digest == Says::Wrong {
            return self.wrong_digest(a, body);
        }
        let mut after = self.written(a, body);
        after.row = true;
        after.vouched = end;
        if conditional {
            after.conditional = Some(true);
            after.unproven = false;
        }
        outcomes.push(Outcome {
            status: self.success(),
            problem: None,
            after,
        });
        outcomes
    }

    /// The file with `body` at `a`, where it may meet a tail: the tail stays if it is equal.
    fn written(&self, a: usize, body: &[u8]) -> Self {
        let mut after = self.clone();
        let end = a + body.len();
        let common = self.bytes.len().min(end);
        if self.bytes[a..common] != body[..common - a] || end > self.bytes.len() {
            after.bytes.truncate(a);
            after.bytes.extend_from_slice(body);
        }
        after
    }

    /// A wrong digest takes the request's own bytes away again. What was proved or found equal on
    /// the way may stay proved, or not; a tail that differed is gone, or not.
    fn wrong_digest(&self, a: usize, body: &[u8]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let equal = self.bytes.get(a..).unwrap_or_default().iter().zip(body);
        let equal = a + equal.take_while(|(one, other)| one == other).count();
        for (vouched, kept) in [
            (self.vouched, self.bytes.len()),
            (self.vouched, equal),
            (a, self.bytes.len()),
            (a, equal),
        ] {
            let mut outcome = self.refused(&[400], "digest");
            outcome.after.bytes.truncate(kept.max(self.vouched));
            if vouched > self.vouched {
                outcome.after.vouched = vouched;
                outcome.after.row = true;
            }
            outcome.after.open_conditional();
            outcomes.push(outcome);
        }
        outcomes
    }

    /// What a body that was cut short may leave: nothing when it was refused, else a tail.
    pub fn cut(&self, put: &Put, a: usize, whole: &[u8], came: usize, total: usize) -> Vec<File> {
        let mut states = vec![];
        for outcome in self.append(put, a, whole, total) {
            let appended = matches!(outcome.problem, None | Some("digest"));
            if !appended || a + came <= self.vouched {
                states.push(self.clone());
                continue;
            }
            let mut after = self.written(a, &whole[..came]);
            after.open_conditional();
            if a > self.vouched {
                let mut proved = after.clone();
                proved.vouched = a;
                proved.row = true;
                states.push(proved);
            }
            states.push(after);
        }
        // Refused for its overlap only when the differing byte had come.
        if a < self.vouched {
            states.push(self.clone());
        }
        states
    }
}
