//! What answers are taken to mean.

use super::*;
use crate::wire::Problem;

fn answer(status: u16) -> Answer {
    Answer {
        status,
        problem: None,
        about: None,
        content_length: None,
        tag: None,
        retry_after: None,
    }
}

fn about(status: u16, prefix: Prefix) -> Answer {
    Answer {
        about: Some(About {
            length: prefix.length,
            tail: None,
        }),
        tag: Some(prefix.hash),
        ..answer(status)
    }
}

fn problem(problem: Problem) -> Answer {
    Answer {
        problem: Some(problem),
        ..answer(problem.status())
    }
}

fn asked_append(from: u64, to: u64) -> Asked {
    Asked::Append {
        range: ByteRange::new(offset(from), offset(to)).unwrap(),
        end: ours(to).hash,
    }
}

#[test]
fn an_append_is_believed_when_the_prefix_is_ours() {
    let hear = |answer: Answer| heard(Trust::Verified, &asked_append(100, 150), &answer);
    assert_eq!(
        hear(about(204, ours(150))),
        Heard::Confirmed(ours(150), Remote::Agreed)
    );
    assert_eq!(
        hear(about(201, ours(150))),
        Heard::Confirmed(ours(150), Remote::Agreed)
    );
    // A range that was there already: what stands before it is not proven.
    assert_eq!(
        hear(about(204, other(160))),
        Heard::Told(holds(other(160), None))
    );
    assert_eq!(
        hear(about(204, other(150))),
        Heard::Told(holds(other(150), None))
    );
    for lie in [about(204, ours(149)), answer(200)] {
        assert!(matches!(hear(lie), Heard::Failed(FileError::Nonsense(_))));
    }
}

#[test]
fn refusals_lead_to_a_head_and_never_to_a_conclusion() {
    let hear = |answer: Answer| heard(Trust::Verified, &asked_append(100, 150), &answer);
    for token in [
        Problem::Condition,
        Problem::Gap,
        Problem::Shrunk,
        Problem::Differs,
        Problem::Range,
        Problem::Digest,
    ] {
        assert!(matches!(hear(problem(token)), Heard::Refused(_)), "{token}");
    }
    for token in [Problem::Busy, Problem::Hashing] {
        assert_eq!(hear(problem(token)), Heard::Wait(None), "{token}");
    }
    for token in [Problem::Full, Problem::Store] {
        assert!(
            matches!(hear(problem(token)), Heard::Pause(None, _)),
            "{token}"
        );
    }
    for token in [
        Problem::Path,
        Problem::Forbidden,
        Problem::TooLarge,
        Problem::Unconditional,
    ] {
        assert!(matches!(hear(problem(token)), Heard::Failed(_)), "{token}");
    }
    let diverged = Answer {
        problem: Some(Problem::Diverged),
        ..about(409, ours(150))
    };
    assert_eq!(hear(diverged), Heard::Told(Remote::Diverged(ours(150))));
    let retired = Answer {
        problem: Some(Problem::Retired),
        ..about(410, ours(150))
    };
    assert_eq!(hear(retired), Heard::Told(Remote::Retired(ours(150))));
    // Who does not say how much that was proves nothing.
    for token in [Problem::Diverged, Problem::Retired] {
        assert!(matches!(
            hear(problem(token)),
            Heard::Failed(FileError::Nonsense(_))
        ));
    }
    for status in [301, 400, 401, 403, 404, 405, 413, 500, 501] {
        assert!(matches!(hear(answer(status)), Heard::Failed(_)), "{status}");
    }
    for status in [408, 429, 502, 503, 504, 507] {
        assert!(matches!(hear(answer(status)), Heard::Pause(..)), "{status}");
    }
}

#[test]
fn heads_and_confirms_say_what_is_held() {
    let hear = |asked: Asked, answer: Answer| heard(Trust::Verified, &asked, &answer);
    assert_eq!(
        hear(Asked::Head, about(200, ours(5))),
        Heard::Told(holds(ours(5), None))
    );
    assert_eq!(
        hear(Asked::Head, answer(404)),
        Heard::Told(Remote::Holds(Holding::nothing()))
    );
    let confirm = Asked::Confirm(ours(5));
    assert_eq!(
        hear(confirm, answer(204)),
        Heard::Confirmed(ours(5), Remote::Agreed)
    );
    for token in [Problem::Condition, Problem::Gap] {
        assert_eq!(hear(confirm, problem(token)), Heard::NotHeld(ours(5)));
    }
    let part = Asked::HeadPrefix(offset(5));
    let mut told = about(200, ours(9));
    told.tag = Some(ours(5).hash);
    told.content_length = Some(offset(5));
    assert_eq!(hear(part, told.clone()), Heard::ToldPrefix(ours(5)));
    told.content_length = Some(offset(9));
    assert!(matches!(hear(part, told), Heard::Failed(_)));
}

#[test]
fn an_unverified_answer_is_a_length_and_nothing_else() {
    let hear = |asked: Asked, answer: Answer| heard(Trust::Unverified, &asked, &answer);
    // Whoever sends our tokens without our store header is not us.
    assert!(matches!(
        hear(asked_append(0, 5), problem(Problem::Retired)),
        Heard::Failed(_)
    ));
    assert_eq!(hear(asked_append(0, 5), answer(204)), Heard::Look);
    let length = |content_length| Answer {
        content_length,
        ..answer(200)
    };
    for (told, expected) in [(None, 0), (Some(offset(7)), 7)] {
        let Heard::Told(Remote::Holds(holding)) = hear(Asked::Head, length(told)) else {
            panic!("no length");
        };
        assert_eq!((holding.length, holding.hash), (offset(expected), None));
    }
}

#[test]
fn the_third_request_in_vain_is_an_error() {
    let mut course = Course::new(Remote::Agreed);
    let asked = asked_append(100, 150);
    let refuse = || Heard::Refused("status 412".to_owned());
    for _ in 0..2 {
        let after = course.hear(&asked, refuse(), Some(ours(100)));
        assert_eq!(after, After::Again);
        assert_eq!(course.remote, Remote::Unasked);
    }
    assert!(matches!(
        course.hear(&asked, refuse(), Some(ours(100))),
        After::Fail(FileError::Stuck(_))
    ));
    // Progress starts the count anew.
    for _ in 0..2 {
        course.hear(&asked, refuse(), Some(ours(100)));
    }
    course.moved(ours(150), Some(ours(100)));
    let after = course.hear(&asked, refuse(), Some(ours(150)));
    assert_eq!(after, After::Again);
}

#[test]
fn an_unverified_destination_that_keeps_nothing_is_an_error_of_the_file() {
    let mut course = Course::new(Remote::Unasked);
    let unchanged = || {
        Heard::Told(Remote::Holds(Holding {
            exists: true,
            length: offset(100),
            hash: None,
            tail: None,
        }))
    };
    let confirmed = Some(ours(100));
    for round in 1..=3 {
        let after = course.hear(&asked_append(100, 150), Heard::Look, confirmed);
        assert_eq!((after, course.remote), (After::Again, Remote::Unasked));
        let after = course.hear(&Asked::Head, unchanged(), confirmed);
        let failed = matches!(after, After::Fail(FileError::Stuck(_)));
        assert_eq!(failed, round == 3, "round {round}");
    }
}
