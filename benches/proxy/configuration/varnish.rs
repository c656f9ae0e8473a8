//! Varnish's configuration, for what is answered from a cache.

use crate::contenders::Setup;
use std::net::SocketAddr;

pub(super) fn text(setup: &Setup) -> String {
    let (address, port) = (setup.upstream.ip(), setup.upstream.port());
    let fields = if setup.settings.bare_peers { "" } else { FIELDS };
    format!(
        "\
vcl 4.1;
backend upstream {{ .host = \"{address}\"; .port = \"{port}\"; }}
{fields}
"
    )
}

/// In the foreground, its cache in memory, as many threads as there are clients and some, which stay.
pub(super) fn arguments(setup: &Setup, file: &str, home: &str, address: SocketAddr) -> Vec<String> {
    let words = format!(
        "-F -n {home}/varnish -j none -a {address} -f {file} -s malloc,64M -s Transient=malloc,64M \
         -p thread_pools=1 -p thread_pool_min=64 -p thread_pool_max=64"
    );
    let mut words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    if !setup.settings.access_log {
        // Its log in shared memory is its access log; whoever wants none masks what requests write there.
        words.extend(["-p".into(), QUIET.into()]);
    }
    words
}

/// What Sluice writes, in Varnish's words. `Age` and `Via` it writes by itself, and a number of the request.
const FIELDS: &str = "\
sub vcl_backend_fetch {
  set bereq.http.X-Forwarded-Proto = \"http\";
  set bereq.http.X-Request-Id = bereq.xid;
  set bereq.http.Via = \"1.1 varnish\";
  set bereq.http.X-Edge = \"bench\";
  set bereq.http.X-Provider = \"bench\";
}
sub vcl_deliver {
  unset resp.http.X-Varnish;
  set resp.http.X-Request-Id = req.xid;
  set resp.http.X-Served = \"bench\";
}";

/// Leaves all tags out that a request writes.
const QUIET: &str = "vsl_mask=-Begin,-End,-Link,-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,\
-ReqAcct,-RespProtocol,-RespStatus,-RespReason,-RespHeader,-RespUnset,-Hit,-VCL_call,-VCL_return,-VCL_use,-Timestamp,\
-Filters,-Length,-SessOpen,-SessClose";
