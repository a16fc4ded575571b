//! Files that lose bytes, and clients that lose their last confirmations with them.

use super::*;
use crate::index::EventKind;

impl World {
    /// A client whose power was cut when `delivered` had arrived of its files `before`, but none of
    /// it was written down; the disk has kept `after`.
    async fn cut(
        server: &TestServer,
        before: &[(&str, &[u8])],
        delivered: usize,
        after: &[(&str, &[u8])],
    ) -> Self {
        let servers = std::slice::from_ref(server);
        server.lock().dead = true;
        let world = Self::new(servers, before);
        let datadir = world.datadir;
        for ship in world.ships {
            ship.stop().await;
        }
        drop(world.catalogue);
        for (name, content) in before {
            let there = model::Server {
                disk: content[..delivered].to_vec(),
                vouched: delivered,
                known: true,
                ..model::Server::default()
            };
            let mut inner = server.lock();
            inner.files.insert(format!("/in/{name}"), there);
        }
        for (name, content) in after {
            fs::write(datadir.path().join(name), content).unwrap();
        }
        server.lock().dead = false;
        let mut world = Self::reopen(datadir, servers);
        world.start(4);
        world
    }

    fn details(&self, kind: EventKind) -> Vec<String> {
        self.catalogue.flush().unwrap();
        let events = self.catalogue.index().events(0, 100).unwrap();
        let found = events.into_iter().filter(|(_, event)| event.kind == kind);
        found.map(|(_, event)| event.detail).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_arrived_before_a_power_cut_is_not_lost() {
    let server = TestServer::new(true);
    let content = b"delivered, and never synced";
    let before = [("emptied", &content[..]), ("shorter", content)];
    let after = [("emptied", &b""[..]), ("shorter", b"delivered")];
    let world = World::cut(&server, &before, content.len(), &after).await;
    for (name, next) in after {
        until("the next generation's arrival", || {
            let there = server.content(&format!("/in/{name}.1"));
            there.is_some_and(|there| there == next)
        })
        .await;
        assert_eq!(server.content(&format!("/in/{name}")).unwrap(), content);
    }
    assert_eq!(world.details(EventKind::Superseded).len(), 2);
    assert_eq!(world.details(EventKind::Lost), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_not_arrived_is_lost_to_the_byte() {
    let server = TestServer::new(true);
    let world = World::cut(&server, &[("log", b"0123456789")], 6, &[("log", b"0123")]).await;
    until("the next generation's arrival", || {
        server
            .content("/in/log.1")
            .is_some_and(|there| there == b"0123")
    })
    .await;
    assert_eq!(
        world.details(EventKind::Lost),
        ["bytes 6 to 10 never reached http://server0/in/"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_behind_what_had_arrived_goes_on_in_the_same_file() {
    let server = TestServer::new(true);
    let world = World::cut(&server, &[("log", b"0123456789")], 3, &[("log", b"01234")]).await;
    world.delivered(0).await;
    world.assert_equal(0, "log");
    assert_eq!(
        world.details(EventKind::Lost),
        ["bytes 3 to 10 never reached http://server0/in/: the file was cut from 10 to 5 bytes"]
    );
}
