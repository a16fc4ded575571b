//! Who finds out that a destination works again, and when a file's own trouble is looked at again.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_free_meets_a_destination_again() {
    let server = TestServer::new(true);
    server.lock().held = Some("/in/held");
    let full = (507, Some(Problem::Full));
    server.lock().refuse.insert("/in/line".to_owned(), full);
    // Three of four connections wait for an answer that does not come.
    let big = bytes(100_000);
    let files = [
        ("held1", &big[..]),
        ("held2", &big),
        ("held3", &big),
        ("line", b"1"),
    ];
    let world = World::new(std::slice::from_ref(&server), &files);
    until("the failure", || {
        world.ships[0].status().last_failure.is_some()
    })
    .await;
    server.lock().refuse.clear();
    until("the line", || world.progress(0, "line") == 1).await;
    server.lock().held = None;
    world.delivered(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_could_not_be_read_here_is_tried_again_soon() {
    let server = TestServer::new(true);
    let world = World::new(std::slice::from_ref(&server), &[("log", b"one\n")]);
    world.delivered(0).await;
    let away = world.path("away");
    fs::rename(world.path("log"), &away).unwrap();
    std::os::unix::fs::symlink(&away, world.path("log")).unwrap();
    world.mark("log");
    let errors = || world.ships[0].status().errors;
    until("the error", || !errors().is_empty()).await;
    assert!(matches!(errors()[0].1, FileError::Unreadable(_)));
    fs::rename(&away, world.path("log")).unwrap();
    world.append("log", b"two\n");
    until("the second line", || world.progress(0, "log") == 8).await;
    until("no error any more", || errors().is_empty()).await;
}
