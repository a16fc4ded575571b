use super::*;
use proptest::prelude::*;

fn glob(pattern: &str) -> Glob {
    Glob::parse(pattern).unwrap()
}

#[test]
fn what_matches() {
    for (pattern, matching, others) in [
        (
            "/var/log/messages*",
            "/var/log/messages /var/log/messages-1.gz",
            "/var/log/messages/x /var/log",
        ),
        ("/v/*", "/v/a", "/v /v/.a /v/a/b /w/a"),
        ("/v/.*", "/v/.a", "/v/a"),
        ("/v/*.*", "/v/a.b", "/v/.b /v/ab"),
        ("/v/**", "/v/a /v/a/b", "/v /v/.a /v/a/.b /v/.a/b"),
        ("/v/**/x", "/v/x /v/a/x /v/a/b/x", "/v/ax /v/.a/x /v/x/y"),
        ("/v/**/a/**/x", "/v/a/x /v/b/a/c/x /v/a/a/x", "/v/x /v/b/x"),
        ("/v/**/**/x", "/v/x /v/a/x", "/v/y"),
        ("/v/a**b", "/v/ab /v/acb", "/v/a/b"),
        ("/v/***", "/v/a", "/v/a/b"),
        (
            "/v/{log,std{in,err}}",
            "/v/log /v/stdin /v/stderr",
            "/v/std /v/stdout",
        ),
        ("/v/{a}", "/v/{a}", "/v/a"),
        ("/{v,w/*}/x", "/v/x /w/a/x", "/w/x"),
        ("/v/?", "/v/a /v/\u{e4}", "/v/ab /v/."),
        ("/v/[a-c]", "/v/a /v/c", "/v/d /v/-"),
        ("/v/x[^a-c]", "/v/xd /v/x.", "/v/xa /v/x"),
        ("/v/x[!a-c]", "/v/xd", "/v/xa"),
        ("/v/[]a]", "/v/] /v/a", "/v/b"),
        ("/v/[!]a]", "/v/b", "/v/] /v/a"),
        ("/v/[a!]", "/v/a /v/!", "/v/b"),
        ("/v/[-!]", "/v/- /v/!", "/v/b"),
        ("/v/[a-]", "/v/a /v/-", "/v/b"),
        ("/v/[a^]", "/v/a /v/^", "/v/b"),
        (r"/v/[\]a\-c]", "/v/] /v/a /v/- /v/c", "/v/b"),
        ("/v/[a-c-e]", "/v/b /v/- /v/e", "/v/d"),
        ("/v/[.]a", "", "/v/.a"),
        ("/v/[[]", "/v/[", "/v/a"),
        ("/v/[*]", "/v/*", "/v/a"),
        (r"/v/a\[", "/v/a[", "/v/a"),
        ("/v/a]", "/v/a]", "/v/a"),
        (r"/v/\*", "/v/*", "/v/a"),
        (r"/v/\a", "/v/a", "/v/b"),
        (r"/v/\{a,b}", "/v/{a,b}", "/v/a"),
        ("//v/./x", "/v/x", "/v/y"),
        ("/v/a(b)", "/v/a(b)", "/v/ab"),
    ] {
        let glob = glob(pattern);
        for path in matching.split_terminator(' ') {
            assert!(glob.matches(path.as_bytes()), "{pattern} matches {path}");
        }
        for path in others.split(' ') {
            assert!(!glob.matches(path.as_bytes()), "{pattern} leaves {path}");
        }
    }
}

#[test]
fn what_is_refused() {
    for (pattern, problem) in [
        ("", BadGlob::Empty),
        ("log/*", BadGlob::Relative),
        ("*.log", BadGlob::Relative),
        ("{/a,b}", BadGlob::Relative),
        ("!/v/a", BadGlob::Negated),
        ("#x", BadGlob::Comment),
        ("/v/+(a|b)", BadGlob::Extended('+')),
        ("/v/x!(a)", BadGlob::Extended('!')),
        ("/v/[[:alpha:]]", BadGlob::CharacterClass),
        ("/v/[z-a]", BadGlob::Range("z-a".to_owned())),
        ("/v/a[", BadGlob::Unclosed('[')),
        ("/v/[a/b]", BadGlob::Unclosed('[')),
        ("/v/[]", BadGlob::Unclosed('[')),
        (r"/v/[a\]", BadGlob::Unclosed('[')),
        ("/v/{a,b", BadGlob::Unclosed('{')),
        ("/v/{a,[b}", BadGlob::Unclosed('[')),
        ("/v/../w/*", BadGlob::Detour),
        ("/v/", BadGlob::Directory),
        ("/", BadGlob::Directory),
        ("/v/{1..9999}", BadGlob::TooMany),
    ] {
        assert_eq!(Glob::parse(pattern).unwrap_err(), problem, "{pattern}");
    }
    assert!(Glob::parse(r"/v/\+\(a)").is_ok());
}

#[test]
fn names_are_bytes() {
    assert!(glob("/v/*.log").matches(b"/v/\xff\xfe.log"));
    assert!(glob("/v/?").matches(b"/v/\xff"));
    assert!(!glob("/v/\u{fffd}").matches(b"/v/\xff"));
}

#[test]
fn a_walk_enters_what_can_hold_matches() {
    let pattern = glob("/var/log/{a,sudo-io/**}/{log,std*}");
    for (directory, entered) in [
        ("/", true),
        ("/var", true),
        ("/var/log", true),
        ("/var/log/a", true),
        ("/var/log/a/b", false),
        ("/var/log/sudo-io", true),
        ("/var/log/sudo-io/00/00/01", true),
        ("/var/log/sudo-io/.x", false),
        ("/var/spool", false),
        ("/etc", false),
    ] {
        assert_eq!(
            pattern.may_descend(directory.as_bytes()),
            entered,
            "{directory}"
        );
    }
    assert!(!glob("/v/*").may_descend(b"/v/a"));
}

#[test]
fn walks_begin_at_the_literal_prefix() {
    for (pattern, roots) in [
        ("/var/log/messages*", "/var/log"),
        ("/var/log/messages", "/var/log"),
        ("/var/log/**/x", "/var/log"),
        ("/var/{log,spool/a}/*.x", "/var/log /var/spool/a"),
        ("/var/{log,log/a,log.d}/*", "/var/log /var/log.d"),
        ("/*/x", "/"),
        ("/x", "/"),
    ] {
        let expected: Vec<_> = roots.split(' ').map(PathBuf::from).collect();
        assert_eq!(glob(pattern).roots(), expected, "{pattern}");
    }
}

#[test]
fn what_spans_the_machine() {
    for pattern in ["/**", "/**/*.log", "/*/**/x", "/{var,*}/**"] {
        assert!(glob(pattern).spans_the_machine(), "{pattern}");
    }
    for pattern in ["/*/x", "/v/**", "/*/log/**"] {
        assert!(!glob(pattern).spans_the_machine(), "{pattern}");
    }
}

#[test]
fn what_is_excluded() {
    let exclude = |pattern: &str| Exclude::parse([pattern]).unwrap();
    for (pattern, excluded, others) in [
        (
            "*.{gz,bz2}",
            "/v/a.gz /v/w/b.bz2",
            "/v/a.xz /v/a.gz.1 /v/a.gz/b",
        ),
        ("a", "/v/a", "/v/a/b /v/ab"),
        ("/v/*.gz", "/v/a.gz", "/w/a.gz /v/w/a.gz"),
        ("**/w/*.gz", "/v/w/a.gz /w/a.gz", "/v/a.gz"),
        ("{*.gz,/v/w/**}", "/v/a.gz /v/w/a/b", "/v/a"),
        ("**", "/v/a", "/v/.a"),
    ] {
        let exclude = exclude(pattern);
        for path in excluded.split(' ') {
            assert!(
                exclude.matches(path.as_bytes()),
                "{pattern} excludes {path}"
            );
        }
        for path in others.split(' ') {
            assert!(!exclude.matches(path.as_bytes()), "{pattern} leaves {path}");
        }
    }
    assert!(!Exclude::default().matches(b"/v/a"));
    let relative = Exclude::parse(["w/*.gz"]).unwrap_err();
    assert_eq!(relative, BadGlob::RelativeExclude);
}

#[test]
fn an_excluded_tree_is_covered() {
    let exclude = Exclude::parse(["*.gz", "/v/w/**", "/v/x/*"]).unwrap();
    for (directory, covered) in [
        ("/v", false),
        ("/v/w", true),
        ("/v/w/a", true),
        ("/v/w/.a", false),
        ("/v/x", false),
    ] {
        assert_eq!(exclude.covers(directory.as_bytes()), covered, "{directory}");
    }
    assert!(glob("/v/**/*.log").is_dotless());
    assert!(!glob("/v/.x/*.log").is_dotless());
    assert!(!glob("/v/{a,.*}").is_dotless());
}

proptest! {
    /// Whatever matches can be reached by a walk from a root through entered directories.
    #[test]
    fn walks_find_every_match(
        pattern in r"/([ab*?.]|\*\*|\{a,b/a\}|\[ab\]){1,3}(/([ab*?.]|\*\*|\{a,b/a\}|\[!a\]){1,3}){0,3}",
        path in "(/[ab.]{1,2}){1,5}",
    ) {
        if let Ok(glob) = Glob::parse(&pattern)
            && glob.matches(path.as_bytes())
        {
            prop_assert!(glob.roots().iter().any(|root| std::path::Path::new(&path).starts_with(root)));
            for (end, _) in path.match_indices('/') {
                prop_assert!(glob.may_descend(&path.as_bytes()[..end]));
            }
        }
    }

    /// A class says the same as a comparison, however its members are spelled.
    #[test]
    fn classes_equal_the_model(members in prop::collection::vec(prop::sample::select(vec!['a', 'b', 'c', ']', '-', '!', '^', '[', '\\']), 1..5), negated: bool) {
        let escaped: String = members.iter().flat_map(|member| ['\\', *member]).collect();
        let pattern = format!("/[{}{escaped}]", if negated { "!" } else { "" });
        let glob = glob(&pattern);
        for candidate in ['a', 'b', 'c', 'd', ']', '-', '!', '^', '[', '\\', '*'] {
            let expected = members.contains(&candidate) != negated;
            prop_assert_eq!(glob.matches(format!("/{candidate}").as_bytes()), expected, "{} {}", pattern, candidate);
        }
    }

    #[test]
    fn takes_any_text(pattern in r"/[\[\]{}a!^\-*?/\\.,:(]{0,20}", path: Vec<u8>) {
        if let Ok(glob) = Glob::parse(&pattern) {
            glob.matches(&path);
            glob.may_descend(&path);
            glob.roots();
        }
    }
}
