//! Every bound and default of the program, each with its reason. Settings that a configuration
//! can change have their default here and their key in `config`.

use std::time::Duration;

/// Bytes of one read or write. Writes of this size cost the page cache a third to a fifth of the
/// CPU that writes of 1 MiB do.
pub const IO_CHUNK: usize = 256 * 1024;

/// Smallest piece that is sent as one PUT once a line has proved bad.
pub const PIECE_MIN: u64 = 16 * 1024;
/// First piece of a connection, before its speed is known.
pub const PIECE_START: u64 = 4 * 1024 * 1024;
/// Largest piece: what a cut can cost, and what a server syncs at once while it receives the next.
pub const PIECE_MAX: u64 = 64 * 1024 * 1024;
/// A piece is at most what the line carried in this time.
pub const PIECE_TIME: Duration = Duration::from_secs(2);

/// Bytes before the end of the confirmed prefix that are compared before each append, and bytes
/// at the head of the file: what a truncated or rewritten file betrays itself by.
pub const SEAM_TAIL: u64 = 4 * 1024;
/// See [`SEAM_TAIL`].
pub const SEAM_HEAD: u64 = 1024;

/// Longest decoded segment of a path: what Linux filesystems take (`NAME_MAX`).
pub const SEGMENT_BYTES: usize = 255;
/// Longest decoded path, below `PATH_MAX` with its final NUL.
pub const PATH_BYTES: usize = 4095;
/// Most segments of a path: opening is a walk, and nobody's logs lie deeper.
pub const PATH_SEGMENTS: usize = 128;
/// Directory of ours in each datadir; never delivered, never entered by discovery.
pub const PRIVATE_DIR: &str = ".shaftlog";

/// Longest request line: a path of [`PATH_BYTES`] has three times as many when all are encoded.
pub const TARGET_BYTES: usize = 16 * 1024;
/// Longest request head or answer head that either side reads.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Most header lines of a request or an answer.
pub const HEADER_LINES: usize = 100;
/// How long a request's head may take to arrive, unless `idle_timeout` is less.
pub const HEAD_TIME: Duration = Duration::from_secs(30);
/// A body that brings no byte for this long, or nearly none, is over; what came stays as a tail. Less
/// if `idle_timeout` is less.
pub const BODY_STALL: Duration = Duration::from_secs(30);
/// Bytes a second of which a body may live for ever: no line that carries logs is slower.
pub const BODY_RATE: u32 = 512;
/// How much of a refused body is read away so that the answer survives.
pub const DRAIN_BYTES: u64 = 1024 * 1024;
/// How long a HEAD or a confirm waits for a hash before it is answered 503 `hashing`.
pub const HASHING_WAIT: Duration = Duration::from_secs(5);

/// How long a PUT waits, its body unread, for the one that it continues. Then it is told `busy`.
pub const PIPELINE_WAIT: Duration = Duration::from_secs(1);

/// Free bytes below which the server takes no appends (`min_free`).
pub const MIN_FREE: u64 = 256 * 1024 * 1024;
/// The original's port, the server's default (`listen_port`).
pub const LISTEN_PORT: u16 = 10655;
/// How long a connection may lie idle at the server (`idle_timeout`): what Node.js gave the
/// original.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Files the server keeps open with a live hasher.
pub const OPEN_FILES: usize = 256;
/// Page cache of either database; redb's own default is 1 GiB.
pub const INDEX_CACHE: usize = 8 * 1024 * 1024;

/// Persistent connections to each destination (`connections`): the more small files are under way,
/// the more of them share a commit at the server.
pub const CONNECTIONS: usize = 32;
/// Chunks of [`IO_CHUNK`] that the bodies to one destination may have in memory before all others
/// read only a quarter of one at once, and not ahead of their lines. A stalled destination with a long
/// backlog would else fill all that its connections can hold.
pub const CHUNKS_AHEAD: usize = 16;
/// Longest time a connection is kept: names resolve differently later.
pub const CONNECTION_AGE: Duration = Duration::from_secs(600);
/// How long a connection attempt may take.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take after the request's last byte.
pub const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take, on either side.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How often failed handshakes are told of, of which strangers can make any number.
pub const FAILURES_TOLD: Duration = Duration::from_secs(60);
/// How often a client that asks for what is not its own is told of, for each directory.
pub const DENIALS_TOLD: Duration = Duration::from_secs(3600);
/// Most such directories of one client, of which it can make up any number.
pub const DENIED_PATHS: usize = 16;
/// Most such clients.
pub const DENIED_PEERS: usize = 256;
/// How often the files of `tls` are read again to see whether they have changed.
pub const TLS_LOOK: Duration = Duration::from_secs(10);
/// And at most after failed handshakes, of which a stranger can make any number.
pub const TLS_LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Largest file of certificates, keys or revocation lists: a list of a large CA has some MiB.
pub const TLS_FILE_BYTES: usize = 16 * 1024 * 1024;
/// How long before a certificate expires people are warned, once a day.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);
/// See [`EXPIRY_WARNING`].
pub const EXPIRY_REPEAT: Duration = Duration::from_secs(24 * 3600);
/// Period of the heartbeat on each connection.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// First and largest pause after a failure at a destination; the pause is drawn from 0 to it.
pub const BACKOFF_START: Duration = Duration::from_millis(250);
/// See [`BACKOFF_START`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest Retry-After that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// What is shown of the reason that a status line gives.
pub const REASON_CHARS: usize = 200;
/// Files a second that a destination is asked about again after it lost something.
pub const SWEEP_RATE: u32 = 200;
/// Files of one destination whose hashers are kept between appends, a few KiB each.
pub const CURSORS: usize = 256;
/// How often a file in error is asked for again.
pub const ERROR_RETRY: Duration = Duration::from_secs(600);
/// How often a stopped destination is asked again.
pub const STOPPED_RETRY: Duration = Duration::from_secs(3600);

/// The original's defaults of its periods.
pub const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// See [`SCAN_INTERVAL`].
pub const STATUS_INTERVAL: Duration = Duration::from_secs(300);
/// See [`SCAN_INTERVAL`].
pub const PERIODIC_TRIGGER_INTERVAL: Duration = Duration::from_secs(1);
/// Ticks of `periodic_trigger_interval` within which every watched file is looked at once: what
/// `mmap(2)` writes, no notice tells.
pub const ROUND_TICKS: usize = 30;
/// Most files without a watch that are looked at in one such tick; some milliseconds of work.
pub const UNWATCHED_LOOKS: usize = 4096;
/// Files that share the fsync of their directories and one commit when they are found.
pub const ADOPT_BATCH: usize = 256;
/// Most paths that directory notifications tell of before they are worth a whole scan.
pub const MAIL_PATHS: usize = 4096;
/// Most files that cannot be taken in of which the reason is remembered.
pub const KEPT_FAILURES: usize = 4096;
/// Pause between two writes of the client's progress; what a crash loses of it, a HEAD brings back.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a delivered file whose source is gone is kept (`release_after`): a server that was
/// restored from last night's backup, or last week's, can be refilled.
pub const RELEASE_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often files that only our links hold are looked at, at most; a shorter `release_after` makes
/// it more often.
pub const RELEASE_LOOK: Duration = Duration::from_secs(60);
/// How often that is written down how long they have been quiet: what a crash can lose of it.
pub const HOLD_WRITE: Duration = Duration::from_secs(600);
/// Most quiet time that is counted while the client did not run.
pub const RESTART_QUIET: Duration = Duration::from_secs(3600);
/// How long a release waits for the confirmations that it has asked for before it looks again.
pub const RELEASE_CONFIRM: Duration = Duration::from_secs(60);
/// Most links that are released at once: each is a whole file to be read.
pub const RELEASE_BATCH: usize = 64;
/// Time in which every held file is read again (`scrub: {period}`), if the rate allows.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(14 * 24 * 3600);
/// Bytes a second that this reads (`scrub: {rate}`): a spinning disk hardly notices.
pub const SCRUB_RATE: u64 = 8 * 1024 * 1024;
/// The least rate, also of a server's: a period's worth of anything slower is nothing.
pub const SCRUB_RATE_MIN: u64 = 1024;
/// How long the destinations get to say where a file differs that the scrub found changed.
pub const SCRUB_LOCATE: Duration = Duration::from_secs(60);
/// Free bytes below which the client warns (`warn_free`): long before a disk of our days is full.
pub const WARN_FREE: u64 = 1024 * 1024 * 1024;
/// Most volatile ranges of one pattern, the bytes of one, and where the last may begin: they are
/// kept in the database, and headers are what changes.
pub const VOLATILE_RANGES: usize = 16;
/// See [`VOLATILE_RANGES`].
pub const VOLATILE_BYTES: u64 = 1024;
/// See [`VOLATILE_RANGES`].
pub const VOLATILE_END: u64 = 1 << 40;
/// Files of which it is remembered where they differ from a destination's.
pub const SEARCHES: usize = 64;
/// How long `sync` goes on at a destination that makes no progress (`--patience`).
pub const PATIENCE: Duration = Duration::from_secs(60);
/// SIGTERM and SIGINT end a daemon within 10 s; open requests get this much of it.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(5);

/// Newest events that either database keeps.
pub const EVENT_ROWS: u64 = 100_000;
/// An event that repeats within this time of the first is counted on its row.
pub const EVENT_THINNING: Duration = Duration::from_secs(3600);
/// Rows that an inspection reads from one snapshot: few enough to be done before a writer's file
/// grows for it.
pub const INSPECT_ROWS: usize = 4096;

/// What the server inside `sync --to DIR` is called in that directory's catalogue: the same wherever
/// it is moved to.
pub const EMBEDDED_URL: &str = "http://embedded.invalid/";
/// Pause before `verify` asks a busy destination again that does not say when.
pub const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How often `verify` looks again at a file whose row changed while it was read.
pub const VERIFY_AGAIN: usize = 3;

/// Longest configuration file that is read. One with 1,000 patterns has 100 KiB.
pub const CONFIG_BYTES: usize = 1024 * 1024;
/// Most alternatives that the braces of one glob may expand to: each is matched against each path.
pub const GLOB_ALTERNATIVES: usize = 1000;
/// Most alternatives of all patterns and excludes of one configuration, for the same reason.
pub const GLOB_ALTERNATIVES_IN_ALL: usize = 10_000;
/// Memory that one compiled regular expression may take; the ones people write take kilobytes.
pub const REGEX_BYTES: usize = 1024 * 1024;

/// Connections that a server has open at once (`limits: connections`), as far as its descriptors go,
/// half of which are for files, or two for each of `limits: requests`; more wait in the kernel's queue.
pub const SERVER_CONNECTIONS: usize = 16_384;
/// Age from which a server takes no more requests on a connection: a client whose certificate was revoked,
/// or has expired, then has to show it again. Longer than [`CONNECTION_AGE`], so that ours never notice.
pub const SERVER_CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// How long the request that is then being served may still take: a piece has [`PIECE_TIME`] on a good
/// line, but a body at [`BODY_RATE`] could come for days.
pub const SERVER_CONNECTION_GRACE: Duration = Duration::from_secs(600);
/// Of [`SERVER_CONNECTIONS`] and [`SERVER_REQUESTS`] one in so many is kept from any single peer, and
/// one at least; of connections `limits: connections_per_peer` may say otherwise. Whoever takes as many
/// as it can shuts nobody else out.
pub const PEER_RESERVE: usize = 8;
/// Requests about files that a server works on at once (`limits: requests`): far more than disks
/// do at once, and each takes some KiB beside its share of [`BODY_BUDGET`].
pub const SERVER_REQUESTS: usize = 8_192;
/// Bytes that a connection reads at once, and holds while its body waits: hyper's own 400 KiB are
/// 400 MiB with 1,000 clients.
pub const CONNECTION_BUFFER: usize = 128 * 1024;
/// Bytes of bodies that a server has received and not yet written, over all connections.
pub const BODY_BUDGET: usize = 32 * 1024 * 1024;
/// Parts of a body that wait for the task that writes them.
pub const BODY_QUEUE: usize = 4;
/// How long the first bytes of a body may take before its append begins without the rest: small
/// bodies are then written, synced and committed in one go.
pub const BODY_GATHER: Duration = Duration::from_millis(20);
/// A body that brings nothing for this long gives back the thread that writes it.
pub const BODY_PARK: Duration = Duration::from_millis(50);
/// Threads that may block on disks and files at the same time.
pub const BLOCKING_THREADS: usize = 512;
/// And as many more for each connection that a client may have: its turn, the body that it sends,
/// and the piece read meanwhile. A destination that stalls holds them all, and no other may miss them.
pub const CONNECTION_THREADS: usize = 3;
/// Threads that wait for more of their bodies at the same time, of [`BLOCKING_THREADS`]: however many
/// bodies dribble, the rest is free for those that flow.
pub const BODY_SEATS: usize = 64;
/// Files of which long stretches are hashed at the same time, for the same reason; who asks for
/// one more is told to come back.
pub const LONG_HASHES: usize = 32;
/// What is hashed without being counted as long: well under a second of reading.
pub const SHORT_HASH_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of all bodies together after which the room on the disk is looked at again: so far, and by what
/// is just being written, they can go below `min_free`.
pub const ROOM_CHECK: u64 = 8 * 1024 * 1024;
/// A tail up to this long is hashed at once when its hash is asked for by nobody in particular.
pub const TAIL_HASH_BYTES: u64 = 16 * 1024 * 1024;
/// How often history is thinned: its narrowest rule speaks of hours.
pub const THINNING: Duration = Duration::from_secs(3600);
/// Paths in trouble of which a server remembers to have told people; beyond, it repeats itself.
pub const TOLD_PATHS: usize = 4096;
/// How long a commit waits for small appends that are just being made durable: they share it.
pub const COMMIT_WAIT: Duration = Duration::from_millis(1);
/// Changes that are committed together at most.
pub const COMMIT_GROUP: usize = 1024;
/// Rows that a server compares with their files at once after its start.
pub const PASS_ROWS: usize = 256;
/// Rows that it sorts by age for that, newest first: some 3 MiB. The others come after them.
pub const PASS_NEWEST: usize = 16 * 1024;
/// Longest request and longest answer on the control socket.
pub const CONTROL_LINE: u64 = 1024 * 1024;
/// How long a request may take to arrive there, and an answer to leave.
pub const CONTROL_TIME: Duration = Duration::from_secs(5);
/// Commands that ask there at the same time; people do not type faster.
pub const CONTROL_ASKERS: usize = 8;
/// Files that an answer there names; the rest it counts.
pub const SHOWN_PATHS: usize = 1000;
/// Bytes a second that a server's scrub reads (`scrub: {rate}`): 1 TiB takes three days.
pub const SERVER_SCRUB_RATE: u64 = 4 * 1024 * 1024;
/// From the beginning of one of its scrubs to that of the next (`scrub: {period}`).
pub const SERVER_SCRUB_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes after which the scrub writes down how far it is: what a crash has it read again.
pub const SCRUB_NOTE: u64 = 64 * 1024 * 1024;
/// What a file counts for that, beside its bytes: many small ones are work too.
pub const SCRUB_FILE: u64 = SCRUB_NOTE / 256;
/// How often the scrub looks whether its next round is due.
pub const SCRUB_REST: Duration = Duration::from_secs(60);
/// Bytes of the quarantine (`quarantine: {size}`), and how long a copy stays (`keep`).
pub const QUARANTINE_SIZE: u64 = 10 * 1024 * 1024 * 1024;
/// See [`QUARANTINE_SIZE`].
pub const QUARANTINE_KEEP: Duration = Duration::from_secs(90 * 24 * 3600);
/// Copies in it: a client whose tails always differ must not fill a directory with small files.
pub const QUARANTINE_COPIES: usize = 10_000;
/// Rows of copies, those that are gone included, that an index keeps: the newest.
pub const QUARANTINE_ROWS: u64 = 100_000;
/// How long a file has to be quiet before it becomes append-only (`append_only: {after}`): longer than
/// the pauses of a log in use, since setting the flag costs a commit.
pub const APPEND_ONLY_AFTER: Duration = Duration::from_secs(600);
/// How often the files that have been quiet for so long are looked for: each is opened for it.
pub const APPEND_ONLY_WALK: Duration = Duration::from_secs(12 * 3600);
/// Directories that a server remembers to have made durable.
pub const DURABLE_DIRS: usize = 4096;
/// First and largest pause before a failed index is opened again.
pub const REOPEN_START: Duration = Duration::from_millis(100);
/// See [`REOPEN_START`].
pub const REOPEN_MAX: Duration = Duration::from_secs(10);
/// How long an accept loop rests after an error of the listener, such as no free descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that was refused in mid-body is kept so that its answer arrives.
pub const LINGER: Duration = Duration::from_secs(2);
