//! Single values: from text to a duration, an address, a path, or to what is wrong with it.
//!
//! Every function takes text alone and never repeats it in what it says on its own account: whether a value may be
//! shown is decided by the caller, who knows whether it is a secret or came from outside the file.

use super::types::{
    Bind, Cidr, HashBy, HedgeAfter, HostPattern, HostRule, PathPattern, ProviderAddress, ProviderUrl, Rate,
    SOCKET_PATH_MAX, Scheme, TlsVersion,
};
use crate::policy::retry::{Conditions, Why};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) says: Says,
    /// What to do. Borrowed text shows nothing of the value; owned text may.
    pub(super) help: Option<Cow<'static, str>>,
}

/// How a fault is worded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Says {
    /// "expected …", to be followed by what was found.
    Expected(Cow<'static, str>),
    /// A statement that shows nothing of the value.
    Statement(Cow<'static, str>),
}

// === impl Fault ===

impl Fault {
    pub(super) fn expected(what: impl Into<Cow<'static, str>>) -> Self {
        Fault { says: Says::Expected(what.into()), help: None }
    }

    pub(super) fn says(statement: impl Into<Cow<'static, str>>) -> Self {
        Fault { says: Says::Statement(statement.into()), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// What a duration outside the file says, written as in it; `None` where it is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    duration(text).ok()
}

/// `250ms`, `5s`, `1m`, `2h`: a whole number and a unit.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    const FORMS: &str = "write a whole number and `ms`, `s`, `m` or `h`: `250ms`, `5s`";
    let fault = || Fault::expected("a duration");
    let (number, unit) = split_number(text);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if !number.is_empty() => return Err(fault().help(format!("add a unit: `{number}s` or `{number}ms`"))),
        "d" => return Err(fault().help("write days in hours: `24h`")),
        _ => return Err(fault().help(FORMS)),
    };
    let number: u64 = number.parse().map_err(|_| fault().help(FORMS))?;
    match number.checked_mul(milliseconds).filter(|&span| span <= DURATION_MAX_MS) {
        Some(span) => Ok(Duration::from_millis(span)),
        None => Err(Fault::expected("a duration of at most 8784h (a year)")),
    }
}

/// `64KiB`, `10MiB`, `1GiB`, or plain bytes.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let fault = || Fault::expected("a size").help("write bytes, or a whole number and `KiB`, `MiB` or `GiB`: `64KiB`");
    let (number, unit) = split_number(text);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        "k" | "K" | "KB" | "kB" | "kb" | "Kib" | "kib" => return Err(unit_fault(number, "KiB")),
        "m" | "M" | "MB" | "mb" | "Mib" | "mib" => return Err(unit_fault(number, "MiB")),
        "g" | "G" | "GB" | "gb" | "Gib" | "gib" => return Err(unit_fault(number, "GiB")),
        _ => return Err(fault()),
    };
    let number: u64 = number.parse().map_err(|_| fault())?;
    number
        .checked_mul(1 << shift)
        .filter(|&size| size <= SIZE_MAX)
        .ok_or_else(|| Fault::expected("a size of at most 1024TiB"))
}

fn unit_fault(number: &str, unit: &str) -> Fault {
    Fault::expected("a size").help(format!("did you mean `{number}{unit}`? (1KiB is 1024 bytes)"))
}

/// `1KiB/s`, or 0 for off.
pub(super) fn byte_rate(text: &str) -> Result<u64, Fault> {
    let fault = || Fault::expected("a rate in bytes").help("write a size and `/s`: `1KiB/s`; 0 is off");
    match text.strip_suffix("/s") {
        Some(each) => size(each.trim_end()).map_err(|_| fault()),
        None if text == "0" => Ok(0),
        None => Err(fault()),
    }
}

/// `100/s`, `5000/m`, `10/h`.
pub(super) fn rate(text: &str) -> Result<Rate, Fault> {
    let fault = || Fault::expected("a rate").help("write a whole number, and `/s`, `/m` or `/h`: `100/s`");
    let (count, unit) = text.split_once('/').ok_or_else(fault)?;
    let per = match unit.trim_start() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(fault()),
    };
    let count = integer(count.trim_end(), 0, u64::MAX).map_err(|_| fault())?;
    match u32::try_from(count) {
        Ok(0) => Err(Fault::expected("a rate above 0")),
        Ok(count) if count <= RATE_MAX => Ok(Rate { count, per: Duration::from_secs(per) }),
        _ => Err(Fault::expected(format!("a rate of at most {RATE_MAX}"))),
    }
}

/// A number within bounds: digits, and perhaps a point.
pub(super) fn number(text: &str, min: f64, max: f64) -> Result<f64, Fault> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value: Option<f64> = text.parse().ok().filter(|_| plain);
    let expected = || Fault::expected(format!("a number from {min} to {max}"));
    if text.ends_with('%') {
        return Err(expected().help("100 % is 1: write `0.05` for 5 %"));
    }
    value.filter(|value| (min..=max).contains(value)).ok_or_else(expected)
}

/// `connect`, `reset`, `timeout`, `503`, `5xx`.
pub(super) fn condition(text: &str) -> Result<(), Fault> {
    Conditions::parse(&[text]).map(drop).map_err(|wrong| match wrong.why {
        Why::Interim => Fault::says("an interim answer (1xx) ends no attempt").help("remove it"),
        _ => Fault::expected(CONDITION),
    })
}

/// `200`, `200-399`.
pub(super) fn status_range(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    let fault = || Fault::expected("statuses from 200 to 599").help("write one, such as `200`, or `200-399`");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| integer(text.trim(), 200, 599).map(|status| status as u16).map_err(|_| fault());
    let (first, last) = (status(first)?, status(last)?);
    if first > last {
        return Err(fault().help(format!("did you mean `{last}-{first}`?")));
    }
    Ok(first..=last)
}

/// `header:x-user`, `cookie:session`, `ip`, `client`.
pub(super) fn hash_by(text: &str) -> Result<HashBy, Fault> {
    let fault = || Fault::expected("`header:NAME`, `cookie:NAME`, `ip` or `client`");
    match text.split_once(':') {
        Some(("header", name)) => header_name(name).map(HashBy::Header),
        Some(("cookie", name)) if is_token(name) && name.len() <= HEADER_NAME_MAX => {
            Ok(HashBy::Cookie(name.to_owned()))
        }
        Some(("cookie", _)) => {
            Err(Fault::expected("the name of a cookie").help("a name has letters, digits and `-`, and no space"))
        }
        Some(_) => Err(fault()),
        None => match text {
            "ip" => Ok(HashBy::Ip),
            "client" => Ok(HashBy::Client),
            "address" => Err(fault().help("write `ip`")),
            "header" | "cookie" => Err(fault().help(format!("add its name: `{text}:NAME`"))),
            _ => Err(fault()),
        },
    }
}

/// `p95`, `p99.9`, `250ms`.
pub(super) fn hedge_after(text: &str) -> Result<HedgeAfter, Fault> {
    let fault = || Fault::expected("a quantile or a duration").help("write `p95`, or a duration such as `250ms`");
    match text.strip_prefix('p') {
        Some(percent) => {
            let percent = number(percent, 1.0, 99.9)
                .map_err(|_| Fault::expected("a quantile from p1 to p99.9").help("write `p95`"))?;
            Ok(HedgeAfter::Quantile(percent / 100.0))
        }
        None => match duration(text) {
            Ok(span) if !span.is_zero() => Ok(HedgeAfter::Time(span)),
            _ => Err(fault()),
        },
    }
}

/// A whole number within bounds.
pub(super) fn integer(text: &str, min: u64, max: u64) -> Result<u64, Fault> {
    let expected = || {
        Fault::expected(match max {
            u64::MAX => format!("an integer, at least {min}"),
            _ if min == max => format!("the number {min}"),
            _ => format!("an integer from {min} to {max}"),
        })
    };
    let digits = text.strip_prefix('+').unwrap_or(text);
    let value: u64 = if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() {
        digits.parse().map_err(|_| expected())?
    } else {
        return Err(expected());
    };
    if (min..=max).contains(&value) { Ok(value) } else { Err(expected()) }
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, Fault> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        "on" | "yes" | "On" | "Yes" | "ON" | "YES" | "y" => {
            Err(Fault::expected("true or false").help("in YAML 1.2 this is text; write `true`"))
        }
        "off" | "no" | "Off" | "No" | "OFF" | "NO" | "n" => {
            Err(Fault::expected("true or false").help("in YAML 1.2 this is text; write `false`"))
        }
        _ => Err(Fault::expected("true or false")),
    }
}

/// `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/sluice.sock`.
pub(super) fn bind(text: &str) -> Result<Bind, Fault> {
    match text.strip_prefix("unix:") {
        Some(path) => socket_path(path).map(Bind::Unix),
        None => tcp_bind(text).map(Bind::Tcp),
    }
}

/// The path of a unix socket.
fn socket_path(path: &str) -> Result<PathBuf, Fault> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(Fault::says("a socket has an absolute path").help("write `unix:/run/sluice.sock`"));
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(Fault::says(format!(
            "a socket's path is at most {SOCKET_PATH_MAX} bytes long, this one has {}",
            path.len()
        ))
        .help("choose a shorter one: the kernel takes no more"));
    }
    file(path)?;
    Ok(PathBuf::from(path))
}

/// `1.2` or `1.3`.
pub(super) fn tls_version(text: &str) -> Result<TlsVersion, Fault> {
    let fault = || Fault::expected("`1.2` or `1.3`");
    match text {
        "1.2" => Ok(TlsVersion::V12),
        "1.3" => Ok(TlsVersion::V13),
        "1.0" | "1.1" => {
            Err(fault().help("TLS 1.0 and 1.1 are broken and not spoken, on purpose (RFC 8996); write \"1.2\""))
        }
        _ => Err(fault().help("write \"1.2\" or \"1.3\"")),
    }
}

/// `127.0.0.1:8080`, `[::1]:8080`.
pub(super) fn tcp_bind(text: &str) -> Result<SocketAddr, Fault> {
    if text.starts_with("unix:") {
        return Err(Fault::says("the admin listener is never on a unix socket")
            .help("write an address and a port: `127.0.0.1:9900`"));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let fault = Fault::expected("an address and port");
    if text.starts_with('/') {
        return Err(fault.help(format!("for a unix socket write `unix:{text}`")));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let help = match text.parse::<u16>() {
            Ok(port) => format!("did you mean `127.0.0.1:{port}`? (`0.0.0.0:{port}` for every address)"),
            Err(_) if text.parse::<IpAddr>().is_ok() => format!("add a port: `{text}:8080`"),
            Err(_) => "write `127.0.0.1:8080`, `0.0.0.0:80` or `[::]:80`".into(),
        };
        return Err(fault.help(help));
    };
    if port.is_empty() || port.parse::<u16>().is_err() {
        return Err(
            fault.help("the port is a number from 0 to 65535; an IPv6 address stands in brackets: `[::1]:8080`")
        );
    }
    Err(match host {
        "" | "*" => fault.help(format!("for every address write `0.0.0.0:{port}`, or `[::]:{port}` with IPv6")),
        "localhost" => fault.help(format!("names are not resolved here; write `127.0.0.1:{port}`")),
        host if host.parse::<Ipv6Addr>().is_ok() => fault.help(format!("write `[{host}]:{port}`")),
        _ => fault.help("names are not resolved here; write an IP address"),
    })
}

/// The word for peers of a unix socket, among ranges of addresses.
pub(super) const UNIX: &str = "unix";

/// `10.0.0.0/8`, or one address.
pub(super) fn cidr(text: &str) -> Result<Cidr, Fault> {
    let fault = || Fault::expected("an address range").help("write `10.0.0.0/8`, `fd00::/8` or one address");
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| fault())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => width,
        Some(bits) => integer(bits, 0, u64::from(width)).map_err(|_| fault())? as u8,
    };
    let first = first_of(address, bits);
    if first != address {
        return Err(Fault::expected("an address range")
            .help(format!("bits are set behind the prefix; did you mean `{first}/{bits}`?")));
    }
    // IPv4 mapped into IPv6 is IPv4, wherever addresses are compared.
    match address.to_canonical() {
        IpAddr::V4(mapped) if address.is_ipv6() && bits >= 96 => Ok(Cidr { address: mapped.into(), bits: bits - 96 }),
        _ => Ok(Cidr { address, bits }),
    }
}

/// `address` with all but its first `bits` cleared.
fn first_of(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

/// `http://host:port/prefix`, `https://…`, `h2c://…`, `http://unix:/run/app.sock:/prefix`.
pub(super) fn provider_url(text: &str) -> Result<ProviderUrl, Fault> {
    const BEGIN: &str = "begin with `http://`, `https://` or `h2c://`";
    const SOCKET: &str = "a socket stands after the scheme: `http://unix:/run/app.sock`";
    let fault = || Fault::expected("a URL");
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(fault().help(if text.starts_with("unix:") { SOCKET } else { BEGIN }));
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "h2c" => Scheme::H2c,
        "h2" | "http2" => return Err(fault().help("write `h2c://` for HTTP/2 in the clear, `https://` over TLS")),
        "grpc" => return Err(fault().help("gRPC is HTTP/2: write `h2c://` in the clear, `https://` over TLS")),
        "grpcs" => return Err(fault().help("gRPC is HTTP/2: write `https://`")),
        "unix" | "http+unix" => return Err(fault().help(SOCKET)),
        _ => return Err(fault().help(BEGIN)),
    };
    if rest.contains(['?', '#']) {
        return Err(Fault::says("a provider's URL has no query and no fragment").help("end it after the path"));
    }
    if let Some(place) = rest.strip_prefix("unix:") {
        return socket_url(scheme, place);
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err(
            Fault::says("a provider's URL holds no user and password").help("set `authorization` under `headers.set`")
        );
    }
    let (host, port) = authority_parts(authority).map_err(|inner| Fault { help: inner.help, ..fault() })?;
    let port = port.unwrap_or(scheme.default_port());
    Ok(ProviderUrl::new(scheme, ProviderAddress::Tcp { host, port }, url_prefix(path)?))
}

/// What follows `http://unix:`: the socket's path, and a prefix after a colon.
fn socket_url(scheme: Scheme, place: &str) -> Result<ProviderUrl, Fault> {
    if scheme.is_tls() {
        return Err(
            Fault::says("TLS is not spoken through a unix socket").help("write `http://unix:` or `h2c://unix:`")
        );
    }
    let (path, prefix) = match place.split_once(':') {
        Some((_, "")) => {
            return Err(Fault::expected("a URL").help("a path prefix follows the last colon; remove the colon"));
        }
        Some((path, prefix)) => (path, prefix),
        None => (place, ""),
    };
    let path = socket_path(path).map_err(|inner| match inner.help {
        Some(Cow::Borrowed("write `unix:/run/sluice.sock`")) => inner.help("write `http://unix:/run/app.sock`"),
        _ => inner,
    })?;
    Ok(ProviderUrl::new(scheme, ProviderAddress::Unix(path), url_prefix(prefix)?))
}

/// The path of a provider's URL without the `/` at its end.
fn url_prefix(path: &str) -> Result<String, Fault> {
    let prefix = path.trim_end_matches('/');
    if !prefix.is_empty() {
        path_text(prefix).map_err(|inner| Fault { help: inner.help, ..Fault::expected("a URL") })?;
    }
    Ok(prefix.to_owned())
}

/// Host and port of `host:port`, `host`, `[::1]:port`.
fn authority_parts(authority: &str) -> Result<(String, Option<u16>), Fault> {
    let port_fault = || Fault::expected("a URL").help("the port is a number from 1 to 65535");
    let (name, port) = if let Some(inside) = authority.strip_prefix('[') {
        let (ip, rest) = inside
            .split_once(']')
            .ok_or_else(|| Fault::expected("a URL").help("close the bracket after the IPv6 address"))?;
        ip.parse::<Ipv6Addr>().map_err(|_| Fault::expected("a URL").help("the brackets hold no IPv6 address"))?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(port_fault)?) };
        (ip.to_ascii_lowercase(), port)
    } else {
        let (name, port) = authority.split_once(':').map_or((authority, None), |(name, port)| (name, Some(port)));
        (host(name)?, port)
    };
    let port = port.map(|port| integer(port, 1, 65535).map_err(|_| port_fault())).transpose()?;
    Ok((name, port.map(|port| port as u16)))
}

/// A DNS name or an IPv4 address, in lower case.
pub(super) fn host(text: &str) -> Result<String, Fault> {
    let fault = || Fault::expected("a host name");
    if text.is_empty() {
        return Err(fault().help("the host is missing"));
    }
    if !text.is_ascii() {
        return Err(fault().help("write an international name in its `xn--` form"));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(good) {
        return Err(fault().help("a name has letters, digits, `-` and dots, and no port"));
    }
    Ok(name.to_ascii_lowercase())
}

/// A host name, or an IP literal: what a client may call us.
fn called(text: &str) -> Result<String, Fault> {
    let ip = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match ip.parse::<Ipv6Addr>() {
        Ok(ip) => Ok(format!("[{ip}]")),
        Err(_) => host(text),
    }
}

/// `*`, `*.example.com`, `example.com`.
pub(super) fn host_pattern(text: &str) -> Result<HostPattern, Fault> {
    match text.strip_prefix('*') {
        Some("") => Ok(HostPattern::Any),
        Some(rest) => match rest.strip_prefix('.') {
            Some(name) => Ok(HostPattern::Wildcard(format!(".{}", host(name)?))),
            None => Err(Fault::expected("a host name").help("a wildcard is a whole label: `*.example.com`")),
        },
        None if text.contains('*') => {
            Err(Fault::expected("a host name").help("`*` stands only at the front: `*.example.com`"))
        }
        None => called(text).map(HostPattern::Exact),
    }
}

/// `upstream`, `preserve`, or a host with an optional port.
pub(super) fn host_rule(text: &str) -> Result<HostRule, Fault> {
    match text {
        "upstream" => Ok(HostRule::Upstream),
        "preserve" => Ok(HostRule::Preserve),
        _ => {
            let (name, port) =
                authority_parts(text).map_err(|_| Fault::expected("`upstream`, `preserve` or a host name"))?;
            let name = if name.contains(':') { format!("[{name}]") } else { name };
            Ok(HostRule::Name(port.map_or(name.clone(), |port| format!("{name}:{port}"))))
        }
    }
}

/// A field name, in lower case.
pub(super) fn header_name(text: &str) -> Result<String, Fault> {
    if is_token(text) && text.len() <= HEADER_NAME_MAX {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Fault::expected("a field name").help("a name has letters, digits and `-`, and no colon or space"))
}

/// What may follow the colon of a field.
pub(super) fn header_value(text: &str) -> Result<(), Fault> {
    if text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(Fault::says("a field value holds no line break or control character").help("write it on one line"));
    }
    if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
        return Err(Fault::says("a field value neither begins nor ends with a space").help("remove the space"));
    }
    if text.len() > HEADER_VALUE_MAX {
        return Err(Fault::says("a field value is at most 16 KiB long"));
    }
    Ok(())
}

/// A method a route may have.
pub(super) fn method(text: &str) -> Result<(), Fault> {
    if matches!(text, "CONNECT" | "TRACE") {
        return Err(Fault::says("CONNECT and TRACE are always refused").help("remove it"));
    }
    if !is_token(text) || text.len() > METHOD_MAX {
        return Err(Fault::expected("a method").help("write GET, POST, …"));
    }
    let upper = text.to_ascii_uppercase();
    let common = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    if upper != text && common.contains(&upper.as_str()) {
        return Err(Fault::expected("a method").help(format!("methods are in capitals: `{upper}`")));
    }
    Ok(())
}

/// `/health` or `/api/*`.
pub(super) fn path_pattern(text: &str) -> Result<PathPattern, Fault> {
    let (path, prefix) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    if path.contains('*') {
        return Err(
            Fault::expected("a path").help("`*` stands only at the end, after a `/`; for more, use `path_regex`")
        );
    }
    if prefix && path.is_empty() {
        return Ok(PathPattern::Prefix(String::new()));
    }
    path_text(path)?;
    if prefix && path.ends_with('/') {
        return Err(Fault::expected("a path").help("write one `/` before the `*`"));
    }
    Ok(if prefix { PathPattern::Prefix(path.to_owned()) } else { PathPattern::Exact(path.to_owned()) })
}

/// `/api`: whole segments, no `/` at the end.
pub(super) fn path_prefix(text: &str) -> Result<String, Fault> {
    if text.contains('*') {
        return Err(Fault::expected("a path prefix").help("leave out the `*`: `/api`"));
    }
    path_text(text)?;
    if text.ends_with('/') {
        let help = if text == "/" { "leave this setting out" } else { "leave out the `/` at its end" };
        return Err(Fault::expected("a path prefix").help(help));
    }
    Ok(text.to_owned())
}

/// `/healthz`, `/status?deep=1`.
pub(super) fn target(text: &str) -> Result<(), Fault> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    path_text(path)?;
    if query.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
        return Err(Fault::expected("a path").help("percent-encode spaces, `#` and characters outside ASCII"));
    }
    if text.len() > PATH_MAX {
        return Err(Fault::expected("a path").help("a path is at most 4 KiB long"));
    }
    Ok(())
}

/// Checks that `text` is an absolute path in the form that requests have once they are normalised.
fn path_text(text: &str) -> Result<(), Fault> {
    let fault = |help: &'static str| Err(Fault::expected("a path").help(help));
    if !text.starts_with('/') {
        return fault("begin with `/`");
    }
    if text.len() > PATH_MAX {
        return fault("a path is at most 4 KiB long");
    }
    if text.contains(['?', '#']) {
        return fault("leave out the query; match it with `query`");
    }
    if text.contains("//") {
        return fault("repeated slashes become one before matching; write one `/`");
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return fault("`.` and `..` are resolved before matching; write the path without them");
    }
    if text.bytes().any(|b| !b.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&b)) {
        return fault("percent-encode spaces and characters outside ASCII, in capitals: `%C3%A4`");
    }
    let normal = text.split('%').skip(1).all(|rest| is_normal_escape(rest.as_bytes()));
    if !normal {
        return fault(
            "an escape is `%` and two hexadecimal digits in capitals, and letters, digits, `-._~` are not escaped",
        );
    }
    Ok(())
}

/// Whether what follows a `%` is an escape that normalisation keeps.
fn is_normal_escape(rest: &[u8]) -> bool {
    let digit = |b: &u8| char::from(*b).to_digit(16).filter(|_| !b.is_ascii_lowercase());
    let (Some(high), Some(low)) = (rest.first().and_then(digit), rest.get(1).and_then(digit)) else { return false };
    let byte = (high * 16 + low) as u8;
    // An encoded NUL is refused in every request.
    byte != 0 && !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// Where a redirect leads: a path or an absolute URL, with `{host}`, `{path}`, `{query}`.
pub(super) fn location(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::expected("a URL or a path").help("write `https://{host}{path}{query}` or `/new`"));
    }
    header_value(text)?;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let Some(after) = ["{host}", "{path}", "{query}"].iter().find_map(|name| rest[at..].strip_prefix(name)) else {
            return Err(Fault::says("only `{host}`, `{path}` and `{query}` stand in braces")
                .help("percent-encode other braces: `%7B`, `%7D`"));
        };
        rest = after;
    }
    let http = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    if !http && (!text.starts_with('/') && !text.starts_with("{path}")) {
        return Err(Fault::expected("a URL or a path").help("begin with `https://`, `http://` or `/`"));
    }
    if text.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(Fault::expected("a URL or a path").help("percent-encode spaces and characters outside ASCII"));
    }
    Ok(())
}

/// The name of a thing: what metrics, paths of the admin API and command lines can carry without quoting.
pub(super) fn name(text: &str) -> Result<(), Fault> {
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if text.is_empty() || !good || text.len() > NAME_MAX || text.starts_with(['-', '.']) {
        let help = "a name has letters, digits, `-`, `_` and `.`, begins with a letter, a digit or `_`, and has at most 100 characters";
        return Err(Fault::expected("a name").help(help));
    }
    Ok(())
}

/// A bearer token: empty, or what fits after `Bearer `.
pub(super) fn token(text: &str) -> Result<(), Fault> {
    if text.bytes().any(|b| !b.is_ascii_graphic()) || text.len() > HEADER_VALUE_MAX {
        return Err(
            Fault::says("a token has visible ASCII characters only, and no space").help("clients could not send it")
        );
    }
    Ok(())
}

/// A path of a file.
pub(super) fn file(text: &str) -> Result<(), Fault> {
    if text.contains('\0') { Err(Fault::says("a path holds no NUL")) } else { Ok(()) }
}

/// Whether `text` is a token of RFC 9110.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Leading digits, and the rest without the space between.
fn split_number(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim_start())
}

/// What a [`condition`] is.
pub(super) const CONDITION: &str =
    "`connect`, `reset`, `timeout`, a status from 200 to 599, or a class of them like `5xx`";
/// 366 days.
const DURATION_MAX_MS: u64 = 366 * 24 * 3_600_000;
/// 1 PiB.
const SIZE_MAX: u64 = 1 << 50;
const HEADER_NAME_MAX: usize = 256;
const HEADER_VALUE_MAX: usize = 16 << 10;
const METHOD_MAX: usize = 32;
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 100;
/// So many in a second, a minute or an hour.
const RATE_MAX: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_whole_number_and_a_unit() {
        let good = [("250ms", 250), ("5s", 5000), ("1m", 60_000), ("2h", 7_200_000), ("0s", 0), ("5 s", 5000)];
        for (text, milliseconds) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "5", "1.5s", "-1s", "+1s", "1d", "1h30m", "8785h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        for (text, bytes) in
            [("0", 0), ("1024", 1024), ("64KiB", 65_536), ("10MiB", 10 << 20), ("1GiB", 1 << 30), ("7B", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "1KB", "1k", "1.5MiB", "-1", "2048TiB", "18446744073709551616"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!((byte_rate("1KiB/s"), byte_rate("0"), byte_rate("0/s")), (Ok(1024), Ok(0), Ok(0)));
        assert!(["1KiB", "1KiB/m", "/s", "5"].into_iter().all(|text| byte_rate(text).is_err()));
    }

    #[test]
    fn rates_and_numbers_have_no_sign_no_exponent_and_no_unit_of_their_own() {
        let parts = |text| rate(text).map(|rate| (rate.count, rate.per.as_secs(), rate.to_string()));
        assert_eq!(parts("500/s"), Ok((500, 1, "500/s".into())));
        assert_eq!(parts("5000 / m"), Ok((5000, 60, "5000/m".into())));
        assert_eq!(parts("1/h"), Ok((1, 3600, "1/h".into())));
        for text in ["", "5", "/s", "0/s", "5/", "5/d", "5/10s", "-1/s", "1.5/s", "1000000001/s", "99999999999/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(
            (number("0", 0.0, 1.0), number("0.25", 0.0, 1.0), number("1", 0.0, 1.0)),
            (Ok(0.0), Ok(0.25), Ok(1.0))
        );
        for text in ["", ".", "1.1", "-0.5", "nan", "inf", "1e-3", "5%", "+1", "0,5", "1.0.0"] {
            assert!(number(text, 0.0, 1.0).is_err(), "{text}");
        }
    }

    #[test]
    fn a_hash_and_a_hedge_are_written_as_they_were_read() {
        for text in ["header:x-user", "cookie:Session", "ip", "client"] {
            assert_eq!(hash_by(text).map(|by| by.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(hash_by("header:X-User"), Ok(HashBy::Header("x-user".into())));
        for text in ["", "header", "header:", "cookie:", "cookie:a b", "ip:1", "address", "query:q"] {
            assert!(hash_by(text).is_err(), "{text}");
        }
        for text in ["p95", "p99.9", "p50", "p1", "250ms", "2s"] {
            assert_eq!(hedge_after(text).map(|after| after.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "p", "p0", "p100", "95", "0s", "p99.95x", "P95"] {
            assert!(hedge_after(text).is_err(), "{text}");
        }
        assert_eq!((status_range("200"), status_range("200-399")), (Ok(200..=200), Ok(200..=399)));
        for text in ["", "99", "399-200", "200-", "2xx", "100-200", "600"] {
            assert!(status_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_provider_is_taken_apart_and_its_standard_port_filled_in() {
        let parts = |text| provider_url(text).map(|url| (url.scheme, url.address, url.prefix));
        let tcp = |host: &str, port| ProviderAddress::Tcp { host: host.into(), port };
        let unix = |path: &str| ProviderAddress::Unix(path.into());
        assert_eq!(parts("http://A.Example"), Ok((Scheme::Http, tcp("a.example", 80), String::new())));
        assert_eq!(parts("https://a:8443/v1/"), Ok((Scheme::Https, tcp("a", 8443), "/v1".into())));
        assert_eq!(parts("http://[::1]:9/x/y"), Ok((Scheme::Http, tcp("::1", 9), "/x/y".into())));
        assert_eq!(parts("H2C://a"), Ok((Scheme::H2c, tcp("a", 80), String::new())));
        assert_eq!(parts("http://unix:/a.sock"), Ok((Scheme::Http, unix("/a.sock"), String::new())));
        assert_eq!(parts("http://unix:/a.sock:/"), Ok((Scheme::Http, unix("/a.sock"), String::new())));
        assert_eq!(parts("h2c://unix:/a/b:/v1/"), Ok((Scheme::H2c, unix("/a/b"), "/v1".into())));
        for text in
            ["", "a", "http://", "http://a:", "http://a:x", "http://a:65536", "http://[::1]x", "http://a/b c", "//a"]
        {
            assert!(provider_url(text).is_err(), "{text}");
        }
        for text in
            ["http://unix:", "http://unix:a", "http://unix:/", "http://unix:/a:", "http://unix:/a:b", "https://unix:/a"]
        {
            assert!(provider_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_provider_is_written_as_it_was_read() {
        for text in [
            "http://a:80",
            "https://a:443/v1",
            "h2c://[::1]:9",
            "http://unix:/run/a.sock",
            "h2c://unix:/run/a.sock:/v1",
        ] {
            assert_eq!(provider_url(text).map(|url| url.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn ranges_are_prefixes_and_nothing_is_set_behind_them() {
        let parts = |text| cidr(text).map(|range| (range.address.to_string(), range.bits));
        assert_eq!(parts("10.0.0.0/8"), Ok(("10.0.0.0".into(), 8)));
        assert_eq!(parts("0.0.0.0/0"), Ok(("0.0.0.0".into(), 0)));
        assert_eq!(parts("::/0"), Ok(("::".into(), 0)));
        assert_eq!(parts("192.0.2.1"), Ok(("192.0.2.1".into(), 32)));
        for text in ["10.0.0.1/8", "10.0.0.0/33", "::1/64", "::/129", "a/8", "10.0.0.0/", "10.0.0.0/-1", "fd00::1/8"] {
            assert!(cidr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_of_hosts_and_paths_are_stored_as_the_router_wants_them() {
        assert_eq!(host_pattern("*"), Ok(HostPattern::Any));
        assert_eq!(host_pattern("*.Example.com"), Ok(HostPattern::Wildcard(".example.com".into())));
        assert_eq!(host_pattern("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        assert_eq!(path_pattern("/*"), Ok(PathPattern::Prefix(String::new())));
        assert_eq!(path_pattern("/api/*"), Ok(PathPattern::Prefix("/api".into())));
        assert_eq!(path_pattern("/"), Ok(PathPattern::Exact("/".into())));
        assert_eq!(path_pattern("/a%2Fb"), Ok(PathPattern::Exact("/a%2Fb".into())));
        assert_eq!(host_rule("Api.Example:8443"), Ok(HostRule::Name("api.example:8443".into())));
        assert_eq!(host_rule("[::1]"), Ok(HostRule::Name("[::1]".into())));
    }

    #[test]
    fn what_would_break_a_message_is_no_field() {
        assert!(["a b", "a:", "", "ä", "a\n"].into_iter().all(|name| header_name(name).is_err()));
        assert!(
            ["a\r\nb: c", "a\nb", "a\0", " a", "a ", "\u{7f}"].into_iter().all(|value| header_value(value).is_err())
        );
        assert_eq!(header_value("Bearer ä\tb"), Ok(()));
    }

    #[test]
    fn a_redirect_leads_to_a_path_or_to_http() {
        assert!(
            ["/", "/a{query}", "{path}/x", "https://{host}{path}{query}"].into_iter().all(|to| location(to).is_ok())
        );
        assert!(["", "a", "ftp://a", "/{a}", "/}", "{host}/", "/a b"].into_iter().all(|to| location(to).is_err()));
    }
}
