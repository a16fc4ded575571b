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
