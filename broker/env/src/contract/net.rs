//! What connections promise: order, ends, back-pressure, and file ranges that keep their bytes.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    Case, World,
    disk::{file_with, pattern},
};
use crate::{Connection, Env, FileRange, JoinHandle, Listener, Op, Piece, ReadHalf, spawn};

pub(super) const CASES: &[Case] = &[
    Case { name: "bytes_arrive_in_order", run: |world| Box::pin(bytes_arrive_in_order(world)) },
    Case {
        name: "a_read_appends_up_to_its_limit",
        run: |world| Box::pin(a_read_appends_up_to_its_limit(world)),
    },
    Case { name: "a_name_stands_for_addresses", run: |world| Box::pin(a_name_stands_for_addresses(world)) },
    Case { name: "connect_is_refused", run: |world| Box::pin(connect_is_refused(world)) },
    Case { name: "connect_gives_up_at_its_deadline", run: |world| Box::pin(connect_deadline(world)) },
    Case { name: "an_address_has_one_listener", run: |world| Box::pin(an_address_has_one_listener(world)) },
    Case {
        name: "an_address_can_be_taken_again",
        run: |world| Box::pin(an_address_can_be_taken_again(world)),
    },
    Case { name: "shutdown_ends_one_direction", run: |world| Box::pin(shutdown_ends_one_direction(world)) },
    Case {
        name: "the_end_is_noticed_behind_a_read_that_left_room",
        run: |world| Box::pin(the_end_is_noticed_behind_a_read_that_left_room(world)),
    },
    Case { name: "dropping_both_halves_closes", run: |world| Box::pin(dropping_both_halves_closes(world)) },
    Case {
        name: "writing_to_who_has_left_fails",
        run: |world| Box::pin(writing_to_who_has_left_fails(world)),
    },
    Case { name: "who_reads_nothing_holds_the_writer", run: |world| Box::pin(back_pressure(world)) },
    Case { name: "mixed_pieces_arrive_as_they_are", run: |world| Box::pin(mixed_pieces(world)) },
    Case { name: "a_range_outlives_its_name", run: |world| Box::pin(a_range_outlives_its_name(world)) },
    Case { name: "a_range_beyond_the_end_fails", run: |world| Box::pin(a_range_beyond_the_end_fails(world)) },
    Case {
        name: "a_cancelled_read_loses_nothing",
        run: |world| Box::pin(a_cancelled_read_loses_nothing(world)),
    },
    Case { name: "many_connections_do_not_mix", run: |world| Box::pin(many_connections_do_not_mix(world)) },
];

const PATIENCE: Duration = Duration::from_secs(30);

async fn listen(world: &World) -> (Box<dyn Listener>, String) {
    let listener = world.env.listen(&format!("{}:0", world.host)).await.expect("listens");
    let port = listener.local_address().port();
    assert_ne!(port, 0, "the system chose a port");
    (listener, format!("{}:{port}", world.host))
}

async fn connect(env: &dyn Env, address: &str) -> Connection {
    env.connect(address, env.now() + PATIENCE).await.expect("connects")
}

/// A connection and its other end.
async fn pair(world: &World) -> (Connection, Connection) {
    let (mut listener, address) = listen(world).await;
    let env = world.env.clone();
    let client = spawn(&*world.env, "client", async move { connect(&*env, &address).await });
    let server = listener.accept().await.expect("accepts");
    (client.await.expect("connects"), server)
}

async fn send(connection: &mut Connection, bytes: impl Into<Bytes>) {
    connection.writer.write(vec![Piece::Bytes(bytes.into())]).await.expect("writes");
}

async fn receive(reader: &mut Box<dyn ReadHalf>, length: usize) -> Bytes {
    let mut buffer = BytesMut::new();
    while buffer.len() < length {
        let missing = length - buffer.len();
        let count = reader.read(&mut buffer, missing).await.expect("reads");
        assert_ne!(count, 0, "the connection ended after {} of {length} bytes", buffer.len());
    }
    buffer.freeze()
}

/// Reads until the other end says that it is done.
fn drain(env: &dyn Env, mut reader: Box<dyn ReadHalf>) -> JoinHandle<std::io::Result<Bytes>> {
    spawn(env, "drain", async move {
        let mut buffer = BytesMut::new();
        while reader.read(&mut buffer, 1 << 20).await? > 0 {}
        Ok(buffer.freeze())
    })
}

async fn bytes_arrive_in_order(world: World) {
    let (mut client, mut server) = pair(&world).await;
    let sent = pattern(3_000_000, 10);
    let (mut writer, expected) = (client.writer, sent.clone());
    let task = spawn(&*world.env, "writer", async move {
        for chunk in [0..1, 1..1_000, 1_000..70_000, 70_000..3_000_000] {
            writer.write(vec![Piece::Bytes(sent.slice(chunk))]).await.expect("writes");
        }
        writer
    });
    assert!(receive(&mut server.reader, expected.len()).await == expected, "all bytes, in order");
    let _writer = task.await.expect("writes");
    send(&mut server, "and back").await;
    assert_eq!(receive(&mut client.reader, 8).await, "and back");
}

async fn a_read_appends_up_to_its_limit(world: World) {
    let (mut client, mut server) = pair(&world).await;
    send(&mut client, "0123456789").await;
    let mut buffer = BytesMut::from(&b"head "[..]);
    let mut read = 0;
    while read < 10 {
        let count = server.reader.read(&mut buffer, 3).await.expect("reads");
        assert!((1..=3).contains(&count), "between one byte and the limit, not {count}");
        read += count;
        assert_eq!(buffer.len(), 5 + read, "a read says how many bytes it appended");
    }
    assert_eq!(buffer, "head 0123456789");
}

async fn a_name_stands_for_addresses(world: World) {
    let (mut listener, address) = listen(&world).await;
    let env = world.env.clone();
    let client = spawn(&*world.env, "client", async move { connect(&*env, &address).await });
    let peer = listener.accept().await.expect("accepts").peer.ip();
    let _client = client.await.expect("connects");
    let named = world.env.resolve(&world.host).await.expect("its own name");
    assert!(
        named.contains(&peer),
        "who comes from {} has one of its addresses: {peer}, {named:?}",
        world.host
    );
    let literal: std::net::IpAddr = "10.1.2.3".parse().expect("an address");
    assert_eq!(world.env.resolve("10.1.2.3").await.expect("an address"), [literal]);
    assert!(world.env.resolve("nobody-has-this-name.invalid").await.is_err());
}

async fn connect_is_refused(world: World) {
    let (listener, address) = listen(&world).await;
    drop(listener);
    let deadline = world.env.now() + PATIENCE;
    let error = world.env.connect(&address, deadline).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

async fn connect_deadline(world: World) {
    let start = world.env.now();
    let deadline = start + Duration::from_millis(300);
    let error = world.env.connect(&world.silent, deadline).await.expect_err("nobody answers");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let waited = world.env.now().since(start);
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(20), "waited {waited:?}");
}

async fn an_address_has_one_listener(world: World) {
    let (_listener, address) = listen(&world).await;
    let second = world.env.listen(&address).await.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(second, Err(ErrorKind::AddrInUse));
}

async fn an_address_can_be_taken_again(world: World) {
    let (mut listener, address) = listen(&world).await;
    let env = world.env.clone();
    let client = {
        let address = address.clone();
        spawn(&*world.env, "client", async move { connect(&*env, &address).await })
    };
    let server = listener.accept().await.expect("accepts");
    let mut client = client.await.expect("connects");
    // The end that closes first is the one that has to remember the connection for a while.
    drop(server);
    drop(listener);
    let mut buffer = BytesMut::new();
    let _ = client.reader.read(&mut buffer, 1).await;
    drop(client);
    world.env.listen(&address).await.expect("a restart takes the address of its last run");
}

async fn shutdown_ends_one_direction(world: World) {
    let (mut client, mut server) = pair(&world).await;
    send(&mut client, "last words").await;
    client.writer.shutdown().await.expect("shuts down");
    assert_eq!(receive(&mut server.reader, 10).await, "last words", "what was sent before arrives");
    let mut buffer = BytesMut::new();
    for _ in 0..2 {
        assert_eq!(server.reader.read(&mut buffer, 10).await.expect("reads"), 0, "then the end, for good");
    }
    send(&mut server, "still here").await;
    assert_eq!(receive(&mut client.reader, 10).await, "still here", "the other direction goes on");
    let error =
        client.writer.write(vec![Piece::Bytes("more".into())]).await.expect_err("it said it was done");
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::NotConnected), "{error}");
}

async fn the_end_is_noticed_behind_a_read_that_left_room(world: World) {
    let (mut client, mut server) = pair(&world).await;
    send(&mut client, "one").await;
    client.writer.shutdown().await.expect("shuts down");
    // Both are there before the first read.
    world.env.sleep(Duration::from_millis(100)).await;
    let mut buffer = BytesMut::new();
    let end = async { while server.reader.read(&mut buffer, 100).await.expect("reads") > 0 {} };
    world.env.timeout(PATIENCE, end).await.expect("does not wait");
    assert_eq!(buffer, "one");
    // What comes after a read that left room wakes the next one.
    let reading = async {
        let mut buffer = BytesMut::new();
        while buffer.len() < 9 {
            let read = world.env.timeout(PATIENCE, client.reader.read(&mut buffer, 100)).await;
            assert!(read.expect("woken").expect("reads") > 0);
        }
    };
    let sending = async {
        for text in ["one", "two", "six"] {
            server.writer.write(vec![Piece::Bytes(text.into())]).await.expect("writes");
            world.env.sleep(Duration::from_millis(20)).await;
        }
    };
    futures_util::future::join(reading, sending).await;
}

async fn dropping_both_halves_closes(world: World) {
    let (client, mut server) = pair(&world).await;
    let Connection { mut reader, writer, .. } = client;
    drop(writer);
    let mut buffer = BytesMut::new();
    let half_open = server.reader.read(&mut buffer, 10);
    let ended = world.env.timeout(Duration::from_millis(150), half_open).await;
    assert!(ended.is_none(), "dropping one half tells the other end nothing: {ended:?}");
    send(&mut server, "hello").await;
    assert_eq!(receive(&mut reader, 5).await, "hello");
    drop(reader);
    assert_eq!(server.reader.read(&mut buffer, 10).await.expect("reads"), 0, "dropping both closes");
}

async fn writing_to_who_has_left_fails(world: World) {
    let (client, mut server) = pair(&world).await;
    send(&mut server, "never read").await;
    drop(client);
    let start = world.env.now();
    let error = loop {
        match server.writer.write(vec![Piece::Bytes(pattern(10_000, 11))]).await {
            Ok(()) => world.env.sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
        assert!(world.env.now().since(start) < PATIENCE, "a peer that resets is noticed");
    };
    let expected = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    assert!(expected.contains(&error.kind()), "{error}");
}

async fn back_pressure(world: World) {
    const LENGTH: usize = 64 << 20;
    let (client, mut server) = pair(&world).await;
    let (finished, mut watch) = tokio::sync::oneshot::channel();
    let mut writer = client.writer;
    let chunk = pattern(1 << 20, 12);
    let sent = chunk.clone();
    let task = spawn(&*world.env, "writer", async move {
        writer.write((0..LENGTH / sent.len()).map(|_| Piece::Bytes(sent.clone())).collect()).await?;
        let _ = finished.send(());
        writer.shutdown().await.map(|()| writer)
    });
    world.env.sleep(Duration::from_millis(400)).await;
    assert!(watch.try_recv().is_err(), "{LENGTH} bytes do not fit into buffers: the writer has to wait");
    for index in 0..LENGTH / chunk.len() {
        assert!(receive(&mut server.reader, chunk.len()).await == chunk, "MiB {index} arrives unchanged");
    }
    let mut buffer = BytesMut::new();
    assert_eq!(server.reader.read(&mut buffer, 1).await.expect("reads"), 0);
    task.await.expect("runs").expect("writes");
}

fn range(file: &Arc<dyn crate::File>, offset: u64, length: u64) -> Piece {
    Piece::File(FileRange { file: file.clone(), offset, length })
}

async fn mixed_pieces(world: World) {
    let whole = pattern(6_000_000, 13);
    let file = file_with(&*world.env, world.directory.join("file"), whole.clone()).await;
    let other = file_with(&*world.env, world.directory.join("other"), pattern(5_000, 14)).await;
    let mut pieces =
        vec![Piece::Bytes("header ".into()), range(&file, 0, 6_000_000), Piece::Bytes(Bytes::new())];
    let mut expected = BytesMut::from(&b"header "[..]);
    expected.extend_from_slice(&whole);
    for (offset, length) in [(0, 0), (1, 1), (4_095, 2), (100_000, 32_768), (7, 32_769), (5_999_000, 1_000)] {
        pieces.push(range(&file, offset as u64, length as u64));
        pieces.push(Piece::Bytes(format!("[{length}]").into()));
        pieces.push(range(&other, 17, 4_000));
        expected.extend_from_slice(&whole[offset..offset + length]);
        expected.extend_from_slice(format!("[{length}]").as_bytes());
        expected.extend_from_slice(&pattern(5_000, 14)[17..4_017]);
    }
    pieces.extend((0..300).map(|index| range(&file, index * 10_000, 2_000)));
    (0..300).for_each(|index| expected.extend_from_slice(&whole[index * 10_000..index * 10_000 + 2_000]));
    pieces.push(range(&file, 123_456, 3_333_333));
    expected.extend_from_slice(&whole[123_456..123_456 + 3_333_333]);
    assert_eq!(pieces.iter().map(Piece::len).sum::<u64>(), expected.len() as u64);

    let (mut client, server) = pair(&world).await;
    let received = drain(&*world.env, server.reader);
    client.writer.write(pieces).await.expect("writes");
    client.writer.shutdown().await.expect("shuts down");
    let received = received.await.expect("runs").expect("reads");
    assert_eq!(received.len(), expected.len());
    assert!(received == expected, "byte for byte");
}

async fn a_range_outlives_its_name(world: World) {
    let (old_path, new_path) = (world.directory.join("00.log"), world.directory.join("replaced.log"));
    let contents = pattern(12_000_000, 15);
    let file = file_with(&*world.env, old_path.clone(), contents.clone()).await;
    file_with(&*world.env, new_path.clone(), "cut".into()).await;
    let (mut client, mut server) = pair(&world).await;
    let task = spawn(&*world.env, "writer", async move {
        let written = client.writer.write(vec![range(&file, 0, 12_000_000), range(&file, 5, 1_000)]).await;
        written.map(|()| client)
    });
    assert!(receive(&mut server.reader, 1_000).await == contents[..1_000]);
    // Truncation under a reader: a shorter file takes the name, the handle keeps the bytes.
    world
        .env
        .disk()
        .submit(vec![Op::Rename { from: new_path, to: old_path.clone() }])
        .await
        .expect("renames");
    world.env.disk().submit(vec![Op::RemoveFile { path: old_path }]).await.expect("removes");
    assert!(receive(&mut server.reader, 11_999_000).await == contents[1_000..], "the range keeps its bytes");
    assert!(receive(&mut server.reader, 1_000).await == contents[5..1_005]);
    task.await.expect("runs").expect("writes");
}

async fn a_range_beyond_the_end_fails(world: World) {
    for (size, offset, length) in [(1_000, 500, 501), (100_000, 0, 2_000_000)] {
        let name = world.directory.join(format!("{size}"));
        let file = file_with(&*world.env, name, pattern(size, 16)).await;
        let (mut client, server) = pair(&world).await;
        let _received = drain(&*world.env, server.reader);
        let error = client.writer.write(vec![range(&file, offset, length)]).await.expect_err("not that many");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    }
}

async fn a_cancelled_read_loses_nothing(world: World) {
    let (mut client, mut server) = pair(&world).await;
    let sent = pattern(400_000, 17);
    let (env, expected) = (world.env.clone(), sent.clone());
    let task = spawn(&*world.env, "writer", async move {
        for chunk in 0..40 {
            send(&mut client, sent.slice(chunk * 10_000..(chunk + 1) * 10_000)).await;
            env.sleep(Duration::from_millis(3)).await;
        }
        client
    });
    let mut buffer = BytesMut::new();
    let mut cancelled = 0;
    while buffer.len() < expected.len() {
        let read = server.reader.read(&mut buffer, 7_000);
        match world.env.timeout(Duration::from_millis(1), read).await {
            Some(count) => assert_ne!(count.expect("reads"), 0),
            None => cancelled += 1,
        }
    }
    assert!(buffer == expected, "after {cancelled} cancelled reads all bytes are there, once and in order");
    assert!(cancelled > 0, "some reads were cancelled");
    task.await.expect("writes");
}

async fn many_connections_do_not_mix(world: World) {
    let (mut listener, address) = listen(&world).await;
    let env = world.env.clone();
    let server = spawn(&*world.env, "server", async move {
        for _ in 0..50 {
            let mut connection = listener.accept().await.expect("accepts");
            let echo = async move {
                let request = receive(&mut connection.reader, 1_000).await;
                send(&mut connection, request).await;
            };
            let _ = spawn(&*env, "echo", echo).detach();
        }
    });
    let clients: Vec<_> = (0..50)
        .map(|index| {
            let (env, address) = (world.env.clone(), address.clone());
            spawn(&*world.env, "client", async move {
                let mut connection = connect(&*env, &address).await;
                send(&mut connection, pattern(1_000, index)).await;
                receive(&mut connection.reader, 1_000).await == pattern(1_000, index)
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await, Ok(true), "each gets its own answer");
    }
    assert_eq!(server.await, Ok(()));
}
