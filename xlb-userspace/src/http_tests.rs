//! Facts about the servers, over loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

use super::*;

#[test]
fn every_method_and_path_is_answered_by_the_function() {
    let (_servers, _serving, address) = served();
    for (request, expected) in [
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "you asked for /healthz"),
        ("POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "you asked for /a/b"),
        ("PURGE / HTTP/1.0\r\n\r\n", "you asked for /"),
    ] {
        let answer = ask(address, request);
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 418 "), "{answer}");
        assert!(answer.ends_with(expected), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("x-content-type-options: nosniff"), "{answer}");
    }
}

#[test]
fn those_who_say_nothing_do_not_keep_others_from_an_answer() {
    let (_servers, _serving, address) = served();
    let silent: Vec<TcpStream> =
        (0..CONNECTIONS_MAX + 8).map(|_| TcpStream::connect(address).expect("connecting")).collect();
    let begun = Instant::now();
    assert!(ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").contains("you asked for /"));
    assert!(begun.elapsed() < HEAD_LIMIT);
    drop(silent);
}

#[test]
fn a_listener_that_is_not_served_any_longer_is_closed() {
    let (_servers, serving, address) = served();
    drop(serving);
    let begun = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(5), "still open");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_two_families_listen_at_one_port_side_by_side() {
    let four = listen_at((Ipv4Addr::LOCALHOST, 0).into()).expect("listening");
    let port = four.local_addr().expect("an address").port();
    let taken = listen_at((Ipv4Addr::LOCALHOST, port).into()).expect_err("taken");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    match listen_at((Ipv6Addr::UNSPECIFIED, port).into()) {
        Ok(_) => {}
        Err(error) => assert!(is_family_absent(&error, (Ipv6Addr::UNSPECIFIED, port).into()), "{error}"),
    }
}

fn served() -> (Servers, Serving, SocketAddr) {
    let servers = Servers::start().expect("starting");
    let listener = listen_at((Ipv4Addr::LOCALHOST, 0).into()).expect("listening");
    let address = listener.local_addr().expect("an address");
    let respond: Respond =
        Arc::new(|asked| Answer { status: 418, headers: Vec::new(), body: format!("you asked for {}", asked.path) });
    let serving = servers.serve(listener, respond);
    (servers, serving, address)
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connecting");
    stream.write_all(request.as_bytes()).expect("asking");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reading");
    answer
}
