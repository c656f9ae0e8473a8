use super::*;
use proptest::prelude::*;

fn client(client: &str, local: &str) -> Announced {
    Announced::Client { client: client.parse().expect("an address"), local: local.parse().expect("an address") }
}

fn whole(bytes: &[u8]) -> Announced {
    let (announced, len) = parse(bytes).expect("a header").expect("a whole one");
    assert_eq!(len, bytes.len());
    announced
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &len, rest].concat()
}

fn why(bytes: &[u8]) -> &'static str {
    parse(bytes).expect_err(&String::from_utf8_lossy(bytes)).0
}

#[test]
fn a_line_of_version_1_names_the_client() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";
    assert_eq!(whole(line), client("192.0.2.7:51234", "198.51.100.1:443"));
    let line = b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n";
    assert_eq!(whole(line), client("[2001:db8::7]:0", "[::1]:65535"));
    let longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN \xff\0 whatever\r\n", longest] {
        assert_eq!(whole(line), Announced::Unknown);
    }
}

#[test]
fn a_line_of_version_1_has_one_spelling() {
    for line in [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP4\t192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
        "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1\n2\r\n",
        "PROXY UNKNOWN \n\r\n",
        "PROXY UNKNOWN \r \r\n",
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{line:?} is taken");
    }
}

#[test]
fn a_line_of_version_1_ends_within_107_bytes() {
    let line = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16)).into_bytes();
    assert_eq!(whole(&line(107)), Announced::Unknown);
    assert_eq!(why(&line(108)), V1_TOO_LONG.0);
    assert_eq!(parse(&line(108)[..106]), Ok(None));
    assert_eq!(why(&line(108)[..107]), V1_TOO_LONG.0);
    assert_eq!(why(&line(200)[..150]), V1_TOO_LONG.0);
}

#[test]
fn what_can_be_no_header_is_known_at_its_first_byte_that_differs() {
    for (bytes, whole) in [(&b"PUT"[..], 2), (b"GET", 1), (b"\x16\x03", 1), (b"PROXX", 5), (b"\r\n\r\n\r", 5)] {
        assert_eq!(why(&bytes[..whole]), NO_HEADER.0);
        assert!(parse(&bytes[..whole - 1]).is_ok_and(|found| found.is_none()), "{bytes:?}");
    }
}

#[test]
fn a_header_of_version_2_names_the_client() {
    let inet = [192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 0x01, 0xbb];
    for transport in [STREAM, DATAGRAM] {
        let header = v2(0x21, INET | transport, &inet);
        assert_eq!(whole(&header), client("192.0.2.7:51234", "198.51.100.1:443"));
    }
    let mut inet6 = [0; 36];
    inet6[15] = 1;
    inet6[31] = 2;
    inet6[33] = 80;
    assert_eq!(whole(&v2(0x21, 0x21, &inet6)), client("[::1]:80", "[::2]:0"));
}

#[test]
fn senders_that_speak_for_themselves_and_clients_without_an_address_are_told_apart() {
    assert_eq!(whole(&v2(0x20, 0, &[])), Announced::Sender);
    // Whatever a LOCAL header holds is not looked at.
    assert_eq!(whole(&v2(0x20, 0x11, &[1, 2, 3])), Announced::Sender);
    assert_eq!(whole(&v2(0x20, 0xff, &[3, 0, 4, 0, 0, 0, 0])), Announced::Sender);
    assert_eq!(whole(&v2(0x21, 0, &[])), Announced::Unknown);
    assert_eq!(whole(&v2(0x21, 0x31, &[b'/'; 216])), Announced::Unknown);
}

#[test]
fn a_header_of_version_2_is_refused_for_what_it_does_not_define() {
    for (command, family) in
        [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x21, 0x10), (0x21, 0x13), (0x21, 0x01), (0x21, 0x41)]
    {
        assert!(parse(&v2(command, family, &[0; 216])).is_err(), "{command:x} {family:x} is taken");
    }
    assert!(parse(&v2(0x21, 0x11, &[0; 11])).is_err());
    assert!(parse(&v2(0x21, 0x21, &[0; 35])).is_err());
    assert!(parse(&v2(0x21, 0x31, &[0; 215])).is_err());
    let mut long = v2(0x21, 0x11, &[0; 12]);
    long[14..16].copy_from_slice(&2049_u16.to_be_bytes());
    assert!(why(&long[..16]).contains("2 KiB"), "known before the rest comes");
}

#[test]
fn extensions_are_skipped_and_a_checksum_is_checked() {
    let mut rest = vec![192, 0, 2, 7, 198, 51, 100, 1, 0, 1, 0, 2];
    rest.extend_from_slice(b"\x02\0\x0bexample.com\xea\0\x01\x01\x04\0\0");
    assert_eq!(whole(&v2(0x21, 0x11, &rest)), client("192.0.2.7:1", "198.51.100.1:2"));
    for cut in [1, 2, 4] {
        assert_eq!(why(&v2(0x21, 0x11, &rest[..12 + cut])), EXTENSION.0);
    }
    let at = V2_FIXED + rest.len() + 3;
    rest.extend_from_slice(b"\x03\0\x04\0\0\0\0\x05\0\x02id");
    let mut header = v2(0x21, 0x11, &rest);
    assert_eq!(why(&header), WRONG_CHECKSUM.0);
    let sum = crc32c(&[&header]);
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(whole(&header), client("192.0.2.7:1", "198.51.100.1:2"));
    for bit in 0..8 {
        let mut flipped = header.clone();
        flipped[17] ^= 1 << bit;
        assert_eq!(why(&flipped), WRONG_CHECKSUM.0);
    }
    assert_eq!(why(&v2(0x21, 0, b"\x03\0\x03\0\0\0")), WRONG_CHECKSUM.0);
}

#[test]
fn the_checksum_is_crc32c() {
    // The check value that the catalogue of parametrised CRC algorithms gives for CRC-32/ISCSI.
    assert_eq!(crc32c(&[b"12345", b"6789"]), 0xe306_9283);
}

#[test]
fn addresses_of_two_families_are_announced_as_ipv6() {
    let announce = |client: &str, local: &str| Announce { client: client.parse().ok(), local: local.parse().ok() };
    let written = |announce: &Announce| {
        let mut out = Vec::new();
        write_v1(&mut out, announce);
        String::from_utf8(out).expect("text")
    };
    assert_eq!(written(&announce("192.0.2.7:1", "[2001:db8::1]:2")), "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n");
    assert_eq!(written(&announce("[::ffff:192.0.2.7]:1", "192.0.2.8:2")), "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n");
    assert_eq!(written(&Announce::default()), "PROXY UNKNOWN\r\n");
    let mut out = Vec::new();
    write_v2(&mut out, &Announce::default());
    assert_eq!(out, v2(0x21, 0, &[]));
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

/// Bytes that come close to a header.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let v1 = "PROXY (TCP4|TCP6|UNKNOWN|TCP)( [0-9:.]{1,20}){0,5}(\r\n|\r|\n)?";
    let parts = (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300));
    let v2 = parts.prop_map(|(command, family, rest)| v2(0x20 | (command & 3), family & 0x33, &rest));
    prop_oneof![v1.prop_map(String::into_bytes), v2, proptest::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #[test]
    fn what_we_write_is_read_as_what_we_meant_wherever_it_is_cut(
        ips in (any_ip(), any_ip()),
        ports in any::<(u16, u16)>(),
        after in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (from, to) = (SocketAddr::new(ips.0, ports.0), SocketAddr::new(ips.1, ports.1));
        let announce = Announce { client: Some(from), local: Some(to) };
        let meant = announce.pair().map(|(client, local)| Announced::Client { client, local });
        for write in [write_v1, write_v2] {
            let mut header = Vec::new();
            write(&mut header, &announce);
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(None));
            }
            let all = [&header[..], &after].concat();
            prop_assert_eq!(parse(&all), Ok(meant.map(|meant| (meant, header.len()))));
        }
    }

    #[test]
    fn another_implementation_reads_what_we_write_and_we_what_it_writes(
        ips in prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
            any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        ],
        ports in any::<(u16, u16)>(),
        extension in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        use ::proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};
        let (client, local) = (SocketAddr::new(ips.0, ports.0), SocketAddr::new(ips.1, ports.1));
        let announce = Announce { client: Some(client), local: Some(local) };
        let theirs = ProxiedAddress::stream(client, local);
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        let mut header = ProxyHeader::with_address(theirs.clone());
        header.encode_v1(&mut v1).expect("one family");
        header.append_tlv(Tlv::UniqueId(extension.into()));
        header.encode_v2(&mut v2).expect("one family");
        for bytes in [v1, v2] {
            prop_assert_eq!(parse(&bytes), Ok(Some((Announced::Client { client, local }, bytes.len()))));
        }
        // What we write of mapped addresses is IPv4, which is not what they were given as.
        prop_assume!(announce.pair() == Some((client, local)));
        for write in [write_v1, write_v2] {
            let mut bytes = Vec::new();
            write(&mut bytes, &announce);
            let (read, len) = ProxyHeader::parse(&bytes, ParseConfig::default()).expect("a header");
            prop_assert_eq!((read.proxied_address(), len), (Some(&theirs), bytes.len()));
        }
    }

    #[test]
    fn a_judgement_never_changes_with_what_comes_later(bytes in nearly()) {
        let mut last = Ok(None);
        for len in 0..=bytes.len() {
            let found = parse(&bytes[..len]);
            if last != Ok(None) {
                prop_assert_eq!(found, last);
            } else if let Ok(Some((_, end))) = found {
                prop_assert_eq!(end, len, "a header is known with its last byte");
            }
            last = found;
        }
        if bytes.len() >= HEADER_MAX {
            prop_assert_ne!(last, Ok(None));
        }
    }
}
