//! Limits as clients meet them: connections in all and by address, also changed at run time; idle connections; peers
//! who send slowly and hold memory meanwhile.
#![allow(clippy::disallowed_methods, reason = "a test works with real sockets")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{
    Broker, Client, Options, Scratch,
    client::{self, text},
};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    create_topics_request::CreatableTopic,
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};
use socket2::{Domain, Socket, Type};

/// A connection from another address of this machine.
fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of the loopback");
    socket.connect(&to.into()).expect("connects");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

fn answers(client: &mut Client) -> bool {
    client.call(&ApiVersionsRequest::default(), 0).is_ok()
}

/// Whether the broker closes the connection within `patience`.
fn is_closed(mut stream: &TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).expect("a TCP socket");
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn alter(client: &mut Client, key: &str, value: &str) {
    let config = AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(text(""))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(&request, 1).expect("an answer");
    assert_eq!(response.responses[0].error_code, 0, "{:?}", response.responses[0]);
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let scratch = Scratch::new("per-ip");
    let options = Options::default()
        .set("max.connections.per.ip", 3)
        .set("max.connections.per.ip.overrides", "127.0.0.3:1");
    let broker = Broker::start(scratch.path(), options);
    // The connection that waited for the start is gone soon.
    thread::sleep(Duration::from_millis(200));
    let mut clients: Vec<Client> = (0..3).map(|_| broker.connect()).collect();
    assert!(clients.iter_mut().all(answers));
    assert!(is_closed(&TcpStream::connect(broker.address()).expect("connects"), Duration::from_secs(5)));
    let mut other = Client::from_stream(connect_from([127, 0, 0, 2], broker.address()));
    assert!(answers(&mut other), "another address is not concerned");
    let mut own = Client::from_stream(connect_from([127, 0, 0, 3], broker.address()));
    assert!(answers(&mut own));
    assert!(
        is_closed(&connect_from([127, 0, 0, 3], broker.address()), Duration::from_secs(5)),
        "its override"
    );
    alter(&mut clients[0], "max.connections.per.ip", "4");
    let mut fourth = broker.connect();
    assert!(answers(&mut fourth), "the new limit holds at once");
    drop(fourth);
    thread::sleep(Duration::from_millis(200));
    assert!(answers(&mut broker.connect()), "a place that was given back");
    assert!(broker.log().contains("raise max.connections.per.ip"), "the log says what to do");
}

#[test]
fn above_max_connections_one_waits_until_another_goes() {
    let scratch = Scratch::new("max-connections");
    let broker = Broker::start(scratch.path(), Options::default().set("max.connections", 2));
    thread::sleep(Duration::from_millis(200));
    let mut clients: Vec<Client> = (0..2).map(|_| broker.connect()).collect();
    assert!(clients.iter_mut().all(answers));
    let mut third = broker.connect();
    third.stream().set_read_timeout(Some(Duration::from_millis(300))).expect("a TCP socket");
    let correlation = third.send(&ApiVersionsRequest::default(), 0).expect("the kernel takes it");
    assert!(third.receive_frame().is_err(), "nobody serves it");
    third.stream().set_read_timeout(Some(Duration::from_secs(10))).expect("a TCP socket");
    clients.pop();
    let (answered, _) = third.receive::<ApiVersionsRequest>(0).expect("it is served now");
    assert_eq!(answered, correlation);
}

#[test]
fn an_idle_connection_is_closed_and_an_active_one_is_not() {
    let scratch = Scratch::new("idle");
    let broker = Broker::start(scratch.path(), Options::default().set("connections.max.idle.ms", 1500));
    let (idle, mut active) = (broker.connect(), broker.connect());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(answers(&mut active), "after {:?}", begun.elapsed());
        thread::sleep(Duration::from_millis(400));
    }
    assert!(is_closed(idle.stream(), Duration::from_secs(3)));
}

#[test]
fn who_announces_much_and_stalls_does_not_hold_back_its_address() {
    let scratch = Scratch::new("announcers");
    let broker = Broker::start(scratch.path(), Options::default());
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]).expect("a topic");
    let batch = client::batch(&[vec![7u8; 200_000]]);
    for announcers in [3, 20] {
        let stalled: Vec<TcpStream> = (0..announcers)
            .map(|_| {
                let mut stream = connect_from([127, 0, 0, 1], broker.address());
                stream.write_all(&90_000_000i32.to_be_bytes()).expect("writes");
                stream.write_all(&[0; 2000]).expect("writes");
                stream
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        for _ in 0..5 {
            let begun = Instant::now();
            client.produce("t", 0, batch.clone()).expect("an acknowledgement");
            assert!(begun.elapsed() < Duration::from_secs(1), "{announcers}: it took {:?}", begun.elapsed());
        }
        assert!(stalled.iter().all(|stream| !is_closed(stream, Duration::from_millis(1))), "nobody minds");
    }
}

#[test]
fn an_address_with_many_large_answers_outstanding_gets_all_of_them() {
    const TOPICS: usize = 300;
    const ASKERS: usize = 12;
    let scratch = Scratch::new("large-answers");
    // Room for a few of the answers.
    let options =
        Options::default().set("socket.request.max.bytes", 1 << 20).set("queued.max.request.bytes", 16 << 20);
    let broker = Broker::start(scratch.path(), options);
    let names: Vec<String> = (0..TOPICS).map(|index| format!("topic-{index}")).collect();
    let topic = |name: &String| {
        CreatableTopic::default()
            .with_name(client::name(name))
            .with_num_partitions(1)
            .with_replication_factor(1)
    };
    let request =
        CreateTopicsRequest::default().with_topics(names.iter().map(topic).collect()).with_timeout_ms(30_000);
    let mut client = broker.connect();
    let created = client.call(&request, 5).expect("an answer");
    assert!(created.topics.iter().all(|topic| topic.error_code == 0));
    let resource = |name: &String| {
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    let request = DescribeConfigsRequest::default()
        .with_resources(names.iter().map(resource).collect())
        .with_include_documentation(true);
    client.send(&request, 3).expect("writes");
    let length = client.receive_frame().expect("an answer").len();
    assert!(length > 1 << 20, "{length} bytes are not many");
    let mut askers: Vec<Client> = (0..ASKERS)
        .map(|_| {
            let mut asker = broker.connect();
            asker.stream().set_read_timeout(Some(Duration::from_secs(60))).expect("a TCP socket");
            // More than the sockets hold.
            (0..8).for_each(|_| _ = asker.send(&request, 3).expect("writes"));
            asker
        })
        .collect();
    // Shorter than what a peer that reads nothing is given when others wait.
    thread::sleep(Duration::from_secs(2));
    thread::scope(|scope| {
        for asker in &mut askers {
            scope.spawn(move || {
                for number in 0..8 {
                    let answer =
                        asker.receive_frame().unwrap_or_else(|error| panic!("answer {number}: {error}"));
                    assert_eq!(answer.len(), length);
                }
            });
        }
    });
    assert!(!broker.log().contains("closing"), "nobody was disconnected");
}

#[test]
fn who_sends_slowly_does_not_keep_others_from_sending() {
    let scratch = Scratch::new("slow-senders");
    // Room for three large requests.
    let options =
        Options::default().set("socket.request.max.bytes", 1 << 20).set("queued.max.request.bytes", 4 << 20);
    let broker = Broker::start(scratch.path(), options);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[("max.message.bytes", "2000000")]).expect("a topic");
    let slow: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = connect_from([127, 0, 0, 9], broker.address());
            stream.write_all(&(1_000_000i32).to_be_bytes()).expect("writes");
            stream.write_all(&[0; 2000]).expect("writes");
            stream
        })
        .collect();
    let dribble = thread::spawn(move || {
        let begun = Instant::now();
        let mut slow = slow;
        while begun.elapsed() < Duration::from_secs(20) && !slow.is_empty() {
            slow.retain_mut(|stream| stream.write_all(&[0; 10]).is_ok());
            thread::sleep(Duration::from_millis(100));
        }
        slow.len()
    });
    thread::sleep(Duration::from_millis(500));
    let batch = client::batch(&[vec![7u8; 900_000]]);
    for _ in 0..5 {
        let begun = Instant::now();
        client.produce("t", 0, batch.clone()).expect("an acknowledgement");
        assert!(begun.elapsed() < Duration::from_secs(3), "it waited for others: {:?}", begun.elapsed());
    }
    // Those who hold memory that the rest of them wait for are cut off, one after the other.
    assert!(dribble.join().expect("runs") < 16, "nobody dribbles for ever");
}

#[test]
fn who_trickles_does_not_keep_others_from_sending() {
    let defaults = Options::default();
    // Room for two such peers beside the reserves: the third draws on one.
    let narrow =
        Options::default().set("socket.request.max.bytes", 8 << 20).set("queued.max.request.bytes", 20 << 20);
    let cases = [(defaults, 100 << 20, 900_000, false), (narrow, 8 << 20, 1_900_000, true)];
    for (options, announced, sent, are_cut) in cases {
        let patience = Duration::from_secs(if are_cut { 10 } else { 3 });
        let scratch = Scratch::new("tricklers");
        let broker = Broker::start(scratch.path(), options);
        let mut client = broker.connect();
        client.create_topic("t", 1, &[("max.message.bytes", "4000000")]).expect("a topic");
        let mut slow: Vec<TcpStream> = (0..3)
            .map(|_| {
                let mut stream = connect_from([127, 0, 0, 9], broker.address());
                stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a TCP socket");
                stream.write_all(&i32::to_be_bytes(announced)).expect("writes");
                let _ = stream.write_all(&vec![0; sent]);
                stream
            })
            .collect();
        let trickle = thread::spawn(move || {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(12) && !slow.is_empty() {
                slow.retain_mut(|stream| stream.write_all(&[0]).is_ok());
                thread::sleep(Duration::from_millis(500));
            }
            slow.len()
        });
        thread::sleep(Duration::from_millis(500));
        // More than the small reserve lends: a smaller request waits for nobody, and then nobody is cut off.
        let size = if are_cut { 2_000_000 } else { 100_000 };
        let batch = client::batch(&[vec![7u8; size]]);
        for _ in 0..3 {
            let begun = Instant::now();
            client.produce("t", 0, batch.clone()).expect("an acknowledgement");
            assert!(begun.elapsed() < patience, "{announced}: it took {:?}", begun.elapsed());
        }
        let left = trickle.join().expect("runs");
        let told = broker.log().contains("while others wait for the memory that it holds");
        // Who is left is one for whose memory nobody waits any more.
        let as_expected = if are_cut { left < 3 && told } else { left == 3 && !told };
        assert!(as_expected, "{announced}: {left} are left, and that was told: {told}");
    }
}
