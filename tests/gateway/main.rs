//! The gateway as its neighbours meet it: real sockets, byte transcripts, a real binary.
//!
//! A transcript says what a client sends, what a provider sees and does *not* see, and what the client gets back. Nothing
//! here sleeps; everything waits for a condition, for a generous while.
#![allow(dead_code, unused_imports, reason = "the test world offers more than each build of it uses")]

mod addresses; // unix sockets, PROXY headers, IPv6, how many from where and for how long
mod admin;
mod authority; // certificates for tests of TLS
mod apply; // what a reload must not do
mod broken; // providers that break HTTP, break off, stay silent or are not there
mod bulk; // five gibibytes each way in constant memory
mod cache; // what is kept and given to others
mod clients; // curl, wrk, a WebSocket library, a browser
mod clients_http2; // curl, nghttp, h2load, a browser and a WebSocket library over TLS
mod clients_named; // clients of the configuration: keys, addresses, classes, their own limits
mod crowd; // many who wait, and then something happens to all of them
mod degrade; // what operators see of a ladder, and do to it
mod drain; // what is under way ends, nothing new begins
mod exchange; // a request and its answer: framing, order, streams, interim and early answers
mod figures; // queues, circuits and providers as operators see and steer them
mod faults; // one provider of three goes wrong, or a whole pool
mod files; // a certificate, a key or a secret changes and the configuration does not
mod forwarding; // which fields and bytes of a message go on
mod gone; // clients that leave, in every phase
mod grpc; // grpcio on both sides
mod hedge; // a second attempt beside a slow one
mod http2; // HTTP/2 on both sides
mod h2; // HTTP/2 frame by frame
mod heartbeat; // comments for clients that wait for an event stream
mod handover; // the process is replaced, and what a service manager is told and gives
mod health; // providers that are asked whether they are well, and those whose every address is a member
mod idle; // connections that do nothing, and the limit on all of them
mod ladder; // a route's pool cannot answer, and its ladder does
mod listener; // what a listener bounds, and many clients at once
mod lost; // not one request is lost, not one stream is cut
mod lost_tls; // nor over TLS, while certificates change and processes follow each other
mod outage; // all providers die and come back, behind a cache and a ladder
mod overrides; // what operators change at runtime, and where it is kept
mod provider; // a provider that a test drives, or a script
mod refusals; // bad input: what the client gets, what the provider does not see
mod replay; // a body that goes out twice
mod retry; // another provider is asked: when, when not, and what is told
mod reload; // a configuration is replaced whole or not at all
mod signals; // what the binary does when it is told
mod regression; // one test for each defect that was found from outside
mod smoke; // the test world itself
mod streams; // nothing is held back, and a reload changes nothing under way
mod tls; // TLS on both sides
mod told; // what the log and the admin API tell an operator
mod upgrade; // WebSocket and what else leaves HTTP
mod wire; // one TCP connection, either end of it
mod world; // a gateway to test: in this process, or the real binary
